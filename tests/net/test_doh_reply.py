from __future__ import annotations

import pytest

from dnsproxy.core import doh
from dnsproxy.errors import DropReason
from dnsproxy.net.doh_reply import reply_to, status_of
from tests.messages import query
from tests.messages import reply_to as dns_reply


def test_p17_a_message_is_told_how_long_it_may_be_kept() -> None:
    message = dns_reply(query("www.example."), ["www.example. 60 IN A 192.0.2.1"])
    assert reply_to(message) == (
        200,
        [
            ("content-type", "application/dns-message"),
            ("content-length", str(len(message))),
            ("cache-control", "max-age=60"),
        ],
        message,
    )


@pytest.mark.parametrize("status", [*doh.TEXTS, 431])
def test_p17_a_status_has_a_text(status: int) -> None:
    reply = reply_to(status)
    assert reply.status == status
    assert ("content-length", str(len(reply.body))) in reply.headers
    assert reply.body.endswith(b"\n")


@pytest.mark.parametrize("reason", list(DropReason))
def test_every_drop_has_a_status(reason: DropReason) -> None:
    busy = {DropReason.OVERLOADED, DropReason.TOO_MANY_WAITERS}
    expected = {**dict.fromkeys(busy, 503), DropReason.REFUSED_CLIENT: 403}
    assert status_of(reason) == expected.get(reason, 400)
