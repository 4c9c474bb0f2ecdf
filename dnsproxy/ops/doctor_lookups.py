"""The DNS part of an examination: which servers this host asks, and what they answer to whom."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from dnsproxy.files import read_text
from dnsproxy.ops import doctor_dns as dns
from dnsproxy.ops import doctor_findings as rules
from dnsproxy.ops.doctor_findings import DnsReply
from dnsproxy.ops.doctor_ground import Ground, Target
from dnsproxy.ops.doctor_host import DNS_PORT, parse_resolv_conf
from dnsproxy.settings.values import Endpoint


async def ask_servers(ground: Ground) -> None:
    """Find out which of the servers that this host asks are the proxy."""
    conf = None
    servers: Sequence[Endpoint] = ground.site.resolvers
    if not servers:
        conf = parse_resolv_conf(read_text(ground.site.resolv_conf) or "")
        servers = conf.nameservers
    facts = await asyncio.gather(*(_ask_server(ground, server) for server in servers))
    ground.add(*rules.judge_resolvers(facts, conf))
    ground.servers = [server for server, fact in zip(servers, facts, strict=True) if fact.is_proxy]
    if not ground.servers:
        for target in ground.targets:
            target.broken = target.broken or "no resolver of this host is the proxy"


async def _ask_server(ground: Ground, server: Endpoint) -> rules.ServerFacts:
    first = next(iter(ground.targets), None)
    if first is None:
        reply = DnsReply(error="no name is configured")
        return rules.ServerFacts(_shown(server), reply, agrees=False)
    (probe,) = await dns.ask(server, first.name, [dns.TXT], ground.site.seconds, edns=dns.EDNS_SIZE)
    agrees = probe.error is None and not probe.is_proxy and await _agrees(ground, server)
    return rules.ServerFacts(_shown(server), probe, agrees=agrees)


async def _agrees(ground: Ground, server: Endpoint) -> bool:
    """Tell whether it has the right addresses, as one that forwards to the proxy does."""
    known = [target for target in ground.targets if ground.known and target.entry.addresses]
    for target in known:
        (reply,) = await dns.ask(server, target.name, [dns.A], ground.site.seconds)
        if ground.expected(target).of(4).wrong(reply):
            return False
    return bool(known)


async def ask_names(ground: Ground) -> None:
    """Ask every server that is the proxy for every name, over UDP and TCP."""
    await asyncio.gather(*(_ask_name(ground, target) for target in ground.targets))
    ground.sort("answer")


async def _ask_name(ground: Ground, target: Target) -> None:
    if target.broken:
        ground.add(rules.skip("answer", target.name, target.broken))
        return
    facts = [await _answers(ground, server, target.name) for server in ground.servers]
    finding = rules.judge_answer(target.name, ground.expected(target), facts)
    ground.add(finding)
    if finding.failed:
        target.broken = "its answer is wrong"
    replies = [reply for fact in facts for _, reply in fact.replies]
    target.answered = tuple(dict.fromkeys(a for reply in replies for a in reply.addresses))


async def _answers(ground: Ground, server: Endpoint, name: str) -> rules.AnswerFacts:
    pair, seconds = (dns.A, dns.AAAA), ground.site.seconds
    udp = await dns.ask(server, name, pair, seconds, edns=dns.EDNS_SIZE)
    tcp = await dns.ask(server, name, pair, seconds, edns=dns.EDNS_SIZE, tcp=True)
    labels = ("A over UDP", "AAAA over UDP", "A over TCP", "AAAA over TCP")
    return rules.AnswerFacts(_shown(server), tuple(zip(labels, [*udp, *tcp], strict=True)))


async def ask_as_clients(ground: Ground) -> None:
    """Look the names up as each kind of client does."""
    targets = [target for target in ground.targets if not target.broken]
    if not targets:
        broken = [(target.name, target.broken or "") for target in ground.targets]
        for name, reason in broken or [("-", "no name is known")]:
            ground.add(rules.skip("client views", name, reason))
        return
    server, seconds = ground.servers[0], ground.site.seconds
    seen = [await dns.views(server, target.name, seconds) for target in targets]
    for view in seen[0]:
        pairs = zip(targets, seen, strict=True)
        facts = [rules.ViewFacts(t.name, ground.expected(t), *views[view]) for t, views in pairs]
        ground.add(rules.judge_view(view, facts))


def _shown(server: Endpoint) -> str:
    """Return it as resolv.conf would write it, with its port only where that is another one."""
    return server.host if server.port == DNS_PORT else str(server)
