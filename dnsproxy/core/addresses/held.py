"""Why a change that helpers state is not what clients are answered. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from dnsproxy.core.addresses.lifecycle import AddressLifecycle


def held_reason(state: AddressLifecycle, name: str, old: Iterable[str], new: Iterable[str]) -> str | None:
    """Return why clients are not answered with a change from ``old`` to ``new``; None when they are.

    They are when every address that is answered is of the new set, and one of those that it added is.
    """
    served, entry = state.served(name), state.managed_by_name.get(name)
    fixed = entry.addresses if entry is not None else ()
    answered = set(fixed or (served.learned.addresses if served is not None else ()))
    target, added = set(new), set(new) - set(old)
    if answered <= target and (not added or added & answered) and bool(answered) == bool(target):
        return None
    if entry is None:
        return "no longer configured"
    overrides = state.overrides
    if fixed or name in overrides.pins:
        return "pinned"
    if overrides.freeze is not None and name in overrides.freeze.sets:
        serial = overrides.freeze.serial
        return "frozen" if serial is None else f"rolled back to {serial}"
    trial = state.trials().get(name)
    if trial is not None and set(trial.addresses) == target:
        return "on trial" if trial.is_running else f"rolled back: {trial.detail}"
    if not target:
        return "an address is kept until another one works"
    refused = next((finding for finding in state.refused_of(name) if finding.address in target), None)
    if refused is not None:
        return f"{refused.address} is refused: {refused.detail}"
    waiting = next((s for s in state.states(name) if s.address in target - answered), None)
    if waiting is not None:
        return f"{waiting.address}: {waiting.reason or 'held back'}"
    return "superseded"
