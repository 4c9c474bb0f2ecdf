from __future__ import annotations

from pathlib import Path

import pytest

from dnsproxy.core.upstreams import Secure, Upstream
from dnsproxy.errors import StartError
from dnsproxy.net.dial import Dialer
from tests.certificates import make_certificate

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
