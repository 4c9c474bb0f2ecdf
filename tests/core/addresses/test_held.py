from __future__ import annotations

from dataclasses import replace

from dnsproxy.core.addresses.canary import CanaryPolicy
from dnsproxy.core.addresses.held import held_reason
from tests.lifecycles import FAILED, H1, INTERVAL, NAME, ProxyModel

A, B, C = "10.0.0.1", "10.0.0.2", "10.0.0.3"


def changed(proxy: ProxyModel, *new: str) -> ProxyModel:
    """Publish A, which works, then ``new``."""
    proxy.publish(H1, A)
    proxy.elapse(INTERVAL)
    proxy.publish(H1, *new)
    proxy.elapse(INTERVAL)
    return proxy


def test_a_change_that_is_answered_is_not_held() -> None:
    proxy = changed(ProxyModel(), B)
    assert proxy.served() == (B,)
    assert held_reason(proxy.state, NAME, [A], [B]) is None
    # A member that died later is left out of a set that is in service.
    proxy = changed(ProxyModel(), A, B)
    proxy.dead(A)
    proxy.elapse(2 * INTERVAL)
    assert proxy.served() == (B,)
    assert held_reason(proxy.state, NAME, [A], [A, B]) is None


def test_a_change_that_does_not_answer_probes() -> None:
    proxy = ProxyModel()
    proxy.hosts[B] = FAILED
    changed(proxy, B)
    assert proxy.served() == (A,)
    reason = held_reason(proxy.state, NAME, [A], [B])
    assert reason is not None
    assert reason.startswith(f"{B}: port 443: Connection refused")


def test_a_change_that_an_override_keeps_out() -> None:
    proxy = ProxyModel()
    proxy.publish(H1, A)
    proxy.elapse(INTERVAL)
    proxy.order("freeze")
    proxy.publish(H1, B)
    proxy.elapse(INTERVAL)
    assert held_reason(proxy.state, NAME, [A], [B]) == "frozen"
    serial = proxy.state.overrides.history[0].serial
    proxy.order("rollback", serial)
    proxy.elapse(INTERVAL)
    assert held_reason(proxy.state, NAME, [A], [B]) == f"rolled back to {serial}"
    proxy.order("pin", NAME, [C])
    proxy.elapse(INTERVAL)
    assert held_reason(proxy.state, NAME, [A], [B]) == "pinned"
    proxy.order("unpin", NAME)
    proxy.order("unfreeze")
    proxy.elapse(INTERVAL)
    assert held_reason(proxy.state, NAME, [A], [B]) is None
    proxy.reload(managed=(replace(proxy.policy.managed[0], addresses=(C,)),), own_ports={NAME: ()})
    assert held_reason(proxy.state, NAME, [A], [B]) == "pinned"


def test_a_change_on_trial() -> None:
    proxy = changed(ProxyModel(canary=CanaryPolicy(0, 3600.0, 3, "b")), B)
    assert held_reason(proxy.state, NAME, [A], [B]) == "on trial"
    proxy.order("refuse", NAME)
    proxy.elapse(INTERVAL)
    assert held_reason(proxy.state, NAME, [A], [B]) == "rolled back: by an operator"


def test_a_name_without_configuration_or_with_a_later_change() -> None:
    proxy = changed(ProxyModel(), B)
    assert held_reason(proxy.state, "other.example.", [], [A]) == "no longer configured"
    assert held_reason(proxy.state, NAME, [], [C]) == "superseded"
