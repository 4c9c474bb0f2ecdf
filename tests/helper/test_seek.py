from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from dnsproxy.core.registry import MAX_FOUND, Found
from dnsproxy.core.withdrawal import KEEP, LOOKS
from dnsproxy.errors import DiscoverError, Doubt
from dnsproxy.helper.discover import Inconclusive, Outcome, Report, Target
from dnsproxy.helper.seek import ROUNDS, Findings, Seeker
from dnsproxy.settings.discovery import DiscoverSettings

WALL = 1_764_000_000.0
REGULAR = 300.0
TARGET = Target("hz", "registry.example.", frozenset({"auth", "storage"}), DiscoverSettings())
A: tuple[str, ...] = ("a.example.",)
B: tuple[str, ...] = ("b.example.",)
BASIC = Inconclusive(Doubt.NO_BEARER, "/v2/: no Bearer challenge")
SERVED = Inconclusive(Doubt.NO_REDIRECT, "no blob is redirected to another host")


def failure(reason: Doubt = Doubt.TIMEOUT) -> DiscoverError:
    return DiscoverError(reason, "no whole answer")


def auth(*names: str) -> Report:
    return Report({"auth": names})


def known(findings: Findings) -> dict[str, tuple[str, ...]]:
    return {found.role: found.names for found in findings.found()}


class Looks:
    """A helper with clocks that are moved by hand, and its looks at one registry."""

    def __init__(self) -> None:
        self.findings = Findings(2 * REGULAR)
        self.now = 0.0
        self.wall = WALL

    def pause(self, seconds: float) -> None:
        self.now += seconds
        self.wall += seconds

    def look(self, outcome: Outcome, times: int = 1, role: str = "auth") -> None:
        for _ in range(times):
            self.findings.record("hz", Report({role: outcome}), self.now, self.wall)
            self.pause(REGULAR)

    def restart(self, found: tuple[Found, ...] | None = None) -> None:
        held = self.findings.found() if found is None else found
        self.findings = Findings(2 * REGULAR)
        self.findings.restore(held)

    @property
    def names(self) -> tuple[str, ...] | None:
        """None while nothing is known of the role."""
        return next((entry.names for entry in self.findings.found()), None)


@pytest.fixture
def looks() -> Looks:
    return Looks()


HOUR = int(KEEP / REGULAR)

# --- what is kept


def test_nothing_is_known_before_a_registry_has_answered(looks: Looks) -> None:
    looks.look(failure(), 100)
    assert looks.findings.found() == ()


def test_a_name_has_the_time_of_the_look_that_named_it() -> None:
    findings = Findings(2 * REGULAR)
    findings.record("hz", Report({"storage": B, "auth": ()}), 0.0, WALL + 0.7)
    assert findings.found() == (
        Found("hz", "auth", (), int(WALL)),
        Found("hz", "storage", B, int(WALL)),
    )


def test_a_failure_withdraws_nothing_however_long_it_lasts(looks: Looks) -> None:
    looks.look(A)
    looks.look(failure(), 100 * HOUR)
    assert looks.findings.found() == (Found("hz", "auth", A, int(WALL)),)
    assert looks.findings.failing == {("hz", "auth"): Doubt.TIMEOUT}


@pytest.mark.parametrize(("role", "odd"), [("auth", BASIC), ("storage", SERVED)])
@pytest.mark.parametrize("pause", [0.0, KEEP, 30 * 24 * KEEP])
def test_an_inconclusive_look_withdraws_nothing_whatever_the_pause_before(
    looks: Looks, role: str, odd: Outcome, pause: float
) -> None:
    looks.look(A, role=role)
    looks.pause(pause)
    looks.look(odd, 10 * HOUR, role=role)
    # Nor does it confirm: another helper's finding outdates this one as if no look had been made.
    assert looks.findings.found() == (Found("hz", role, A, int(WALL)),)


