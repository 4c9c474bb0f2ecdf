from __future__ import annotations

from dnsproxy.core.attempt import Attempt, Failure
from dnsproxy.core.upstreams import Upstream


def test_failures_are_labels_of_metrics() -> None:
    assert all(str(failure) == failure.value == failure.name.lower() for failure in Failure)


def test_an_attempt_is_with_edns_unless_it_says_otherwise() -> None:
    upstream = Upstream("one", ("192.0.2.1", 53))
    made = Attempt(upstream, b"payload", 1.5, tcp=False)
    assert (made.upstream, made.payload, made.deadline, made.tcp, made.edns) == (
        upstream,
        b"payload",
        1.5,
        False,
        True,
    )
