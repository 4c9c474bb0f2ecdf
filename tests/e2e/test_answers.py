"""What `dig` and `kdig` get: over UDP and TCP, IPv4 and IPv6, for owned names and for others."""

from __future__ import annotations

import pytest

from tests.e2e.digging import Server
from tests.e2e.processes import has_ipv6
from tests.e2e.world import ADDRESSES, AUTH, BUCKET, OTHER, OTHER_ADDRESS, REGISTRY, STORAGE, World

# In one worker the shared world is made once; in several it is only made more often.
pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e-answers")]

HOSTS = [
    "127.0.0.1",
    pytest.param("::1", marks=pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")),
]
EXPECTED = [
    (REGISTRY, ADDRESSES[REGISTRY]),
    (AUTH, ADDRESSES[AUTH]),
    (STORAGE, ADDRESSES[STORAGE]),
    (BUCKET, ADDRESSES[STORAGE]),
    (f"any.depth.of.{BUCKET}", ADDRESSES[STORAGE]),
    (OTHER, OTHER_ADDRESS),
]


@pytest.fixture(params=HOSTS)
def server(request: pytest.FixtureRequest, running: World) -> Server:
    return Server(running.dns_port, request.param)


@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
@pytest.mark.parametrize(("name", "address"), EXPECTED)
def test_dig_short_prints_the_one_address(server: Server, name: str, address: str, transport: str) -> None:
    assert server.short(name, transport) == [address]


@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
@pytest.mark.parametrize(("name", "address"), EXPECTED)
def test_kdig_gets_the_one_address(server: Server, name: str, address: str, transport: str) -> None:
    assert server.kdig(name, transport).data == [address]


@pytest.mark.parametrize("name", [REGISTRY, AUTH, STORAGE, BUCKET])
def test_owned_address_is_authoritative_and_says_that_recursion_is_available(
    server: Server, name: str
) -> None:
    reply = server.dig(name)
    assert reply.rcode == "NOERROR"
    assert {"qr", "aa", "rd", "ra"} <= reply.flags
    assert [record.ttl for record in reply.answer] == [30]


@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
@pytest.mark.parametrize("qtype", ["AAAA", "HTTPS", "SVCB", "TXT", "MX", "TYPE65280"])
@pytest.mark.parametrize("name", [REGISTRY, BUCKET])
def test_other_types_of_an_owned_name_give_nodata_with_soa(
    server: Server, name: str, qtype: str, transport: str
) -> None:
    reply = server.dig(name, qtype, transport)
    assert reply.rcode == "NOERROR"
    assert reply.answer == ()
    assert [record.type for record in reply.authority] == ["SOA"]
    assert "ra" in reply.flags


def test_kdig_sees_nodata_for_https_too(server: Server) -> None:
    reply = server.kdig(REGISTRY, "HTTPS")
    assert (reply.rcode, reply.answer) == ("NOERROR", ())
    assert [record.type for record in reply.authority] == ["SOA"]


def test_letter_case_of_the_question_comes_back(server: Server) -> None:
    mixed = REGISTRY.replace("registry-vpc", "ReGiStRy-VPC")
    (record,) = server.dig(mixed).answer
    assert record.name == f"{mixed}."
    assert record.data == ADDRESSES[REGISTRY]


def test_search_suffix_form_is_not_owned(server: Server) -> None:
    # Below `example`, for the upstream refuses what is elsewhere.
    assert server.dig(f"{REGISTRY}.svc.example").rcode == "NXDOMAIN"


def test_one_tcp_connection_carries_many_queries(running: World) -> None:
    reply = running.server.kdig("+tcp", "+keepopen", REGISTRY, AUTH, OTHER)
    assert reply.text.count("status: NOERROR") == 3
    for address in (ADDRESSES[REGISTRY], ADDRESSES[AUTH], OTHER_ADDRESS):
        assert address in reply.text


def test_client_without_edns_gets_none(running: World) -> None:
    assert "OPT PSEUDOSECTION" in running.server.dig(REGISTRY).text
    plain = running.server.dig(REGISTRY, "+noedns")
    assert plain.data == [ADDRESSES[REGISTRY]]
    assert "OPT PSEUDOSECTION" not in plain.text


def test_unknown_edns_version_gets_badvers(running: World) -> None:
    assert running.server.dig(REGISTRY, "+edns=7", "+noednsnegotiation").rcode == "BADVERS"


def test_p24_a_private_address_of_a_learned_name_has_its_name(running: World) -> None:
    assert running.server.short("-x", ADDRESSES[REGISTRY]) == [f"{REGISTRY}."]
    assert running.server.short("-x", "10.94.205.200") == []
