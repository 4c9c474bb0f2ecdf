"""Makes of the configuration who writes queries down; what that needs is imported where somebody does."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from dnsproxy.core.chance import Chance
from dnsproxy.settings import Settings
from dnsproxy.settings.logging import DnstapSettings, QueryLogSettings
from dnsproxy.version import __version__

if TYPE_CHECKING:
    from dnsproxy.core.seen import Seen
    from dnsproxy.net.watch import Watch, Writer


def open_watch(settings: Settings, worker: int | None = None) -> Watch | None:
    """Return who is to be told of queries; None when nobody is, which is the default.

    ``worker`` is the number of this worker, if there are several.

    Raises:
        StartError: a file cannot be written.
    """
    if not (settings.log.queries.enabled or settings.log.dnstap.enabled):
        return None
    from dnsproxy.net.watch import Watch  # noqa: PLC0415 - few proxies write queries down

    chance = Chance(os.urandom)
    writers: list[Writer] = []
    if settings.log.queries.enabled:
        writers.append(_query_log(settings.log.queries, chance))
    if settings.log.dnstap.enabled:
        writers.append(_dnstap(settings.log.dnstap, chance, worker))
    return Watch(writers)


def _query_log(settings: QueryLogSettings, chance: Chance) -> Writer:
    from dnsproxy.core.querylog import QueryLines  # noqa: PLC0415 - as above
    from dnsproxy.net.outlets import LineFile, StandardOutput  # noqa: PLC0415
    from dnsproxy.net.watch import QueuedWriter, Sampler  # noqa: PLC0415

    lines = QueryLines(settings.fields, settings.clients, settings.names)
    outlet = StandardOutput() if settings.file is None else LineFile(settings.file)

    def make(seen: Seen) -> tuple[bytes]:
        return (lines.line(seen),)

    return QueuedWriter("queries", Sampler(settings.sample, chance), make, outlet)


def _dnstap(settings: DnstapSettings, chance: Chance, worker: int | None) -> Writer:
    # Its packages are an extra besides.
    from dnsproxy.net.dnstap import DnstapMessages, FrameFile, FrameSocket  # noqa: PLC0415
    from dnsproxy.net.watch import QueuedWriter, Sampler  # noqa: PLC0415

    messages = DnstapMessages(
        settings.identity or socket.gethostname(), f"dnsproxy {__version__}", settings.clients
    )
    if settings.socket is not None:
        outlet: FrameSocket | FrameFile = FrameSocket(settings.socket)
    else:
        outlet = FrameFile(_of_worker(settings.file or Path(), worker))
    return QueuedWriter("dnstap", Sampler(settings.sample, chance), messages.of, outlet)


def _of_worker(path: Path, worker: int | None) -> Path:
    # Two streams in one file would be none.
    return path if worker is None else path.with_name(f"{path.name}.{worker}")
