from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core.chance import Chance

QUESTION = b"\x03www\x07eXample\x04a-1\xe1\0\0\x41\0\1"


def counting() -> Chance:
    """Octets 0, 1, 2 ... so that what was drawn can be told."""
    drawn = iter(range(1 << 20))
    return Chance(lambda count: bytes(next(drawn) & 0xFF for _ in range(count)))


def test_no_octet_is_given_twice() -> None:
    made = counting()
    assert [made.octets(3), made.octets(2), made.octets(0)] == [b"\0\1\2", b"\3\4", b""]
    assert len(made.octets(5000)) == 5000
    drawn: list[int] = []
    once = Chance(lambda count: drawn.append(count) or bytes(count))  # type: ignore[func-returns-value]
    for _ in range(512):
        once.octets(4)
    assert len(drawn) == 1
    once.octets(1)
    assert len(drawn) == 2


@given(st.integers(1, 65536), st.binary(min_size=4, max_size=4))
def test_numbers_are_below_their_bound(bound: int, octets: bytes) -> None:
    assert 0 <= Chance(lambda count: octets * count).below(bound) < bound


def test_every_number_comes() -> None:
    made = counting()
    assert {made.below(5) for _ in range(100)} == {0, 1, 2, 3, 4}


def test_p12_only_letters_change_their_case() -> None:
    up = Chance(lambda count: b"\0" * count).mixed_case(QUESTION)
    down = Chance(lambda count: b"\xff" * count).mixed_case(QUESTION)
    assert {up, down} == {
        b"\x03www\x07example\x04a-1\xe1\0\0\x41\0\1",
        b"\x03WWW\x07EXAMPLE\x04A-1\xe1\0\0\x41\0\1",
    }


@given(st.binary(min_size=5, max_size=259), st.randoms(use_true_random=False))
def test_p12_the_question_stays_the_same_but_for_case(question: bytes, drawn: Random) -> None:
    mixed = Chance(drawn.randbytes).mixed_case(question)
    assert mixed.lower()[:-4] == question.lower()[:-4]
    assert mixed[-4:] == question[-4:]