@pytest.mark.parametrize("other", [B, ()])
@pytest.mark.parametrize("pause", [KEEP, 30 * 24 * KEEP])
def test_one_conclusive_look_after_a_pause_withdraws_nothing(
    looks: Looks, other: tuple[str, ...], pause: float
) -> None:
    looks.look(A)
    looks.pause(pause)
    looks.look(other)
    assert looks.names == (*A, *other)
    looks.look(A)
    looks.look(other, HOUR)
    assert looks.names == (*A, *other)


@pytest.mark.parametrize("other", [B, ()])
def test_a_name_goes_when_the_registry_names_another_for_an_hour(
    looks: Looks, other: tuple[str, ...]
) -> None:
    looks.look(A)
    with capture_logs() as logs:
        looks.look(other, HOUR)
        assert looks.names == (*A, *other)
        looks.look(other)
    assert looks.names == other
    assert [entry["withdrawn"] for entry in logs if entry["event"] == "helper.discovered_withdrawn"] == [[*A]]


@pytest.mark.parametrize("step", [-30 * 24 * KEEP, -KEEP, KEEP, 30 * 24 * KEEP])
def test_a_clock_step_is_no_time(looks: Looks, step: float) -> None:
    looks.look(A)
    looks.look(B, LOOKS)
    looks.wall += step
    looks.look(B, HOUR - LOOKS)
    assert looks.names == (*A, *B)
    looks.look(B)
    assert looks.names == B


def test_a_registry_whose_nodes_differ_does_not_make_names_come_and_go(looks: Looks) -> None:
    for turn in range(50):
        looks.look((A, B)[turn % 2])
        if turn:
            assert looks.names == (*A, *B)


def test_failures_and_inconclusive_looks_do_not_hold_a_withdrawal_off(looks: Looks) -> None:
    looks.look(A)
    for _ in range(2 * HOUR):
        looks.look(B)
        looks.look(failure())
        looks.look(B)
        looks.look(BASIC)
    assert looks.names == B


def test_a_registry_that_names_ever_new_hosts_does_not_displace_a_steady_one(looks: Looks) -> None:
    looks.look(A, 2)
    for turn in range(MAX_FOUND + 2):
        looks.look((f"n{turn:03}.example.",))
    assert (looks.names or ())[:1] == A
    assert len(looks.names or ()) == MAX_FOUND
    looks.look(A)
    for turn in range(20 * HOUR):
        looks.look((f"m{turn:03}.example.",))
        if turn % HOUR == 0:
            looks.look(A)
        assert (looks.names or ())[:1] == A


def test_a_name_for_which_no_place_is_left_is_a_failure(looks: Looks) -> None:
    looks.findings.restore([Found("hz", "auth", tuple(f"n{i}.example." for i in range(MAX_FOUND)), 1)])
    with capture_logs() as logs:
        looks.look(B, 3)
    assert [(entry["event"], entry["reason"]) for entry in logs] == [("helper.discover_failed", "too_many")]
    assert "b.example." in logs[0]["detail"]
    looks.look(B, HOUR)
    assert (looks.names, looks.findings.failing) == (B, {})


# --- a role of which nothing is known


def test_one_odd_response_does_not_make_a_role_one_without_names(looks: Looks) -> None:
    """A helper without its last snapshot does not know which names proxies have from it."""
    with capture_logs() as logs:
        looks.look(BASIC, LOOKS - 1)
    assert (looks.names, logs) == (None, [])
    looks.look(A)
    assert looks.names == A


def test_a_registry_without_token_service_is_known_after_some_looks(looks: Looks) -> None:
    with capture_logs() as logs:
        looks.look(BASIC, 10)
    # Older than all that another helper finds, for an inconclusive look must not outdate it.
    assert looks.findings.found() == (Found("hz", "auth", (), 0),)
    assert [(entry["event"], entry.get("names")) for entry in logs] == [("helper.discovered", [])]


# --- restarts and other helpers


def test_a_restart_continues_with_what_was_published(looks: Looks) -> None:
    looks.look(A)
    looks.restart()
    looks.look(failure(), 10 * HOUR)
    assert looks.names == A


