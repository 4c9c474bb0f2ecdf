from __future__ import annotations

from dnsproxy.core.features import NO_FEATURES, Features


def test_nothing_is_on_that_is_not_asked_for() -> None:
    assert Features() == NO_FEATURES
    assert not any((NO_FEATURES.prefetch, NO_FEATURES.nxdomain_cut))
    assert not any((NO_FEATURES.minimal_any, NO_FEATURES.mix_case))
    assert (NO_FEATURES.version, NO_FEATURES.identity) == (None, None)
    assert NO_FEATURES.proxies is None
    assert NO_FEATURES.probe_interval == float("inf")
