"""The sequences as a state machine of Hypothesis, which draws other ones than a seed does.

Hypothesis takes minutes to shrink them; tests.model.shrink takes a second.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.model.sequences import (
    ALWAYS,
    SOMETIMES,
    TRIALS,
    WEIGHTS,
    DrawnChoice,
    Features,
    Story,
    make_configuration,
    make_event,
    make_features,
)
from tests.model.world import Configuration, Event, MakeSubject, World


@st.composite
def beginnings(draw: Any) -> tuple[Configuration, Features]:
    choice = DrawnChoice(draw)
    configuration = make_configuration(choice)
    return configuration, make_features(choice, configuration)


class _Machine(RuleBasedStateMachine):
    make_subject: MakeSubject
    failed: Story | None = None

    @initialize(beginning=beginnings())
    def begin(self, beginning: tuple[Configuration, Features]) -> None:
        self.configuration, self.features = beginning
        self.events: list[Event] = []
        self.world = World(self.configuration, type(self).make_subject)


def _rule(kind: str) -> Any:
    """The rule that draws and applies an event of one kind, in runs that enable it."""

    def apply(self: _Machine, data: st.DataObject) -> None:
        self.events.append(make_event(kind, DrawnChoice(data.draw), self.features))
        try:
            self.world.apply(self.events[-1])
        except Exception:  # also one of the subject
            type(self).failed = Story(self.configuration, self.events)
            raise

    apply.__name__ = kind
    enabled = precondition(lambda self: kind in self.features.kinds)
    return rule(data=st.data())(enabled(apply))


def first_failure(make: MakeSubject, sequences: int) -> Story | None:
    """Run the machine; the sequence in which the subject differs from the model."""
    kinds = (*ALWAYS, *SOMETIMES, *TRIALS)
    rules = {f"{kind}_{n}": _rule(kind) for kind in kinds for n in range(WEIGHTS.get(kind, 1))}
    members = rules | {"make_subject": staticmethod(make)}
    machine: type[_Machine] = type("LifecycleMachine", (_Machine,), members)
    chosen = settings(
        max_examples=sequences,
        stateful_step_count=25,
        phases=[Phase.generate],
        deadline=None,
        database=None,  # tests/model/seeds/ keeps what failed
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(machine, settings=chosen)
    except Exception:
        if machine.failed is None:
            raise
    return machine.failed
