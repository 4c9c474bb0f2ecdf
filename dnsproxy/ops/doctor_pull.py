"""The path of a pull behind DNS: routes, ports, certificates, registry, token service, storage."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from urllib.parse import urlencode, urlsplit

from dnsproxy.core.addresses.filter import is_routed
from dnsproxy.core.providers import PROVIDERS
from dnsproxy.ops import doctor_dns as dns
from dnsproxy.ops import doctor_findings as rules
from dnsproxy.ops import doctor_net as net
from dnsproxy.ops import doctor_services as services
from dnsproxy.ops.doctor_findings import DnsReply, Result
from dnsproxy.ops.doctor_ground import Ground, Target
from dnsproxy.ops.doctor_services import HTTP_PORT, Registry

HTTPS_PORT = 443


class Pull:
    """Follows the names of ``ground`` that are answered rightly; ``https`` is the port to speak HTTPS on.

    Raises:
        StartError: ``learn.verify.ca_file`` cannot be used.
    """

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._settings = ground.settings
        self._no_tls = None if self._settings.tls else "learn.verify.tls is false"
        if self._settings.is_remote and self._settings.ca_file is not None and self._settings.tls:
            self._no_tls = f"the authority is in {self._settings.ca_file} of the proxy's host; give --config"
        ca_file = self._settings.ca_file if self._no_tls is None else None
        self._context = net.tls_context(ca_file, verify=self._no_tls is None)
        others = [port for port in self._settings.ports if port != HTTP_PORT]
        self._https = HTTPS_PORT if HTTPS_PORT in others or not others else others[0]

    # -- the network --------------------------------------------------------------

    def look_for_routes(self) -> None:
        """Look for a stated route and for one of the kernel to every address."""
        routed = self._settings.routed
        for target in self._ground.distinct():
            if target.broken:
                self._ground.add(rules.skip("route", target.name, target.broken))
                continue
            ranges = routed.get(target.entry.registry, ())
            facts = [
                services.RouteFacts(address, is_routed(address, ranges), *net.kernel_route(address))
                for address in target.answered
            ]
            self._ground.note(target, services.judge_route(target.name, facts), "it has no route")

    async def connect(self) -> None:
        """Open the ports: those of learn.verify, and for storage 80 too."""
        for port in dict.fromkeys((*self._settings.ports, self._https, HTTP_PORT)):
            required = port in self._settings.ports or port == self._https
            targets = [t for t in self._ground.web() if required or t.entry.role == "storage"]
            await asyncio.gather(*(self._connect_to(target, port, required=required) for target in targets))
            self._ground.sort(f"TCP {port}")

    async def _connect_to(self, target: Target, port: int, *, required: bool) -> None:
        if target.broken:
            self._ground.add(rules.skip(f"TCP {port}", target.name, target.broken))
            return
        facts = [await net.connect(address, port, self._ground.site.seconds) for address in target.answered]
        finding = services.judge_port(target.name, port, facts, required=required)
        self._ground.note(target, finding, f"port {port} is closed")

    async def shake_hands(self) -> None:
        """Check the certificates of every HTTPS name."""
        for target in self._ground.web():
            reason = target.broken or self._no_tls
            if target.wild and reason is None:
                reason = "a wildcard: no host of it is named"
            if reason:
                self._ground.add(rules.skip("TLS", target.name, reason))
                continue
            facts = [
                await net.handshake(
                    address, self._https, target.name, self._context, self._ground.site.seconds
                )
                for address in target.answered
            ]
            self._ground.note(target, services.judge_tls(target.name, facts), "TLS fails")

    # -- services -----------------------------------------------------------------

    async def follow_registries(self) -> None:
        """Ask each registry where tokens come from, and go there."""
        for target in self._ground.web():
            if target.entry.role == "registry":
                await self._follow(target)

    async def _follow(self, target: Target) -> None:
        if target.broken:
            self._ground.add(
                *(rules.skip(hop, target.name, target.broken) for hop in ("/v2/", "realm", "token service"))
            )
            return
        reply = await self._get(target, self._url(target.name, "/v2/"))
        registry = services.judge_v2(target.name, self._https, reply)
        self._ground.add(registry.finding)
        if registry.finding.failed:
            reason = "the registry does not answer"
            self._ground.add(*(rules.skip(hop, target.name, reason) for hop in ("realm", "token service")))
            return
        await self._follow_realm(target, registry)

    async def _follow_realm(self, target: Target, registry: Registry) -> None:
        bearer = registry.bearer
        entry = self._ground.names.find(bearer.host) if bearer else None
        owned = entry is not None or self._is_discovered(target)
        reply = None
        if bearer and owned and not bearer.taken_over:
            (reply,) = await dns.ask(self._ground.servers[0], bearer.host, [dns.A], self._ground.site.seconds)
        finding = services.judge_realm(target.name, registry, owned, reply, self._password_of(target))
        self._ground.add(finding)
        if bearer is None or finding.result is not Result.OK:
            reason = "the realm is broken" if finding.failed else "no token service is needed"
            self._ground.add(rules.skip("token service", target.name, reason))
            return
        at = target if bearer.taken_over else self._target_of(bearer.host, reply, target)
        if at.broken:
            self._ground.add(rules.skip("token service", bearer.host, at.broken))
            return
        # The realm was checked: https, a host name, nothing in front of it.
        asked = {"service": bearer.service} if bearer.service else {}
        joint = "&" if urlsplit(bearer.realm).query else "?"
        url = f"{bearer.realm}{joint}{urlencode(asked)}" if asked else bearer.realm
        self._ground.add(services.judge_token(bearer.host, await self._get(at, url)))

    def _password_of(self, target: Target) -> str:
        """Return where clients of the target's registry get passwords, if its provider knows of no tokens."""
        registries = self._ground.settings.registries
        found = (PROVIDERS.get(r.provider) for r in registries if r.name == target.entry.registry)
        return next((provider.basic for provider in found if provider is not None), "")

    def _is_discovered(self, target: Target) -> bool:
        """Whether only the proxy, which tells nothing here, can know the registry's auth host."""
        registries = self._ground.settings.registries
        return self._ground.known is None and any(
            registry.name == target.entry.registry and registry.discovers_auth for registry in registries
        )

    def _target_of(self, host: str, reply: DnsReply | None, registry: Target) -> Target:
        found = next((target for target in self._ground.targets if target.name == host), None)
        if found is not None:
            return found
        # Without the proxy's word a discovered host is among no names.
        like = next((target for target in self._ground.targets if target.entry.matches(host)), registry)
        return replace(like, name=host, answered=reply.addresses if reply else ())

    async def visit_storage(self) -> None:
        """Ask each storage host anything: it must be a server that answers."""
        for target in self._ground.web():
            if target.entry.role != "storage":
                continue
            reason = target.broken or ("a wildcard: no bucket of it is named" if target.wild else None)
            if reason:
                self._ground.add(rules.skip("storage", target.name, reason))
                continue
            self._ground.add(
                services.judge_storage(target.name, await self._get(target, self._url(target.name, "/")))
            )

    async def _get(self, target: Target, url: str) -> services.HttpReply:
        return await net.get(url, target.answered[0], self._context, self._ground.site.seconds)

    def _url(self, name: str, path: str) -> str:
        port = "" if self._https == HTTPS_PORT else f":{self._https}"
        return f"https://{name.removesuffix('.')}{port}{path}"
