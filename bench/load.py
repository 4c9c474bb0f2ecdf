"""Drive a server with dnsperf and read what it reports."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.process import ended, pinned

# Few enough that even the smallest default socket buffer holds them all, whoever is preempted.
OUTSTANDING = 100
CLIENTS = 20
LOST_AFTER_SECONDS = 2
_GRACE_SECONDS = 15.0

_FIELD = re.compile(r"^ +(?P<key>[A-Z][\w ()]+?): +(?P<value>\S.*)$", re.MULTILINE)
_CODE = re.compile(r"([A-Z]+) (\d+) \(")
_ANSWERED = re.compile(r"^> .* (\d+\.\d{6})$", re.MULTILINE)


@dataclass(frozen=True)
class Load:
    """What one dnsperf saw.

    ``seconds`` is its sending time, ``cpu_seconds`` its own processor time,
    ``latencies`` (seconds, ascending) is empty unless it was asked for them.
    """

    sent: int
    completed: int
    lost: int
    seconds: float
    codes: dict[str, int]
    cpu_seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Answers per second."""
        return self.completed / self.seconds if self.seconds else 0.0


def parse(report: str, cpu_seconds: float = 0.0) -> Load:
    """Read dnsperf's output: the closing statistics and, if it was verbose, every latency.

    Raises:
        ValueError: when there are no statistics.
    """
    # The first value counts: for TCP a second block, of the connections, repeats some keys.
    fields = {match["key"]: match["value"] for match in reversed(list(_FIELD.finditer(report)))}
    try:
        return Load(
            sent=int(fields["Queries sent"].split()[0]),
            completed=int(fields["Queries completed"].split()[0]),
            lost=int(fields["Queries lost"].split()[0]),
            seconds=float(fields["Run time (s)"]),
            codes={code: int(count) for code, count in _CODE.findall(fields.get("Response codes", ""))},
            cpu_seconds=cpu_seconds,
            latencies=sorted(float(latency) for latency in _ANSWERED.findall(report)),
        )
    except KeyError as exc:
        raise ValueError(f"dnsperf gave no {exc.args[0]!r}: {report[-500:]}") from None


@dataclass(frozen=True)
class Order:
    """What dnsperf is to do: ask ``port`` what ``queries`` holds, for ``seconds``.

    ``rate`` (queries per second) bounds the load, otherwise it is as much as
    ``outstanding`` unanswered queries allow. ``wire`` says that the file holds
    messages, not text. ``once`` ends at the end of the file.
    """

    port: int
    queries: Path
    seconds: float
    rate: int = 0
    outstanding: int = OUTSTANDING
    clients: int = CLIENTS
    tcp: bool = False
    wire: bool = False
    once: bool = False
    latencies: bool = False

    def command(self) -> list[str]:
        """Return the command line."""
        options = [
            *(("-Q", str(self.rate)) if self.rate else ()),
            *(("-m", "tcp") if self.tcp else ()),
            *(("-B",) if self.wire else ()),
            *(("-n", "1") if self.once else ()),
            *(("-v",) if self.latencies else ()),
        ]
        return [
            "dnsperf", "-s", "127.0.0.1", "-p", str(self.port), "-d", str(self.queries),
            "-T", "1", "-c", str(self.clients), "-q", str(self.outstanding),
            "-t", str(LOST_AFTER_SECONDS), "-l", f"{self.seconds:g}", *options,
        ]  # fmt: skip


class Generator:
    """A dnsperf that has been started; leaving the `with` block ends it."""

    def __init__(self, order: Order, core: int, log: Path) -> None:
        self._deadline = order.seconds + LOST_AFTER_SECONDS + _GRACE_SECONDS
        self._log = log
        self._errors = log.with_suffix(".err")
        # Apart: what it says of each lost query would end up in the middle of a line of its report.
        with log.open("wb") as out, self._errors.open("wb") as err:
            self._process = subprocess.Popen(  # noqa: S603 - the command is built above
                pinned(order.command(), core), stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.returncode is None:
            self._process.kill()
            self._process.wait()

    def finish(self) -> Load:
        """Wait for the end and return what it saw.

        Raises:
            ValueError: when it failed or did not end in time.
        """
        if not ended(self._process.pid, self._deadline):
            raise ValueError(f"dnsperf did not end within {self._deadline:g} s")
        _pid, status, usage = os.wait4(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        try:
            return parse(self._log.read_text(errors="replace"), usage.ru_utime + usage.ru_stime)
        except ValueError as exc:
            raise ValueError(f"{exc}\n{self._errors.read_text(errors='replace')[:500]}") from exc


def run(order: Order, core: int, log: Path) -> Load:
    """Start a dnsperf and wait for its end.

    Raises:
        ValueError: as `Generator.finish`.
    """
    with Generator(order, core, log) as generator:
        return generator.finish()
