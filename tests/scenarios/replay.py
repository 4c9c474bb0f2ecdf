"""Replay a scenario through the engine and its exchanges, with a clock of its own and no sockets.

A scenario is a text: an overview in ``#`` lines, then one step per line. Lines
that are indented belong to the step above: records in presentation form, those
of the authority section after ``AUTHORITY``.

    UPSTREAMS one two             names of the upstreams; ``tcp:one`` for one asked over TCP only
    LIMITS attempt=1 total=3      seconds; also waiters=N, queries that may share an exchange, and places=N,
                                  exchanges at one time
    POLICY race                   or sequential, fastest, random
    FEATURES prefetch mix_case    also stale=SECONDS, probe_interval=SECONDS, rate=N queries per second
    SWAP valid=60 ttl=30          a snapshot: its names and addresses follow, indented
    QUERY 1 www.example. A        asked by client 1; then any of edns, do, cd, ad, tcp, size=N,
                                  norec (without RD), ch (class CH), notify (another opcode),
                                  stranger (from where nobody may ask)
    MESSAGE 1 0001 8180 ...       octets in hexadecimal, asked by client 1; then stranger
    FLUSH www.example.            an operator has the cache forget a name; without one, all
    COUNTED drops short=1         what the engine has counted by now: drops, or responses by rcode/source
    SENT one udp www.example. A   the next message sent, to whom and how; then any of edns, do, cd
    SENT nothing                  nothing was sent that has not been named
    PROBED one                    a probe went to it; no other, with ``PROBED nothing``
    LOOP one                      its oldest question comes back to us as a query, and gets SERVFAIL
    REPLY one NOERROR             one's reply to the oldest question it has; then tc, ad, plain, id=wrong,
                                  lower: the name as it was not asked for, junk: records that are missing,
                                  cut: larger than the room for it
    TIMEOUT one                   the oldest question that one has gets no reply: the clock goes on
    REFUSED one                   the same, by a network error, now
    DEAD one two                  they answer nothing from now on, and what is sent to them need not be named
    ALIVE one two                 they can be asked again
    LOST one 3                    so many questions that one had while it was dead have timed out
    ELAPSE 2.5                    seconds go by, and the shell lets the engine do what is due
    STATE one up                  up, down or loop: the last that the engine told of it
    ANSWER 1 NOERROR              what client 1 got; then any of aa, tc, ad, ede=N
    WAITS 1                       client 1 has no answer yet
    DROPPED 1 overloaded          client 1 gets none, and why
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from dnsproxy.core import fairness, names
from dnsproxy.core.cache import CachePolicy
from dnsproxy.core.engine import Engine, Forward
from dnsproxy.core.exchange import PROBE, Attempt, Exchange, Failure, Limits, Verdict
from dnsproxy.core.features import Features
from dnsproxy.core.limiter import RateLimiter
from dnsproxy.core.policy import build_rules
from dnsproxy.core.returns import KEY_SIZE, Returns
from dnsproxy.core.upstreams import Upstream
from dnsproxy.errors import DropReason
from tests.messages import CLIENT, engine, query, read, reply_to, seeded
from tests.strategies import learned, served_table, snapshot

# Not in the list of who may ask.
STRANGER = b"\xc0\x00\x02\x63"
# Unix time when the scenario's clock shows 0.
WALL = 2_000_000_000


@dataclass
class Step:
    """One line of a scenario with the lines that belong to it."""

    place: str
    verb: str
    words: list[str]
    lines: list[str] = field(default_factory=list)

    def values(self) -> dict[str, float]:
        """The ``key=number`` words."""
        pairs = (word.split("=", 1) for word in self.words if "=" in word)
        return {key: float(value) for key, value in pairs if value[0].isdigit()}

    def has(self, *flags: str) -> dict[str, bool]:
        return {flag: flag in self.words for flag in flags}


def parse(path: Path) -> list[Step]:
    """Read a scenario; a step without an overview before it is refused."""
    text = path.read_text(encoding="utf-8")
    if not text.startswith("# "):
        raise ValueError(f"{path.name}: a scenario opens with what it shows")
    steps: list[Step] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if line[0].isspace():
            steps[-1].lines.append(line.strip())
        else:
            verb, *words = shlex.split(line)
            steps.append(Step(f"{path.name}:{number}: {line}", verb, words))
    return steps


@dataclass
class Asked:
    """A question that an upstream has and has not answered."""

    exchange: Exchange
    attempt: Attempt
    message: bytes
    is_lost: bool = False


class Replay:
    """One scenario under way."""

    def __init__(self) -> None:
        self.now = 0.0
        self.engine: Engine = engine()
        self.limits = Limits(0.8, 1.8)
        self.open: list[Asked] = []
        self.unnamed: list[Asked] = []
        self.answers: dict[str, bytes | DropReason] = {}
        self.waiters = fairness.MAX_WAITERS
        self.places = 100
        self.policy = "sequential"
        self.features = Features()
        self.stale = 0.0
        self.limiter: RateLimiter | None = None
        self.states: dict[str, str] = {}
        self.probes: list[Asked] = []
        self.dead: set[str] = set()
        self.lost: Counter[str] = Counter()

    def run(self, steps: list[Step], set_waiters: Callable[[int], None]) -> None:
        """Carry out ``steps``; an assertion that fails names its line."""
        verbs = {
            name.removeprefix("do_"): getattr(self, name) for name in dir(self) if name.startswith("do_")
        }
        for step in steps:
            verbs[step.verb.lower()](step)
            set_waiters(self.waiters)
        last = steps[-1].place
        assert not self.unnamed, f"{last}: sent and not named: {self.unnamed}"
        assert not self.answers, f"{last}: answered and not named: {list(self.answers)}"

    # -- the world

    def do_limits(self, step: Step) -> None:
        values = step.values()
        self.waiters = int(values.get("waiters", self.waiters))
        self.places = int(values.get("places", self.places))
        self.limits = Limits(
            values.get("attempt", self.limits.attempt), values.get("total", self.limits.total)
        )

    def do_upstreams(self, step: Step) -> None:
        made = [
            Upstream(word.removeprefix("tcp:"), ("192.0.2.1", 53), tcp=word.startswith("tcp:"))
            for word in step.words
        ]
        self.engine = engine(
            upstreams=made,
            limits=self.limits,
            max_in_flight=self.places,
            order=self.policy,
            # A key of its own: all lots of a scenario are drawn for its questions.
            features=replace(self.features, returns=Returns(bytes(KEY_SIZE), [0.0] * len(made))),
            policy=CachePolicy(stale=self.stale),
            limiter=self.limiter,
            draw=seeded().octets,
        )
        self._tick()

    def do_policy(self, step: Step) -> None:
        (self.policy,) = step.words

    def do_features(self, step: Step) -> None:
        values = step.values()
        on: dict[str, object] = {word: True for word in step.words if "=" not in word}
        on |= {
            word.partition("=")[0]: word.partition("=")[2] for word in step.words if word[:2] in {"ve", "id"}
        }
        if "probe_interval" in values:
            on["probe_interval"] = values["probe_interval"]
        self.features = Features(**on)  # type: ignore[arg-type]
        self.stale = values.get("stale", 0.0)
        self.limiter = RateLimiter(values["rate"]) if "rate" in values else None

    def do_swap(self, step: Step) -> None:
        values = step.values()
        entries = [learned(name, tuple(addresses)) for name, *addresses in map(str.split, step.lines)]
        taken = snapshot(*entries, at=WALL + int(self.now))
        taken = replace(taken, expires_at=taken.issued_at + int(values.get("valid", 3600)))
        rules = build_rules(
            served_table(taken),
            [],
            ttl=int(values.get("ttl", 30)),
            max_stale=values.get("max_stale", float("inf")),
            now=self.now,
            wall_now=WALL + self.now,
        )
        self.engine.swap_rules(rules)

    def do_elapse(self, step: Step) -> None:
        until = self.now + float(step.words[0])
        late = [asked for asked in self.open if asked.attempt.deadline < until and not self._is_dead(asked)]
        assert not late, f"{step.place}: an attempt would have timed out before"
        while True:
            silent = min(filter(self._is_dead, self.open), key=lambda a: a.attempt.deadline, default=None)
            wake_at = self.engine.exchanges.wake_at
            if silent is not None and silent.attempt.deadline <= min(wake_at, until):
                self.now = max(silent.attempt.deadline, self.now)
                self.lost[silent.attempt.upstream.name] += 1
                self._fail(silent, Failure.TIMEOUT)
            elif wake_at <= until:
                self.now = max(wake_at, self.now)
                self._tick()
            else:
                break
        self.now = until

    def do_dead(self, step: Step) -> None:
        self.dead |= set(step.words)

    def do_alive(self, step: Step) -> None:
        self.dead -= set(step.words)

    def do_lost(self, step: Step) -> None:
        name, count = step.words
        lost = self.lost.pop(name, 0)
        assert lost == int(count), f"{step.place}: {lost}"

    def _is_dead(self, asked: Asked) -> bool:
        return asked.is_lost or asked.attempt.upstream.name in self.dead

    def do_state(self, step: Step) -> None:
        name, state = step.words
        assert self.states.get(name, "up") == state, step.place

    # -- clients

    def do_query(self, step: Step) -> None:
        ident, name, qtype = step.words[:3]
        flags = step.has("edns", "do", "cd", "ad", "tcp")
        size = step.values().get("size")
        data = query(
            name,
            qtype,
            ident=int(ident),
            use_edns=0 if flags["edns"] or flags["do"] or size else -1,
            want_dnssec=flags["do"],
            payload=int(size or 1232),
            flags=dns.flags.RD | dns.flags.CD * flags["cd"] | dns.flags.AD * flags["ad"],
        )
        self._ask(ident, _changed(data, step), step, tcp=flags["tcp"])

    def do_message(self, step: Step) -> None:
        octets = bytes.fromhex("".join(word for word in step.words[1:] if word != "stranger"))
        self._ask(step.words[0], octets, step, tcp=False)

    def _ask(self, ident: str, data: bytes, step: Step, *, tcp: bool) -> None:
        source = STRANGER if step.words[-1] == "stranger" else CLIENT
        taken = self.engine.receive(data, source, self.now, tcp=tcp)
        if isinstance(taken, Forward):
            taken.exchange.waiters.append((taken.query, None, ident, self.now))
            if taken.is_new:
                self._advance(taken.exchange)
        else:
            self.answers[ident] = taken
        self._do_work()

    def do_flush(self, step: Step) -> None:
        self.engine.flush(names.to_key(step.words[0]) if step.words else None)

    def do_counted(self, step: Step) -> None:
        kind, *pairs = step.words
        stats = self.engine.stats_now()
        counts = (
            {f"{rcode}/{source}": count for (rcode, source), count in stats.responses.items()}
            if kind == "responses"
            else stats.drops
        )
        told = {key: count for key, count in counts.items() if count}
        assert told == {key: int(count) for key, count in (pair.split("=") for pair in pairs)}, step.place

    def do_answer(self, step: Step) -> None:
        ident, rcode = step.words[:2]
        data = self.answers.pop(ident, None)
        assert isinstance(data, bytes), f"{step.place}: got {data!r}"
        got = read(data)
        assert got.id == int(ident), step.place
        assert dns.rcode.to_text(got.rcode()) == rcode, step.place
        flags = {flag: bool(got.flags & dns.flags.from_text(flag)) for flag in ("aa", "tc", "ad")}
        assert flags == step.has("aa", "tc", "ad"), f"{step.place}: {dns.flags.to_text(got.flags)}"
        codes = [
            f"ede={int(option.code)}" for option in got.options if isinstance(option, dns.edns.EDEOption)
        ]
        assert codes == [word for word in step.words if word.startswith("ede=")], step.place
        found = _records(got.answer) + [f"AUTHORITY {line}" for line in _records(got.authority)]
        assert sorted(found) == sorted(step.lines), step.place

    def do_waits(self, step: Step) -> None:
        assert step.words[0] not in self.answers, step.place

    def do_dropped(self, step: Step) -> None:
        ident, reason = step.words
        assert self.answers.pop(ident, None) == reason, step.place

    # -- upstreams

    def do_probed(self, step: Step) -> None:
        told = [asked.attempt.upstream.name for asked in self.probes]
        assert told == [word for word in step.words if word != "nothing"], f"{step.place}: {told}"
        self.probes.clear()

    def do_loop(self, step: Step) -> None:
        asked = self._oldest(step, step.words[0])
        taken = self.engine.receive(asked.message, CLIENT, self.now)
        assert isinstance(taken, bytes), step.place
        assert read(taken).rcode() == dns.rcode.SERVFAIL, step.place
        self._tick()

    def do_sent(self, step: Step) -> None:
        if step.words == ["nothing"]:
            assert not self.unnamed, f"{step.place}: {self.unnamed}"
            return
        assert self.unnamed, f"{step.place}: nothing was sent"
        asked = self.unnamed.pop(0)
        got = read(asked.message)
        (question,) = got.question
        told = [
            asked.attempt.upstream.name,
            "tcp" if asked.attempt.tcp else "udp",
            question.name.to_text(),
            dns.rdatatype.to_text(question.rdtype),
            *(["edns"] if got.edns == 0 else []),
            *(["do"] if got.ednsflags & dns.flags.DO else []),
            *(["cd"] if got.flags & dns.flags.CD else []),
        ]
        assert told == step.words, step.place

    def do_reply(self, step: Step) -> None:
        name, rcode = step.words[:2]
        flags = step.has("tc", "ad", "plain", "id=wrong", "lower", "junk", "cut")
        asked = self._oldest(step, name)
        data = reply_to(
            asked.message[:12] + asked.message[12:].lower() if flags["lower"] else asked.message,
            [line for line in step.lines if not line.startswith("AUTHORITY")],
            rcode=dns.rcode.from_text(rcode),
            authority=[
                line.removeprefix("AUTHORITY ") for line in step.lines if line.startswith("AUTHORITY")
            ],
            flags=dns.flags.TC * flags["tc"] | dns.flags.AD * flags["ad"],
            edns=not flags["plain"],
        )
        if flags["id=wrong"]:
            return  # the shell finds no exchange under it
        if flags["junk"]:
            # It announces one record more than there is.
            data = data[:7] + bytes([data[7] + 1]) + data[8:10] + bytes(2) + data[12 : len(asked.message)]
        receive = asked.exchange.receive_cut if flags["cut"] else asked.exchange.receive_reply
        verdict = receive(data, self.now)
        if verdict is Verdict.IGNORED:
            return
        self.open.remove(asked)
        if verdict is Verdict.DONE:
            self._finish(asked.exchange)
        else:
            self._advance(asked.exchange)

    def do_timeout(self, step: Step) -> None:
        asked = self._oldest(step, step.words[0])
        self.now = max(self.now, asked.attempt.deadline)
        self._fail(asked, Failure.TIMEOUT)

    def do_refused(self, step: Step) -> None:
        self._fail(self._oldest(step, step.words[0]), Failure.NETWORK)

    def _oldest(self, step: Step, name: str) -> Asked:
        found = [asked for asked in self.open if asked.attempt.upstream.name == name]
        assert found, f"{step.place}: it has no question"
        assert found[0] not in self.unnamed, f"{step.place}: name what was sent first"
        return found[0]

    # -- what the shell does

    def _advance(self, exchange: Exchange) -> None:
        attempt = exchange.next_attempt(self.now)
        if attempt is None:
            self._finish(exchange)
            return
        asked = Asked(exchange, attempt, b"\x12\x34" + attempt.payload)
        self.open.append(asked)
        asked.is_lost = self._is_dead(asked)
        if asked.is_lost:
            return
        (self.probes if exchange.purpose == PROBE else self.unnamed).append(asked)

    def _fail(self, asked: Asked, reason: Failure) -> None:
        self.open.remove(asked)
        asked.exchange.fail_attempt(reason, self.now)
        self._advance(asked.exchange)

    def _finish(self, exchange: Exchange) -> None:
        responses = self.engine.complete(exchange, self.now)
        for (_, _, ident, _), response in zip(exchange.waiters, responses, strict=True):
            self.answers[ident] = response
        self._do_work()

    def _tick(self) -> None:
        self.states.update((name, state) for state, name in self.engine.exchanges.tick(self.now))
        self._do_work()

    def _do_work(self) -> None:
        work = self.engine.exchanges
        while work.begun:
            self._advance(work.begun.pop(0))
        while work.late:
            waiter, response = work.late.pop(0)
            self.answers[waiter[2]] = response


def _changed(data: bytes, step: Step) -> bytes:
    """Return a query that is what its flags say, which no library makes by a name."""
    octets = bytearray(data)
    if "norec" in step.words:
        octets[2] &= ~0x01
    if "notify" in step.words:
        octets[2] |= 0x20
    if "ch" in step.words:
        octets[-1] = 3
    return bytes(octets)


def _records(section: list[dns.rrset.RRset]) -> list[str]:
    return [line for rrset in section for line in rrset.to_text().splitlines()]
