"""SVCB records for our own encrypted listeners, read by dnspython."""

from __future__ import annotations

import dns.rdata
import dns.rdataclass
import dns.rdatatype

from dnsproxy.core.ddr import designations


def shown(*listeners: tuple[str, int]) -> list[str]:
    made = designations("dns.example", listeners, "/dns-query")
    return [
        dns.rdata.from_wire(dns.rdataclass.IN, dns.rdatatype.SVCB, data, 0, len(data)).to_text()
        for data in made
    ]


def test_p37_each_port_has_a_record_for_https_and_one_for_tls_the_usual_ports_first() -> None:
    assert shown(("0.0.0.0", 853), ("::", 853), ("0.0.0.0", 443)) == [
        '1 dns.example. alpn="h2,http/1.1" port="443" dohpath="/dns-query{?dns}"',
        '2 dns.example. alpn="h2,http/1.1" port="853" dohpath="/dns-query{?dns}"',
        '3 dns.example. alpn="dot" port="853"',
        '4 dns.example. alpn="dot" port="443"',
    ]


def test_p37_addresses_that_clients_can_reach_are_hints() -> None:
    _, tls = shown(("10.0.0.1", 853), ("fd00::1", 853), ("10.0.0.2", 853), ("fe80::1%2", 853))
    assert tls == '2 dns.example. alpn="dot" port="853" ipv4hint="10.0.0.1,10.0.0.2" ipv6hint="fd00::1"'


def test_p37_without_listeners_there_is_nothing_to_designate() -> None:
    assert shown() == []
