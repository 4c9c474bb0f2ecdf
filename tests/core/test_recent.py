from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core.recent import Recent


def test_what_is_used_stays_and_the_rest_goes() -> None:
    held: Recent[int] = Recent(10, 100_000, 0)
    held.put(b"busy", 1)
    for number in range(1000):
        held.put(b"%d" % number, number)
        assert held.get(b"busy") == 1
    assert len(held) <= 10
    assert held.get(b"0") is None
    assert held.get(b"999") == 999


def test_p20_a_few_large_values_fill_it() -> None:
    held: Recent[int] = Recent(1000, 3 * 500, 100)
    for number in range(100):
        held.put(b"%d" % (10 + number), number, 48)
        assert len(held) + len(held._forgotten) <= 9
    assert held.peek(b"109") == 99
    held.put(b"giant", 1, 10_000)
    held.put(b"giant", 2, 10_000)
    assert (held.peek(b"giant"), len(held)) == (2, 1)


def test_peeking_saves_nothing() -> None:
    held: Recent[int] = Recent(10, 100_000, 0)
    held.put(b"seen", 1)
    for number in range(10):
        held.put(b"%d" % number, number)
        held.peek(b"seen")
    assert held.peek(b"seen") is None


def test_remove_and_clear() -> None:
    held: Recent[int] = Recent(4, 100_000, 0)
    for number in range(4):
        held.put(b"%d" % number, number)
    held.remove(b"0")
    held.remove(b"3")
    held.remove(b"9")
    assert sorted(held.keys()) == [b"1", b"2"]
    held.clear()
    assert (len(held), held.keys()) == (0, [])


def test_p29_what_is_forgotten_is_freed_by_and_by() -> None:
    held: Recent[int] = Recent(100, 100_000, 0)
    for number in range(151):
        held.put(b"%d" % number, number)
    kept = []
    for number in range(151, 180):
        kept.append(len(held._forgotten))
        held.put(b"%d" % number, number)
        assert len(held) + len(held._forgotten) <= 100
    assert kept == [*range(50, 0, -2), 0, 0, 0, 0]
    assert held.peek(b"0") is None


@given(
    st.integers(0, 12),
    st.lists(st.tuples(st.sampled_from(["put", "get", "remove"]), st.binary(max_size=1)), max_size=150),
)
def test_it_is_bounded_and_tells_nothing_wrong(size: int, steps: list[tuple[str, bytes]]) -> None:
    held: Recent[int] = Recent(size, 100_000, 0)
    model: dict[bytes, int] = {}
    for number, (verb, key) in enumerate(steps, 1):
        if verb == "put":
            held.put(key, number)
            model[key] = number
            assert held.get(key) == number
        elif verb == "get":
            assert held.get(key) in (None, model.get(key))
        else:
            held.remove(key)
            model.pop(key, None)
        assert len(held) <= max(size, 2)
        assert len(held.keys()) == len(set(held.keys())) == len(held)
