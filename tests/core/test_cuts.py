from __future__ import annotations

import pytest

from dnsproxy.core import names
from dnsproxy.core.cuts import MAX_CUTS, Cuts
from dnsproxy.core.features import Features
from dnsproxy.core.policy import Owned
from dnsproxy.core.upstreams import Upstream
from tests.messages import answer, engine, forward, query, read, reply_to, resolve

SOA = "example. 900 IN SOA ns.example. host.example. 1 2 3 4 40"
ON = Features(nxdomain_cut=True)
ROOT = b"\0"


def denial(name: str, *authority: str) -> bytes:
    return reply_to(b"\0\0" + query(name)[2:], rcode=3, authority=authority)


def test_p18_off_by_default() -> None:
    made = engine()
    resolve(made, query("no.example."), rcode=3, authority=[SOA])
    assert forward(made, query("a.no.example."), 2.0).is_new


def test_p18_nothing_exists_below_a_name_that_does_not() -> None:
    made = engine(features=ON)
    resolve(made, query("no.example."), rcode=3, authority=[SOA])
    for name, qtype in (("a.no.example.", "A"), ("b.c.NO.example.", "TXT")):
        response = read(answer(made, query(name, qtype), 11.5))
        assert (response.rcode(), response.answer) == (3, [])
        (soa,) = response.authority
        assert soa.to_text() == "example. 29 IN SOA ns.example. host.example. 1 2 3 4 40"
    assert forward(made, query("ano.example."), 2.0).is_new
    assert forward(made, query("other.example."), 2.0).is_new
    assert forward(made, query("a.no.example."), 41.0).is_new


def test_p18_those_who_validate_are_given_no_cut() -> None:
    made = engine(features=ON)
    resolve(made, query("no.example."), rcode=3, authority=[SOA])
    assert forward(made, query("a.no.example.", want_dnssec=True), 2.0).is_new


@pytest.mark.parametrize(
    ("rcode", "records", "authority"),
    [
        (0, [], [SOA]),
        (3, ["no.example. 60 IN CNAME gone.example."], [SOA]),
        (3, [], []),
        (2, [], [SOA]),
    ],
    ids=["no data", "alias", "no SOA", "failure"],
)
def test_p18_other_answers_cut_nothing(rcode: int, records: list[str], authority: list[str]) -> None:
    made = engine(features=ON)
    resolve(made, query("no.example."), records, rcode=rcode, authority=authority)
    assert forward(made, query("a.no.example."), 2.0).is_new


def test_p18_a_cut_holds_within_its_zone_of_upstreams_only() -> None:
    corp = names.to_key("corp.example.")
    made = engine(features=ON, zones={corp: (Upstream("corp", ("192.0.2.9", 53)),)})
    resolve(made, query("example."), rcode=3, authority=[SOA])
    assert forward(made, query("www.corp.example."), 2.0).is_new
    assert read(answer(made, query("www.example."), 2.0)).rcode() == 3


def test_p07_an_owned_name_wins_over_a_cut() -> None:
    made = engine([Owned("a.no.example.", addresses=("10.0.0.1",))], features=ON)
    resolve(made, query("no.example."), rcode=3, authority=[SOA])
    assert len(read(answer(made, query("a.no.example."), 2.0)).answer) == 1


def test_an_answer_below_shows_that_it_was_wrong() -> None:
    cuts = Cuts()
    cuts.keep(ROOT, names.to_key("no.example"), denial("no.example.", SOA), 40.0, 0.0)
    below = names.to_key("a.no.example")
    assert cuts.find(ROOT, below, 1.0) is not None
    cuts.exists(ROOT, names.to_key("b.c.no.example"))
    assert cuts.find(ROOT, below, 1.0) is None


def test_flushing_forgets_them() -> None:
    made = engine(features=ON)
    resolve(made, query("no.example."), rcode=3, authority=[SOA])
    made.flush(names.to_key("no.example"))
    assert forward(made, query("a.no.example."), 2.0).is_new


def test_what_cannot_be_decoded_cuts_nothing() -> None:
    cuts = Cuts()
    cuts.keep(ROOT, names.to_key("no.example"), denial("no.example.", SOA)[:-4], 40.0, 0.0)
    assert len(cuts) == 0


def test_p20_cuts_are_bounded() -> None:
    cuts = Cuts()
    reply = denial("no.example.", SOA)
    cuts.keep(ROOT, b"\1a\0", reply, 40.0, 0.0)
    held = cuts._cuts.peek(ROOT + b"\1a\0")
    assert held is not None
    for number in range(2 * MAX_CUTS):
        cuts._cuts.put(b"%d" % number, held)
    assert len(cuts) <= MAX_CUTS
