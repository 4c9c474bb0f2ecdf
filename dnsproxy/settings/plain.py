"""Validated settings as plain values, and back: what one process of this program gives another."""

from __future__ import annotations

import json
import zlib
from typing import Any

from pydantic import BaseModel, ValidationError

from dnsproxy.errors import MessageError
from dnsproxy.settings.document import Settings

# Bytes of the JSON text: 130 for each name that is listed.
MAX_TEXT = 64 * 1024 * 1024


def pack(settings: Settings) -> bytes:
    """Return ``settings`` as compressed JSON text, with every key, for `unpack`.

    Compressed, as the event loop of a worker would be busy for 16 ms with that of 10,000 names.
    """
    return zlib.compress(json.dumps(_plain(settings), separators=(",", ":")).encode(), 1)


def unpack(packed: bytes) -> Settings:
    """Return the settings in ``packed``, validated as those of a file are.

    Raises:
        MessageError: it holds none.
    """
    try:
        reader = zlib.decompressobj()
        text = reader.decompress(packed, MAX_TEXT)
        if not reader.eof:
            raise MessageError(f"settings: more than {MAX_TEXT} bytes, or cut off")
        return Settings.model_validate(json.loads(text))
    except ValidationError as exc:
        # Not the text of the error, which quotes values.
        first = exc.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise MessageError(f"settings: {place}: {first['type']}") from None
    except (ValueError, RecursionError, zlib.error) as exc:
        raise MessageError(f"settings: {type(exc).__name__}") from None


def _plain(value: object) -> Any:  # noqa: ANN401 - any JSON value
    """Return the JSON value that is validated to ``value``; unlike `schema.as_written` with every digit."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, BaseModel):
        return {key: _plain(getattr(value, key)) for key in type(value).model_fields}
    if isinstance(value, dict):
        return {str(key): _plain(held) for key, held in value.items()}
    # Not an Endpoint or a Share, which are tuples.
    if type(value) is list:
        return [_plain(held) for held in value]
    return str(value)  # Endpoint, Share, Path, ranges: the text that stands in a file