def test_evidence_from_before_a_restart_does_not_count(looks: Looks) -> None:
    looks.look(A)
    for _ in range(10):
        looks.look(B, HOUR)
        looks.restart()
        assert looks.names == (*A, *B)
    looks.look(B, HOUR + 1)
    assert looks.names == B


def test_the_names_of_another_helper_of_the_group_are_added(looks: Looks) -> None:
    looks.look(A)
    # It keeps an earlier name that this one, started since, has never seen.
    looks.findings.restore([Found("hz", "auth", (*A, *B), int(WALL) + 60)])
    looks.look(A, HOUR)
    assert looks.names == (*A, *B)
    looks.look(A)
    assert looks.names == A


@pytest.mark.parametrize("observed_at", [0, int(WALL), int(WALL + 1e9)])
def test_no_statement_of_another_helper_withdraws_a_name(looks: Looks, observed_at: int) -> None:
    looks.look(A)
    for names in ((), B):
        looks.findings.restore([Found("hz", "auth", names, observed_at)])
    assert looks.findings.found() == (Found("hz", "auth", (*A, *B), max(int(WALL), observed_at)),)
    looks.findings.bring_back(WALL + 1)
    assert looks.findings.found()[0].observed_at <= WALL + 1


def test_a_group_withdraws_a_name_after_its_leader_has() -> None:
    """The follower adopts each snapshot, and its own evidence began later or earlier than the leader's."""
    leader, follower = Looks(), Looks()
    withdrawn: dict[str, int] = {}
    leader.look(A)
    for turn in range(4 * HOUR):
        leader.look(B)
        follower.findings.restore(leader.findings.found())
        follower.look(A if turn < 2 else B)
        for name, helper in (("leader", leader), ("follower", follower)):
            if helper.names == B:
                withdrawn.setdefault(name, turn)
    assert withdrawn == {"leader": HOUR, "follower": HOUR + 2}


# --- any sequence of looks


@dataclass
class Step:
    """Looks that all have one outcome, a pause, or a restart."""

    kind: str
    outcome: Outcome = ()
    times: int = 1
    seconds: float = 0.0


_hosts = [f"{letter}.example." for letter in "abcdefghijkl"]
_steps = st.one_of(
    st.builds(
        Step,
        st.just("look"),
        st.one_of(
            st.sampled_from([A, B, ()]),
            st.sampled_from([(host,) for host in _hosts]),
            st.sampled_from([BASIC, SERVED, failure()]),
        ),
        st.sampled_from([1, 2, LOOKS, HOUR, HOUR + 1, 3 * HOUR]),
    ),
    st.builds(
        Step,
        st.sampled_from(["pause", "clock"]),
        seconds=st.sampled_from([1.0, REGULAR, 2 * REGULAR, KEEP, 30 * 24 * KEEP]),
    ),
    st.builds(Step, st.just("clock"), seconds=st.sampled_from([-REGULAR, -KEEP, -30 * 24 * KEEP])),
    st.builds(Step, st.sampled_from(["restart", "group"])),
)


# Two hosts and long runs; more hosts than places and short runs; all of it.
_long = st.builds(
    Step, st.just("look"), st.sampled_from([A, B, ()]), st.sampled_from([1, LOOKS, HOUR - 1, HOUR])
)
_short = st.builds(
    Step, st.just("look"), st.sampled_from([(host,) for host in _hosts]), st.sampled_from([1, 2])
)
_sequences = st.one_of(
    st.lists(_long, min_size=3, max_size=8),
    st.lists(_short, min_size=MAX_FOUND, max_size=30),
    st.lists(_steps, min_size=3, max_size=25),
)


