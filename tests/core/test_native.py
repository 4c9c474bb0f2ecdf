from __future__ import annotations

from dnsproxy.core.native import mypyc_attr


def test_without_the_compiler_a_class_stays_as_it_is() -> None:
    class Kind:
        pass

    assert mypyc_attr(free_list_len=1)(Kind) is Kind
