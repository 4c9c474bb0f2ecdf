from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core import names
from dnsproxy.core.returns import AWAITED_FOR, KEY_SIZE, LABEL, PREFIX, Returns

SALT = b"ab"


def returns(key: bytes = bytes(KEY_SIZE)) -> Returns:
    return Returns(key, [0.0] * 4)


@given(st.integers(0, 65_535), st.binary(min_size=2, max_size=2), st.floats(0, 4e9))
def test_a_name_tells_every_process_with_the_key_whose_it_is(number: int, salt: bytes, now: float) -> None:
    name = returns().prefix(number, salt, now)
    assert (len(name), name[0], name[1 + LABEL]) == (PREFIX, LABEL, LABEL)
    for zone in ("", "corp.example"):
        key = name + names.to_key(zone or ".")
        # As a server on the way would write it, and as `names` makes it comparable.
        assert key == key.lower()
        assert returns().sender(key, now) == number
        assert returns(b"another key      "[:KEY_SIZE]).sender(key, now) is None


@pytest.mark.parametrize(("later", "known"), [(0.0, True), (14.0, True), (AWAITED_FOR, False), (-2.0, False)])
def test_it_does_so_for_a_while(later: float, known: bool) -> None:
    key = returns().prefix(3, SALT, 100.5) + names.ROOT
    assert (returns().sender(key, 100.5 + later) == 3) == known


def test_one_octet_changed_makes_another_name() -> None:
    key = returns().prefix(1, SALT, 7.0) + names.to_key("corp.example")
    for place in range(PREFIX):
        for octet in b"0f":
            changed = key[:place] + bytes([octet]) + key[place + 1 :]
            assert changed == key or returns().sender(changed, 7.0) is None


@given(st.binary(max_size=80), st.floats(0, 1e9))
def test_any_other_octets_are_nobodys(key: bytes, now: float) -> None:
    assert returns().sender(key, now) is None
    assert returns().sender(b"\x10" + b"a" * LABEL + b"\x10" + key, now) is None


def test_what_one_records_the_other_sees() -> None:
    shared = memoryview(bytearray(8 * 4)).cast("d")
    one, other = Returns(bytes(KEY_SIZE), shared), Returns(bytes(KEY_SIZE), shared)
    one.record(2, 12.5)
    assert [other.last[place] for place in range(4)] == [0.0, 0.0, 12.5, 0.0]
