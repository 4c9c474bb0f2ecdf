"""The socket by which `dnsproxy reload --helper` asks the helper of a configuration file to reload.

The helper's HTTP endpoint is open to proxies and changes nothing. This is an abstract Unix socket, named
after the path of the file: it needs no folder, and only processes of the same network namespace reach it. The
kernel reports the user at the other end; root and the helper's own user may ask.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from dnsproxy.core.text import printable_document
from dnsproxy.core.totals import Outcome
from dnsproxy.errors import ForeignError

# Seconds for the answer: a reload reads keys and certificates.
TIMEOUT = 30.0
_MAX_ANSWER = 1 << 20
# struct ucred: pid, uid, gid (unix(7)).
_CREDENTIALS = struct.Struct("3i")

Reload = Callable[[], Awaitable[Outcome]]


class ReloadSocketError(ForeignError):
    """The helper could not be asked; the message says why in one line."""


def name_of(file: Path) -> str:
    """Return the name of the socket of the helper that runs with ``file``."""
    digest = hashlib.sha256(os.fsencode(os.path.abspath(file))).hexdigest()  # noqa: PTH100 - links stay links
    return f"\0dnsproxy-helper-{digest[:32]}"


async def serve(file: Path, reload: Reload) -> None:
    """Answer until cancelled.

    Raises:
        OSError: the name is taken: another helper runs with ``file``.
    """

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            document = await _answer(writer.get_extra_info("socket"), reload)
            writer.write(json.dumps(document).encode())
            await writer.drain()
        except ConnectionError:
            pass  # it waits no longer
        finally:
            writer.close()

    server = await asyncio.start_unix_server(answer, name_of(file))
    async with server:
        await server.serve_forever()


async def _answer(peer: socket.socket, reload: Reload) -> dict[str, Any]:
    uid = _user(peer)
    if uid not in {0, os.geteuid()}:
        return {"problems": [f"user {uid} may not reload this helper; ask as root or as user {os.geteuid()}"]}
    outcome = await reload()
    return {
        "changed": list(outcome.changed),
        "changed_files": list(outcome.files),
        "need_restart": list(outcome.need_restart),
        "problems": list(outcome.problems),
    }


def _user(peer: socket.socket) -> int:
    """Return the user of the process at the other end of ``peer``."""
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(credentials)[1])


def ask(file: Path) -> dict[str, Any]:
    """Have the helper that runs with ``file`` reload it; return what changed, or the problems.

    Raises:
        ReloadSocketError: no such helper answers.
    """
    data = bytearray()
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(TIMEOUT)
            sock.connect(name_of(file))
            while len(data) < _MAX_ANSWER and (part := sock.recv(65_536)):
                data += part
        document = printable_document(json.loads(data))
    except TimeoutError as exc:
        raise ReloadSocketError(f"{file}: the helper did not answer within {TIMEOUT:g} s") from exc
    except OSError as exc:
        reason = (exc.strerror or str(exc)).lower()
        hint = "does `dnsproxy helper` run with it in this network namespace?"
        raise ReloadSocketError(f"{file}: no helper answers ({reason}); {hint}") from exc
    except ValueError as exc:
        raise ReloadSocketError(f"{file}: not an answer of a helper ({exc})") from exc
    if not isinstance(document, dict):
        raise ReloadSocketError(f"{file}: not an answer of a helper")
    return document
