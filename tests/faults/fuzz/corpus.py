"""The committed inputs of each target: one per line, in base64, so that a change shows as one."""

from __future__ import annotations

import base64
import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path
from types import FrameType

from tests.faults.fuzz.targets import TARGETS, Target

FOLDER = Path(__file__).parent / "corpus"


def read(target: str) -> list[bytes]:
    """Return the inputs of ``target``."""
    lines = (FOLDER / f"{target}.txt").read_text(encoding="ascii").splitlines()
    return [base64.b64decode(line, validate=True) for line in lines]


def write(target: str, inputs: Iterable[bytes]) -> None:
    """Replace the inputs of ``target``; short ones first."""
    distinct = sorted(set(inputs), key=lambda data: (len(data), data))
    text = "".join(f"{base64.b64encode(data).decode('ascii')}\n" for data in distinct)
    (FOLDER / f"{target}.txt").write_text(text, encoding="ascii")


def unpack(target: str, folder: Path) -> None:
    """Write each input into a file of ``folder``, as libFuzzer reads them."""
    for data in read(target):
        (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)


def pack(target: str, folder: Path) -> int:
    """Take of what libFuzzer has left in ``folder`` the inputs that reach code of their own; return how many.

    Its own ``-merge`` restarts the program by its first argument, which a module of Python does not survive.
    """
    inputs = sorted({*read(target), *(path.read_bytes() for path in folder.iterdir())}, key=len)
    seen: set[tuple[str, int, int]] = set()
    kept = []
    for data in inputs:
        new = _reached(TARGETS[target], data) - seen
        if new:
            kept.append(data)
            seen |= new
    write(target, kept)
    return len(kept)


def _reached(function: Target, data: bytes) -> set[tuple[str, int, int]]:
    """Return the steps from line to line in the program's own code."""
    steps: set[tuple[str, int, int]] = set()

    def enter(frame: FrameType, _event: str, _argument: object) -> object:
        file = frame.f_code.co_filename
        if "/dnsproxy/" not in file:
            return None
        last = 0

        def go(frame: FrameType, event: str, _argument: object) -> object:
            nonlocal last
            if event == "line":
                steps.add((file, last, frame.f_lineno))
                last = frame.f_lineno
            return go

        return go

    sys.settrace(enter)  # type: ignore[arg-type]  # typeshed wants the recursive type that Python cannot write
    try:
        function(data)
    finally:
        sys.settrace(None)
    return steps
