"""`dig`, `kdig` and `drill`: ask, and read what they print."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.e2e.processes import run_command

_RCODE = re.compile(r"->>HEADER<<-.* (?:status|rcode): (\w+)")
_FLAGS = re.compile(r"^;; [Ff]lags: ([a-z ]*);", re.MULTILINE)
_EXTENDED_ERROR = re.compile(r"^;+ EDE: (\d+)", re.MULTILINE)
_SECTION = re.compile(r"^;; (ANSWER|AUTHORITY|ADDITIONAL) SECTION:\n((?:[^;\n].*\n?)*)", re.MULTILINE)


class Record(NamedTuple):
    """One record as printed; ``name`` with its last dot, ``ttl`` in seconds."""

    name: str
    ttl: int
    type: str
    data: str


@dataclass(frozen=True)
class Reply:
    """What a program printed; ``rcode`` is empty when no response came."""

    text: str
    rcode: str = ""
    flags: frozenset[str] = frozenset()
    answer: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()
    extended_errors: tuple[int, ...] = field(default=())

    @property
    def data(self) -> list[str]:
        """The data of the answer section, sorted."""
        return sorted(record.data for record in self.answer)


def parse(text: str) -> Reply:
    """Read the long form that dig, kdig and drill print."""
    rcode, flags = _RCODE.search(text), _FLAGS.search(text)
    if rcode is None or flags is None:
        return Reply(text)
    sections = {name: tuple(map(_record, body.splitlines())) for name, body in _SECTION.findall(text)}
    return Reply(
        text,
        rcode[1],
        frozenset(flags[1].split()),
        sections.get("ANSWER", ()),
        sections.get("AUTHORITY", ()),
        tuple(int(code) for code in _EXTENDED_ERROR.findall(text)),
    )


def _record(line: str) -> Record:
    name, ttl, _, kind, data = line.split(None, 4)
    return Record(name, int(ttl), kind, data)


@dataclass(frozen=True)
class Server:
    """Where to ask."""

    port: int
    host: str = "127.0.0.1"

    def dig(self, *arguments: str) -> Reply:
        """Ask once with dig, for at most 2 s, without the user's own settings (-r)."""
        return parse(self._run("dig", "-r", *arguments))

    def kdig(self, *arguments: str) -> Reply:
        """Ask once with kdig, for at most 2 s."""
        return parse(self._run("kdig", *arguments))

    def drill(self, *arguments: str) -> Reply:
        """Ask once with drill, for at most as long as it waits (5 s)."""
        done = run_command("drill", "-p", str(self.port), *arguments, f"@{self.host}")
        return parse(done.stdout)

    def short(self, *arguments: str) -> list[str]:
        """Return the lines of ``dig ... +short``, sorted."""
        return sorted(self._run("dig", "-r", *arguments, "+short").splitlines())

    def _run(self, program: str, *arguments: str) -> str:
        retry = "+tries=1" if program == "dig" else "+retry=0"
        done = run_command(
            *(
                program,
                f"@{self.host}",
                "-p",
                str(self.port),
                "+time=2" if program == "dig" else "+timeout=2",
            ),
            *(retry, *arguments),
        )
        return done.stdout