class Checked(Looks):
    """Checks the documented rule after each look, by the evidence against each name that it keeps itself."""

    def __init__(self) -> None:
        super().__init__()
        # Times of the conclusive looks without the name since it was last named.
        self.against: dict[str, list[float]] = {}
        self.named: Counter[str] = Counter()
        self.observed: list[int] = []

    def take(self, step: Step) -> None:
        match step.kind:
            case "pause":
                self.pause(step.seconds)
            case "clock":
                self.wall += step.seconds
            case "restart":
                self.restart()
                self.against = {}
                # A name that a snapshot lists is as good as one that two looks have named.
                self.named = Counter(dict.fromkeys(self.names or (), 2))
            case "group":
                self.findings.restore(self.findings.found())
            case _:
                for _ in range(step.times):
                    self.check(step.outcome)

    def check(self, outcome: Outcome) -> None:
        before, now, wall = self.names, self.now, self.wall
        self.look(outcome)
        if isinstance(outcome, tuple):
            self.observed = [int(wall)]
            self.conclude(set(outcome), set(before or ()), now)
        else:
            # Only a role of which nothing was known can become one without names.
            assert self.names == before or (before, self.names) == (None, ())
        times = [entry.observed_at for entry in self.findings.found()]
        assert times in ([], self.observed or [0])

    def conclude(self, named: set[str], before: set[str], now: float) -> None:
        for name in before | named:
            self.against[name] = [] if name in named else [*self.against.get(name, []), now]
        self.named.update(named)
        after = set(self.names or ())
        gone, refused = before - after, named - after
        disproved = {name for name in before if self.is_disproved(name)}
        assert disproved <= gone
        # What makes room for another name is one that a single look has named.
        replaced = gone - disproved
        assert len(replaced) <= 1
        assert all(self.named[name] == 1 and len(before) == MAX_FOUND for name in replaced)
        # A host that is named is known, unless names of several looks have all the places.
        assert not refused or all(self.named[name] > 1 for name in after)
        assert bool(refused) == (self.findings.failing.get(("hz", "auth")) is Doubt.TOO_MANY)
        assert after <= before | named
        assert len(after) <= MAX_FOUND
        for name in gone | refused:
            del self.against[name], self.named[name]

    def is_disproved(self, name: str) -> bool:
        at = self.against[name]
        gaps = [later - earlier for earlier, later in pairwise(at)]
        return len(at) >= LOOKS and sum(gap for gap in gaps if gap <= 2 * REGULAR) >= KEEP


@settings(max_examples=500)
@given(_sequences)
@example([Step("look", A), Step("pause", seconds=KEEP), Step("look", BASIC, HOUR + 1)])
@example([Step("look", A), Step("pause", seconds=KEEP), Step("look", B)])
@example([Step("look", A), Step("look", B, HOUR), Step("restart"), Step("look", B, HOUR + 1)])
@example([Step("look", (host,), 2) for host in _hosts])
@example([Step("look", (host,)) for host in _hosts])
def test_a_known_name_goes_only_by_repeated_evidence(steps: list[Step]) -> None:
    checked = Checked()
    for step in steps:
        checked.take(step)


# --- what is logged


def test_each_change_is_logged_once(looks: Looks) -> None:
    steps: list[Outcome] = [
        failure(),
        failure(),
        failure(Doubt.FOREIGN),
        A,
        A,
        failure(),
        A,
        B,
    ]
    with capture_logs() as logs:
        for outcome in steps:
            looks.look(outcome)
    assert [(entry["event"], entry.get("reason"), entry.get("names")) for entry in logs] == [
        ("helper.discover_failed", "timeout", None),
        ("helper.discover_failed", "foreign", None),
        ("helper.discovered", None, ["a.example."]),
        ("helper.discover_failed", "timeout", None),
        ("helper.discovered", None, ["a.example."]),
        ("helper.discovered", None, ["a.example.", "b.example."]),
    ]
    assert logs[3]["kept"] == ["a.example."]


