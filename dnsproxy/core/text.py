"""Text of others on its way to a log, a document or a terminal: printable, on one line, of bounded length.

An upstream, a store, a registry or a helper chooses it. Left as it is, a megabyte fills the log, an escape
sequence takes over the operator's terminal, and a line break forges a log entry. Errors that quote others
(`errors.ForeignError`) are cleaned when they are made; `core.fields` and `core.seal` refuse labels that are
not printable.
"""

from __future__ import annotations

from typing import Final

# Characters of one message, and of one text of a document.
LIMIT: Final = 500
DOCUMENT_LIMIT: Final = 10_000
# Lines of a message that has several: problems of a configuration.
MAX_LINES: Final = 100
# Levels of a document.
_MAX_DEPTH: Final = 32


def printable(text: str, limit: int = LIMIT) -> str:
    r"""Return at most ``limit`` characters of ``text``, those that are not printable escaped (``\x1b``)."""
    if len(text) <= limit and text.isprintable():
        return text
    shown: list[str] = []
    length = 0
    for character in text[:limit]:
        piece = character if character.isprintable() else _escape(character)
        length += len(piece)
        if length > limit:
            break
        shown.append(piece)
    else:
        if len(text) <= limit:
            return "".join(shown)
    return f"{''.join(shown)}..."


def printable_lines(text: str, limit: int = LIMIT) -> str:
    """Return ``text`` with each of its lines `printable`; at most `MAX_LINES`."""
    lines = text.split("\n", MAX_LINES)
    more = ["..."] if len(lines) > MAX_LINES else []
    return "\n".join([*(printable(line, limit) for line in lines[:MAX_LINES]), *more])


def printable_document(value: object, depth: int = 0) -> object:
    """Return a JSON value whose texts and keys can be shown on a terminal, each on one line."""
    if isinstance(value, str):
        return printable(value, DOCUMENT_LIMIT)
    if depth >= _MAX_DEPTH:
        return None
    if isinstance(value, dict):
        return {printable(str(key)): printable_document(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [printable_document(item, depth + 1) for item in value]
    return value


def is_label(text: str, limit: int) -> bool:
    """Return whether ``text`` is printable, not empty, and at most ``limit`` bytes long."""
    return bool(text) and text.isprintable() and len(text) <= limit and len(text.encode("utf-8")) <= limit


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
