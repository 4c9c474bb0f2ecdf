from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core.book import Entry
from dnsproxy.core.health import Health
from dnsproxy.core.holding import Choice, Held, Policy, Tryout, same_set
from tests.strategies import learned, snapshot

NAME = "a.example."
OLD, NEW, MORE = "10.0.0.1", "10.0.0.2", "10.0.0.3"
WALL = 1000.0


def entry(*addresses: str, serial: int = 1) -> Entry:
    content = learned(NAME, addresses)
    return Entry(content, snapshot(content, serial=serial))


def held(tryout: Tryout | None, **alive: bool | None) -> Held:
    """OLD is proven; NEW and MORE are the newest set."""
    states = {OLD: alive.get("old"), NEW: alive.get("new"), MORE: alive.get("more")}
    health = {address: Health(state, 0.0) for address, state in states.items()}
    return Held(entry(NEW, MORE, serial=2), entry(OLD), tryout=tryout, health=health)


def chosen(name: Held) -> tuple[str, ...]:
    name.choose(Policy(), WALL)
    assert name.choice is not None
    return name.choice.addresses


def test_a_set_on_trial_waits_while_the_proven_one_lives() -> None:
    name = held(Tryout(), old=True, new=True)
    assert chosen(name) == (OLD,)
    assert name.tried == Choice(entry(NEW, MORE, serial=2), (NEW,))
    assert name.proven == entry(OLD)


def test_who_leads_answers_with_it_as_long_as_it_lives() -> None:
    name = held(Tryout(leads=True), old=True, new=True, more=True)
    assert chosen(name) == (NEW, MORE)
    name.health[NEW].alive = False
    assert chosen(name) == (MORE,)
    name.health[MORE].alive = False
    assert chosen(name) == (OLD,)
    assert name.tried is None


def test_it_is_taken_at_once_when_the_proven_one_does_not_live() -> None:
    name = held(Tryout(), old=False, new=True)
    assert chosen(name) == (NEW,)
    assert name.proven is name.newest


def test_a_change_of_what_is_tried_is_a_change() -> None:
    name = held(Tryout(), old=True)
    assert name.choose(Policy(), WALL)
    assert not name.choose(Policy(), WALL)
    name.health[NEW].alive = True
    assert name.choose(Policy(), WALL)
    assert not name.choose(Policy(), WALL)


def test_an_entry_with_what_is_answered() -> None:
    whole = entry(OLD, NEW)
    assert Choice(whole, (OLD, NEW)).as_entry() is whole
    part = Choice(whole, (NEW,)).as_entry()
    assert (part.learned.addresses, part.snapshot) == ((NEW,), whole.snapshot)
    assert same_set(part, entry(NEW))


alive = st.sampled_from([True, False, None])


@given(alive, alive, alive, st.sampled_from([None, Tryout(), Tryout(leads=True)]), st.booleans())
def test_never_empty_and_never_a_set_that_is_dead_while_another_lives(
    old: bool | None, new: bool | None, more: bool | None, tryout: Tryout | None, accept: bool
) -> None:
    name = held(tryout, old=old, new=new, more=more)
    states = {OLD: old, NEW: new, MORE: more}
    name.choose(Policy(accept=accept and tryout is None), WALL)
    assert name.choice is not None
    given_now = [name.choice.addresses, *([name.tried.addresses] if name.tried else [])]
    for addresses in given_now:
        assert addresses
        if any(states.values()) and not accept:
            assert any(states[address] for address in addresses)
    # As without a trial, but for who waits.
    plain = held(None, old=old, new=new, more=more)
    plain.choose(Policy(), WALL)
    if tryout is None or not old:
        assert accept or name.choice == plain.choice