def test_an_inconclusive_response_is_logged_once_not_in_each_look(looks: Looks) -> None:
    looks.look(A)
    with capture_logs() as logs:
        looks.look(BASIC, 10 * HOUR)
        for _ in range(10 * HOUR):
            looks.look(A)
            looks.look(BASIC)
    assert logs == [
        {
            "event": "helper.discover_inconclusive",
            "log_level": "warning",
            "registry": "hz",
            "role": "auth",
            "reason": "no_bearer",
            "detail": BASIC.detail,
            "kept": ["a.example."],
        }
    ]
    # Another case of it is logged again.
    looks.look(A, HOUR + 1)
    with capture_logs() as logs:
        looks.look(SERVED, 3)
    assert [entry["reason"] for entry in logs] == ["no_redirect"]


def test_an_inconclusive_response_ends_a_failure(looks: Looks) -> None:
    looks.look(failure())
    looks.look(BASIC)
    assert looks.findings.failing == {}


def test_a_password_that_others_can_read_is_logged_once() -> None:
    findings = Findings(2 * REGULAR)
    with capture_logs() as logs:
        for exposed in (True, True, False, True):
            findings.record("hz", Report({"auth": ()}, exposed=exposed), 0.0, WALL)
    assert [e["event"] for e in logs].count("helper.credentials_exposed") == 2


# --- when it asks


@pytest.mark.parametrize(
    ("failures", "rounds"), [(0, ROUNDS), (1, 1), (2, 2), (3, 4), (4, 8), (5, ROUNDS), (10_000, ROUNDS)]
)
def test_it_asks_in_every_tenth_round_and_sooner_after_a_failure(failures: int, rounds: int) -> None:
    async def ask(_target: Target) -> Report:
        return Report()

    assert Seeker([TARGET], ask, interval=30).delay(failures) == 30 * rounds


async def test_other_names_are_told_at_once_and_the_same_ones_not() -> None:
    reports = [auth("a.example."), auth("a.example."), Report({"auth": failure()}), auth("b.example.")]
    done = asyncio.Event()

    async def ask(_target: Target) -> Report:
        if reports:
            return reports.pop(0)
        done.set()
        return await asyncio.Future[Report]()

    seeker = Seeker([TARGET], ask, interval=0, wall=lambda: WALL)
    told: list[dict[str, tuple[str, ...]]] = []
    task = asyncio.create_task(seeker.run(lambda: told.append(known(seeker.findings))))
    async with asyncio.timeout(20):
        await done.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert told == [{"auth": ("a.example.",)}, {"auth": ("a.example.", "b.example.")}]


async def test_a_registry_that_hangs_does_not_hold_the_others_up() -> None:
    other = Target("sh", "other.example.", frozenset({"auth"}), DiscoverSettings())

    async def ask(target: Target) -> Report:
        return auth("b.example.") if target is other else await asyncio.Future[Report]()

    seeker = Seeker([TARGET, other], ask, interval=30)
    changed = asyncio.Event()
    task = asyncio.create_task(seeker.run(changed.set))
    async with asyncio.timeout(20):
        await changed.wait()
    assert [found.registry for found in seeker.findings.found()] == ["sh"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_an_internal_error_ends_nothing() -> None:
    async def ask(_target: Target) -> Report:
        raise ZeroDivisionError

    seeker = Seeker([TARGET], ask, interval=30)
    with capture_logs() as logs:
        assert not await seeker.ask_once(TARGET)
    assert [entry["event"] for entry in logs] == ["helper.discover_crashed"]


async def test_it_asks_again_soon_while_it_does_not_know_whether_a_role_has_a_name() -> None:
    async def ask(_target: Target) -> Report:
        return Report({"auth": BASIC, "storage": SERVED})

    seeker = Seeker([TARGET], ask, interval=30, wall=lambda: WALL)
    assert [await seeker.ask_once(TARGET) for _ in range(LOOKS + 1)] == [False] * (LOOKS - 1) + [True] * 2


async def test_one_role_that_failed_is_a_failure() -> None:
    async def ask(_target: Target) -> Report:
        return Report({"auth": ("a.example.",), "storage": failure()})

    seeker = Seeker([TARGET], ask, interval=30, wall=lambda: WALL)
    assert not await seeker.ask_once(TARGET)
    assert known(seeker.findings) == {"auth": ("a.example.",)}
