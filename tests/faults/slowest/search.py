"""Search for the input that costs a parser the most: mutation, guided by measured processor time."""

from __future__ import annotations

import random
from time import monotonic, thread_time_ns
from typing import NamedTuple

from dnsproxy.core import wire
from tests.faults.slowest.parsers import Parser

COMPILED = not (wire.__file__ or "").endswith(".py")
# Part of a goal that a compiled build may take.
COMPILED_PART = 10
# Inputs that are kept while searching.
KEPT = 24
# Nanoseconds that `_work` takes, without the compiler, where the goals were set.
REFERENCE = 900_000

_BYTES = (0, 1, 2, 5, 6, 12, 15, 16, 28, 41, 63, 64, 0x7F, 0x80, 0xC0, 0xC1, 0xFF)


class Found(NamedTuple):
    """An input and the nanoseconds of processor time that it costs."""

    cost: int
    data: bytes


def cost(parser: Parser, data: bytes, runs: int = 3, enough: int = 0) -> int:
    """Return the least time that ``data`` costs in several runs; one that is ``enough`` is the last."""
    least = 0
    for _ in range(runs):
        run = parser.prepare(data)
        before = thread_time_ns()
        run()
        took = thread_time_ns() - before
        least = min(least, took) if least else took
        if least <= enough:
            break
    return least


def _work() -> int:
    total = 0
    data = bytes(range(250)) * 40
    for index in range(len(data) - 1):
        total += data[index] << 8 | data[index + 1]
    return total


def slowness() -> float:
    """Return how many times slower this machine is than that where the goals were set; at least 1."""
    took = []
    for _ in range(20):
        before = thread_time_ns()
        _work()
        took.append(thread_time_ns() - before)
    return max(min(took) / REFERENCE, 1.0)


def goal(parser: Parser) -> float:
    """Return the nanoseconds that an input may cost here."""
    part = COMPILED_PART if COMPILED and parser.compiled else 1
    return parser.goal / part * slowness()


def search(
    parser: Parser, seconds: float, start: list[bytes], seed: int = 1, rounds: int = 2**63
) -> list[Found]:
    """Return the most expensive inputs found within ``seconds`` and ``rounds``, the most expensive first."""
    chance = random.Random(seed)  # noqa: S311 - nothing is protected by it
    kept = [Found(cost(parser, data), data) for data in [*parser.seeds(parser.limit), *start]]
    kept = sorted(kept, reverse=True)[:KEPT]
    end = monotonic() + seconds
    while monotonic() < end and rounds:
        rounds -= 1
        # The more expensive ones are tried more often.
        parent = kept[int(len(kept) * chance.random() ** 2)].data
        other = chance.choice(kept).data
        data = mutated(parent, other, parser.limit, chance)
        took = cost(parser, data, 2)
        if took > kept[-1].cost:
            # Once more: most of what seems expensive was interrupted.
            took = min(took, cost(parser, data, 6))
        if took > kept[-1].cost and all(data != found.data for found in kept):
            kept = sorted([*kept, Found(took, data)], reverse=True)[:KEPT]
    return sorted((Found(cost(parser, found.data, 20), found.data) for found in kept), reverse=True)


def mutated(data: bytes, other: bytes, limit: int, chance: random.Random) -> bytes:
    """Return ``data`` after one to four changes, ``limit`` bytes at most."""
    made = bytearray(data or b"\0")
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(made) + 1)
        length = min(chance.choice((1, 2, 4, 11, 12, 14, 16, 64, 255, 4096)), len(made))
        chance.choice((_overwrite, _point, _repeat, _take_out, _put_in, _count, _number))(
            made, at, length, limit, other, chance
        )
    return bytes(made[:limit])


def _overwrite(
    made: bytearray, at: int, _length: int, _limit: int, _other: bytes, chance: random.Random
) -> None:
    made[at : at + 1] = bytes((chance.choice((*_BYTES, chance.randrange(256))),))


def _point(made: bytearray, at: int, _length: int, _limit: int, _other: bytes, chance: random.Random) -> None:
    """Put in a pointer to somewhere before."""
    made[at : at + 2] = (0xC000 | chance.randrange(12, max(at, 13)) & 0x3FFF).to_bytes(2, "big")


def _repeat(made: bytearray, at: int, length: int, limit: int, _other: bytes, chance: random.Random) -> None:
    piece = bytes(made[at : at + length]) or b"\0"
    room = max((limit - len(made)) // len(piece), 0)
    made[at:at] = piece * min(chance.choice((1, 2, 16, 100, 10_000)), room)


def _take_out(made: bytearray, at: int, length: int, *_: object) -> None:
    del made[at : at + length]


def _put_in(made: bytearray, at: int, length: int, _limit: int, other: bytes, chance: random.Random) -> None:
    start = chance.randrange(len(other) + 1)
    made[at:at] = other[start : start + length]


def _count(
    made: bytearray, _at: int, _length: int, _limit: int, _other: bytes, chance: random.Random
) -> None:
    """Change the number of records of a section."""
    field = chance.choice((6, 8, 10))
    count = int.from_bytes(made[field : field + 2], "big") + chance.choice((-1, 1, 1, 16, 100))
    made[field : field + 2] = max(min(count, 65_535), 0).to_bytes(2, "big")


def _number(
    made: bytearray, at: int, _length: int, _limit: int, _other: bytes, chance: random.Random
) -> None:
    """Change 16 bits, such as a length."""
    left = min(len(made) - min(at, len(made)), 65_535)
    made[at : at + 2] = chance.choice((0, 1, 4, 16, 255, 4_096, left)).to_bytes(2, "big")
