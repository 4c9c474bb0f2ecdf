from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core import names
from dnsproxy.core.reverse import ReverseIndex, digits_of, digits_of_key

ADDRESSES = ("10.0.0.1", "10.0.0.2", "fd00::1")


@given(st.ip_addresses().map(str))
def test_a_reverse_name_has_the_digits_of_its_address(address: str) -> None:
    pointer = ip_address(address).reverse_pointer
    digits = digits_of(address)
    assert digits_of_key(names.to_key(pointer)) == digits
    # Names above have those that it begins with.
    while pointer.count(".") > 1:
        pointer = pointer.partition(".")[2]
        above = digits_of_key(names.to_key(pointer))
        assert above is not None
        assert digits.startswith(above)


@pytest.mark.parametrize(
    "name",
    [
        *(".", "arpa", "example", "in-addr.example", "1.0.0.10.in-addr.example"),
        *(
            "x.1.0.0.10.in-addr.arpa",
            "256.0.0.10.in-addr.arpa",
            "01.0.0.10.in-addr.arpa",
            "a.10.in-addr.arpa",
        ),
        *("g.ip6.arpa", "10.ip6.arpa", ".".join("0" * 33) + ".ip6.arpa", "0000.in-addr.arpa"),
    ],
)
def test_other_names_have_none(name: str) -> None:
    assert digits_of_key(names.to_key(name)) is None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sets(st.sampled_from(ADDRESSES))), max_size=12))
def test_the_index_is_that_of_the_last_addresses(changes: Sequence[tuple[str, set[str]]]) -> None:
    index, last = ReverseIndex(), dict[str, set[str]]()
    for name, addresses in changes:
        index = index.copy()
        index.replace(name, last.get(name, ()), addresses)
        last[name] = addresses
    for address in ADDRESSES:
        expected = sorted(name for name, held in last.items() if address in held)
        assert sorted(index.find(digits_of(address), 16)) == expected
        assert index.exists(digits_of(address)) == bool(expected)
    assert index.exists("40a") == any("." in address for held in last.values() for address in held)


def test_a_copy_is_apart_and_an_answer_bounded() -> None:
    first = ReverseIndex()
    for number in range(100):
        first.replace(f"n{number}.", (), ("10.0.0.1",))
    second = first.copy()
    second.replace("n0.", ("10.0.0.1",), ("10.0.0.2",))
    digits = digits_of("10.0.0.1")
    assert (len(first.find(digits, 1000)), len(second.find(digits, 1000))) == (100, 99)
    assert len(second.find(digits, 16)) == 16
    assert second.find(digits_of("10.0.0.2"), 16) == ["n0."]
