from __future__ import annotations

from pathlib import Path

import pytest

from dnsproxy.core.upstreams import Secure, Upstream
from dnsproxy.errors import StartError
from dnsproxy.net.dial import Dialer
from dnsproxy.net.upstream_https import HttpsLink
from dnsproxy.net.upstream_tcp import FramedLink
from tests.certificates import make_certificate
from tests.fakes.links import Keeper

PLAIN = Upstream("plain", ("192.0.2.1", 53), tcp=True)
DOT = Upstream("dot", ("192.0.2.1", 853), secure=Secure("dns.example"))


def test_an_authority_that_cannot_be_read_is_noticed_before_anything_is_asked(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"forward\.ca_file"):
        Dialer([DOT], tmp_path / "none.pem")


def test_nobody_needs_an_authority_for_plain_upstreams(tmp_path: Path) -> None:
    assert Dialer([PLAIN], tmp_path / "none.pem")._contexts == {}


def test_every_secure_upstream_has_a_context_of_its_own_for_its_sessions(tmp_path: Path) -> None:
    other = Upstream("other", ("192.0.2.1", 853), secure=Secure("dns.example"))
    contexts = Dialer([DOT, PLAIN, other], make_certificate(tmp_path, "dns.example"))._contexts
    assert list(contexts) == [DOT, other]
    assert contexts[DOT] is not contexts[other]


async def test_addresses_are_as_they_are_unless_somebody_resolves_names() -> None:
    assert await Dialer().resolve("192.0.2.1") == ("192.0.2.1",)


@pytest.mark.parametrize(
    ("address", "name", "authority"),
    [
        (("192.0.2.1", 443), "dns.example", b"dns.example"),
        (("192.0.2.1", 8443), "dns.example", b"dns.example:8443"),
        (("::1", 443), "::1", b"[::1]"),
    ],
)
async def test_the_link_suits_the_upstream(address: tuple[str, int], name: str, authority: bytes) -> None:
    doh = Upstream("doh", address, secure=Secure(name, "/q"))
    kinds = {}
    for upstream in (PLAIN, DOT, doh):
        keeper = Keeper()
        channel = Dialer().open(upstream, keeper, lambda: b"\0\0")
        made = channel._make_link(channel)
        kinds[upstream.name] = type(made)
        if isinstance(made, HttpsLink):
            assert (":authority", authority.decode()) in made._headers
        assert (channel.context is None) == (upstream is PLAIN)
    assert kinds == {"plain": FramedLink, "dot": FramedLink, "doh": HttpsLink}
