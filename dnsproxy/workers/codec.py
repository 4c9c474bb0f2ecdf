"""Values as JSON and back, by their declared types: dataclasses, named tuples and containers of plain values.

Decoding makes only what the declared type names, from JSON of exactly that shape, so it cannot execute
anything; all else is a `MessageError`. A dataclass is the list of its fields, a mapping a list of pairs, one
of several types its name and value, and bytes are base64.
"""

from __future__ import annotations

import binascii
import json
import types
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from enum import StrEnum
from functools import cache
from typing import Any, Final, NamedTuple, Union, get_args, get_origin, get_type_hints

from dnsproxy.core.stats import Stats, UpstreamStats
from dnsproxy.errors import MessageError

# What mypyc forgets of the classes that it compiles. A test compares this with the source.
COMPILED: Final[Mapping[type, Mapping[str, Any]]] = {
    UpstreamStats: {
        "sent": int,
        "failures": Counter[str],
        "ignored": Counter[str],
        "rtt": float | None,
        "up": bool,
        "looped": bool,
    },
    Stats: {
        "requests": Counter[tuple[str, str]],
        "encrypted": Counter[str],
        "responses": Counter[tuple[str, str]],
        "drops": Counter[str],
        "durations": list[int],
        "duration_sum": float,
        "refreshes": Counter[str],
        "records": Counter[str],
        "records_lost": Counter[str],
        "local_failures": Counter[str],
        "cache_hits": int,
        "cache_misses": int,
        "asked": dict[int, int],
        "answered": dict[int, int],
    },
}
_PLAIN = (type(None), bool, int, str)


class Codec(NamedTuple):
    """How values of one type become JSON values, and back."""

    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


def to_json(kind: Any, value: object) -> str:  # noqa: ANN401 - a type, or a union of types
    """Return ``value``, which is a ``kind``, as JSON text in ASCII."""
    return json.dumps(codec_of(kind).encode(value), separators=(",", ":"))


def from_json(kind: Any, text: str | bytes) -> Any:  # noqa: ANN401 - the same
    """Return the value of type ``kind`` in ``text``.

    Raises:
        MessageError: it is not JSON, or JSON of another shape.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise MessageError(f"not JSON: {type(exc).__name__}") from None
    return codec_of(kind).decode(found)


@cache
def codec_of(kind: Any) -> Codec:  # noqa: ANN401 - the same
    """Return the codec of ``kind``; a type that it does not know is a bug of the caller."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in {Union, types.UnionType}:
        return _union(arguments)
    if origin is tuple and arguments[-1] is not Ellipsis:
        return _record(tuple, list(map(codec_of, arguments)), lambda value: value)
    if origin in {tuple, list, frozenset}:
        return _sequence(origin, codec_of(arguments[0]))
    if origin is Counter:
        return _mapping(Counter, codec_of(arguments[0]), codec_of(int))
    if origin is dict or origin is Mapping:
        return _mapping(dict, *map(codec_of, arguments))
    return _class(kind)


def _class(kind: Any) -> Codec:  # noqa: ANN401 - the same
    if kind in _PLAIN:
        return Codec(lambda value: value, _exactly(kind))
    if kind is float:
        return Codec(float, _float)
    if kind is bytes:
        return Codec(lambda value: binascii.b2a_base64(value, newline=False).decode(), _bytes)
    if issubclass(kind, StrEnum):
        return Codec(str, lambda value: _enum(kind, value))
    hints = COMPILED.get(kind) or get_type_hints(kind)
    make: Callable[..., Any] = kind
    if is_dataclass(kind):
        names = [field.name for field in fields(kind)]
        parts = [codec_of(hints[name]) for name in names]
        return _record(
            lambda found: make(*found), parts, lambda value: [getattr(value, name) for name in names]
        )
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return _record(kind._make, [codec_of(hints[name]) for name in kind._fields], lambda value: value)
    raise TypeError(f"no codec for {kind!r}")


def _wrong(expected: str, value: object) -> MessageError:
    # Not the value: it is bytes of another process on its way to the log.
    return MessageError(f"{type(value).__name__} in place of {expected}")


def _exactly(kind: type) -> Callable[[Any], Any]:
    def decode(value: object) -> object:
        # Not isinstance: True is an int.
        if type(value) is not kind:
            raise _wrong(kind.__name__, value)
        return value

    return decode


def _float(value: object) -> float:
    if type(value) is not float:
        raise _wrong("float", value)
    return value


def _bytes(value: object) -> bytes:
    if type(value) is not str:
        raise _wrong("base64", value)
    try:
        return binascii.a2b_base64(value, strict_mode=True)
    except ValueError as exc:
        raise MessageError(f"not base64: {exc}") from None


def _enum(kind: type[StrEnum], value: object) -> StrEnum:
    if type(value) is not str:
        raise _wrong(kind.__name__, value)
    try:
        return kind(value)
    except ValueError:
        raise MessageError(f"not a {kind.__name__}") from None


def _record(
    make: Callable[[Iterable[Any]], Any], parts: list[Codec], split: Callable[[Any], Iterable[Any]]
) -> Codec:
    """Return the codec of so many values, each of a type of its own."""
    encoders, decoders = [part.encode for part in parts], [part.decode for part in parts]
    count = len(parts)

    def encode(value: object) -> list[Any]:
        return [encoder(held) for encoder, held in zip(encoders, split(value), strict=True)]

    def decode(value: object) -> object:
        if type(value) is not list or len(value) != count:
            raise _wrong(f"{count} values", value)
        return make([decoder(held) for decoder, held in zip(decoders, value, strict=True)])

    return Codec(encode, decode)


def _sequence(make: Callable[[Iterable[Any]], Any], item: Codec) -> Codec:
    def encode(value: Iterable[object]) -> list[Any]:
        return [item.encode(held) for held in value]

    def decode(value: object) -> object:
        if type(value) is not list:
            raise _wrong("a list", value)
        return make([item.decode(held) for held in value])

    return Codec(encode, decode)


def _mapping(make: Callable[[dict[Any, Any]], Any], key: Codec, item: Codec) -> Codec:
    pair = _record(tuple, [key, item], lambda value: value)

    def encode(value: Mapping[Any, Any]) -> list[Any]:
        return [pair.encode(held) for held in value.items()]

    def decode(value: object) -> object:
        if type(value) is not list:
            raise _wrong("pairs", value)
        return make(dict(map(pair.decode, value)))

    return Codec(encode, decode)


def _union(kinds: tuple[Any, ...]) -> Codec:
    by_name = {kind.__name__: codec_of(kind) for kind in kinds}
    if len(kinds) == 2 and types.NoneType in kinds:
        (other,) = (codec_of(kind) for kind in kinds if kind is not types.NoneType)
        return Codec(
            lambda value: None if value is None else other.encode(value),
            lambda value: None if value is None else other.decode(value),
        )

    def encode(value: object) -> list[Any]:
        name = type(value).__name__
        return [name, by_name[name].encode(value)]

    def decode(value: object) -> object:
        if type(value) is not list or len(value) != 2 or type(value[0]) is not str or value[0] not in by_name:
            raise _wrong(f"one of {', '.join(by_name)}", value)
        return by_name[value[0]].decode(value[1])

    return Codec(encode, decode)
