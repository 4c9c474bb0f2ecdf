from __future__ import annotations

from bench.profiling import self_times, table

STACKS = """\
main (app.py:10);serve (udp.py:20);scan (wire.py:30) 6
main (app.py:10);serve (udp.py:21) 3
main (app.py:10);serve (udp.py:20);scan (wire.py:31) 1
"""


def test_own_time_goes_to_the_innermost_frame() -> None:
    functions, lines, inclusive = self_times(STACKS)

    assert functions == {"scan (wire.py)": 7, "serve (udp.py)": 3}
    assert lines["scan (wire.py:30)"] == 6
    assert inclusive["main (app.py)"] == 10


def test_recursion_counts_once() -> None:
    assert self_times("f (a.py:1);f (a.py:2) 5")[2] == {"f (a.py)": 5}


def test_the_table_shows_shares() -> None:
    text = table(STACKS)

    assert "10 samples" in text
    assert " 70.0%    70.0%       scan (wire.py)" in text
    assert " 30.0%   100.0%       serve (udp.py)" in text


def test_a_table_of_nothing_is_a_table() -> None:
    assert table("") == "0 samples\n\n  own   with callees  function\n\n  own   line\n"
