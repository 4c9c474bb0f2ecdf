"""Makes of the configuration who writes queries down."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from dnsproxy.core.chance import Chance
from dnsproxy.core.querylog import QueryLines
from dnsproxy.core.seen import Seen
from dnsproxy.net.outlets import LineFile, StandardOutput
from dnsproxy.net.watch import Sampler, SpoolWriter, Watch, Writer
from dnsproxy.settings import Settings
from dnsproxy.settings.logging import DnstapSettings, QueryLogSettings
from dnsproxy.version import __version__


def open_watch(settings: Settings, worker: int | None = None) -> Watch | None:
    """Return who is to be told of queries; None when nobody is, which is the default.

    ``worker`` is the number of this worker, if there are several.

    Raises:
        StartError: a file cannot be written.
    """
    chance = Chance(os.urandom)
    writers: list[Writer] = []
    if settings.log.queries.enabled:
        writers.append(_query_log(settings.log.queries, chance))
    if settings.log.dnstap.enabled:
        writers.append(_dnstap(settings.log.dnstap, chance, worker))
    return Watch(writers) if writers else None


def _query_log(settings: QueryLogSettings, chance: Chance) -> Writer:
    lines = QueryLines(settings.fields, settings.clients, settings.names)
    outlet = StandardOutput() if settings.file is None else LineFile(settings.file)

    def make(seen: Seen) -> tuple[bytes]:
        return (lines.line(seen),)

    return SpoolWriter("queries", Sampler(settings.sample, chance), make, outlet)


def _dnstap(settings: DnstapSettings, chance: Chance, worker: int | None) -> Writer:
    # Only here: its packages are an extra.
    from dnsproxy.net.dnstap import DnstapMessages, FrameFile, FrameSocket  # noqa: PLC0415

    messages = DnstapMessages(
        settings.identity or socket.gethostname(), f"dnsproxy {__version__}", settings.clients
    )
    if settings.socket is not None:
        outlet: FrameSocket | FrameFile = FrameSocket(settings.socket)
    else:
        outlet = FrameFile(_of_worker(settings.file or Path(), worker))
    return SpoolWriter("dnstap", Sampler(settings.sample, chance), messages.of, outlet)


def _of_worker(path: Path, worker: int | None) -> Path:
    # Two streams in one file would be none.
    return path if worker is None else path.with_name(f"{path.name}.{worker}")
