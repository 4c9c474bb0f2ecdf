from __future__ import annotations

from dnsproxy.core.failures import FAILURE_TTL, MAX_FAILURES, RECHECK, Failures

KEY = b"\x03www\x07example\0\0\1\0\1\0"
OTHER = b"\x03www\x07example\0\0\x1c\0\1\0"


def test_p12_remembered_for_a_while_and_why() -> None:
    held = Failures()
    assert len(held) == 0
    held.remember(KEY, 22, 100.0)
    assert held.active
    failed = held.get(KEY, 100.0)
    assert failed is not None
    assert (failed.ede, failed.until, failed.recheck) == (22, 100.0 + FAILURE_TTL, 100.0 + RECHECK)
    assert held.get(OTHER, 100.0) is None
    assert held.get(KEY, 100.0 + RECHECK) is None
    assert 1.0 <= FAILURE_TTL <= 5.0


def test_an_answer_makes_it_forgotten() -> None:
    held = Failures()
    held.remember(KEY, 22, 0.0)
    held.forget(KEY)
    assert held.get(KEY, 0.0) is None


def test_tidied_when_all_are_old() -> None:
    held = Failures()
    held.remember(KEY, 22, 0.0)
    held.remember(OTHER, 22, 10.0)
    held.tidy(RECHECK)
    assert (held.active, len(held)) == (True, 2)
    held.tidy(10.0 + RECHECK)
    assert (held.active, len(held)) == (False, 0)


def test_flushed_by_name() -> None:
    held = Failures()
    elsewhere = b"\x02ww" + KEY[4:]
    for key in (KEY, OTHER, elsewhere):
        held.remember(key, 22, 0.0)
    held.forget_name(KEY[:-5])
    assert [held.get(key, 0.0) is None for key in (KEY, OTHER, elsewhere)] == [True, True, False]
    held.forget_name(None)
    assert len(held) == 0


def test_p20_a_flood_of_failures_is_bounded() -> None:
    held = Failures()
    for number in range(3 * MAX_FAILURES):
        held.remember(b"%d" % number, 22, 0.0)
    assert len(held) <= MAX_FAILURES
