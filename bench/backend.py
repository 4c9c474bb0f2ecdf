"""The resolver that every server forwards to: Knot DNS with a wildcard below the root.

It answers any name at once from memory, costs less per query than any of the
servers that are measured, and runs on the core of the load.
"""

from __future__ import annotations

from pathlib import Path

from bench.check import START_SECONDS, WrongAnswerError, wait_for_answer
from bench.names import BACKEND_ADDRESS, BACKEND_TTL
from bench.process import Child


def files(directory: Path, port: int) -> dict[str, str]:
    """Return knot.conf and the zone."""
    return {
        "knot.conf": f"""\
server:
  rundir: {directory}
  listen: 127.0.0.1@{port}
  udp-workers: 1
  tcp-workers: 1
  background-workers: 1
database:
  storage: {directory}/db
log:
  - target: stderr
    any: warning
zone:
  - domain: .
    file: {directory}/root.zone
    journal-content: none
    zonefile-sync: -1
""",
        "root.zone": f"""\
$ORIGIN .
$TTL {BACKEND_TTL}
@ SOA ns.invalid. nobody.invalid. 1 3600 600 86400 {BACKEND_TTL}
@ NS ns.invalid.
* A {BACKEND_ADDRESS}
""",
    }


def start(directory: Path, port: int, core: int) -> Child:
    """Start knotd with its files in ``directory``, and return when it answers.

    Raises:
        WrongAnswerError: it does not within `check.START_SECONDS`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files(directory, port).items():
        (directory / name).write_text(text)
    child = Child(["knotd", "-c", str(directory / "knot.conf")], core=core, log=directory / "log")
    try:
        wait_for_answer(port, START_SECONDS, BACKEND_ADDRESS)
    except WrongAnswerError:
        child.stop()
        raise
    # Its workers bind themselves to the first cores, one each, whatever the core of the process.
    child.hold({core})
    return child
