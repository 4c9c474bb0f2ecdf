from __future__ import annotations

import struct
from collections import Counter
from pathlib import Path

import dns.edns
import dns.flags
import dns.message

from bench.names import OWNED, cached
from bench.queries import AAAA, A, Question, message, mix, shuffled, write_wire

COUNT = 10_000


def test_a_message_is_what_dig_sends() -> None:
    query = dns.message.from_wire(message(Question("host.bench.example", AAAA), b"12345678", 77))

    assert query.id == 77
    assert str(query.question[0]) == "host.bench.example. IN AAAA"
    assert query.payload == 1232
    assert list(query.options) == [dns.edns.CookieOption(b"12345678", b"")]
    assert dns.flags.to_text(query.flags) == "RD AD"


def test_a_message_without_a_cookie_has_no_opt_record() -> None:
    assert dns.message.from_wire(message(Question("host.bench.example"), None)).edns == -1


def test_the_mix_has_the_shares_that_the_report_states() -> None:
    questions = list(mix(COUNT, "run1"))
    owned = {entry.name for entry in OWNED}
    kinds = Counter(
        "miss" if ".run1.miss." in name else "owned" if name in owned else "cached"
        for name, _qtype in questions
    )

    assert kinds == {"miss": COUNT // 100, "owned": COUNT // 10, "cached": COUNT * 89 // 100}
    assert Counter(qtype for _name, qtype in questions) == {A: COUNT * 3 // 4, AAAA: COUNT // 4}
    assert {name for name, _qtype in questions} > owned


def test_misses_of_the_mix_are_never_repeated() -> None:
    runs = [{name for name, _ in mix(COUNT, run) if ".miss." in name} for run in ("run1", "run2")]

    assert [len(names) for names in runs] == [COUNT // 100] * 2
    assert not runs[0] & runs[1]


def test_every_message_of_a_file_has_a_cookie_of_its_own(tmp_path: Path) -> None:
    data = write_wire(tmp_path / "mix.wire", mix(300, "run1")).read_bytes()
    cookies = set()
    count = 0
    while data:
        (length,) = struct.unpack_from("!H", data)
        query = dns.message.from_wire(data[2 : 2 + length])
        cookies.add(query.options[0].to_wire())
        data = data[2 + length :]
        count += 1

    assert count == len(cookies) == 300


def test_shuffling_keeps_the_names_and_is_the_same_each_time() -> None:
    names = cached(100)

    assert sorted(shuffled(names)) == names
    assert shuffled(names) == shuffled(reversed(names)) != names
