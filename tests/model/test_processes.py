"""Real proxies do what the reference model says: random sequences, and those that failed once.

50 sequences here, 1,000 in `make histories`. `tests/model/processes.py` says how.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.model.agreement import wrong_reply
from tests.model.child import STEPS
from tests.model.process_run import Outcome, run_in_namespace
from tests.model.process_stories import from_json, load, make_process_story, save, to_json
from tests.model.proxy import Reply
from tests.model.reference import NOT_READY, Answer
from tests.model.replays import FOLDER
from tests.needs import give_up, need_programs
from tests.netns import spaces

UNTESTED = "NOT TESTED WITH REAL PROCESSES"
SEQUENCES = 50
# Those that failed on processes, and the required ones.
REPLAYS = sorted(
    path for kind in ("process", "required", "defined") for path in FOLDER.glob(f"{kind}-*.json")
)

netns = [pytest.mark.netns, pytest.mark.timeout(900), pytest.mark.xdist_group("model processes")]


def run(*arguments: str) -> Outcome:
    need_programs(UNTESTED, "ip")
    refusal = spaces.refusal()
    if refusal is not None:
        give_up(f"{UNTESTED}, no network namespaces here ({refusal}); run as root with CAP_SYS_ADMIN")
    return run_in_namespace(arguments)


def judge(outcome: Outcome) -> None:
    if outcome.failures:
        pytest.fail("\n".join(json.dumps(failure) for failure in outcome.failures))


class TestProcesses:
    pytestmark = netns

    def test_random_sequences(self) -> None:
        outcome = run("--sequences", str(SEQUENCES), "--seed", "test")
        assert outcome.sequences == SEQUENCES
        assert sum(outcome.kills[step] for step in STEPS if step in outcome.kills) >= 10
        judge(outcome)

    def test_sequences_that_failed_once(self) -> None:
        outcome = run("--replay", *map(str, REPLAYS))
        assert outcome.sequences == len(REPLAYS)
        judge(outcome)

    def test_a_proxy_that_differs_is_found(self, tmp_path: Path) -> None:
        """The models do not learn of two commands: an answer differs, or only what is told of the state."""
        story = make_process_story("differs")
        listed = {"plain.example": {"addresses": ["10.0.0.1"]}}
        snapshot = {"do": "snapshot", "helper": "helper-1", "names": listed}
        pin = {"name": "plain.example.", "addresses": ["10.66.0.99"]}
        for path, body in (("pin", pin), ("freeze", {})):
            story.events = [snapshot, {"do": "unknown", "path": path, "body": body}]
            save(story, "", tmp_path / f"{path}.json")
        outcome = run("--replay", *map(str, sorted(tmp_path.iterdir())), "--patience", "3")
        notes = {failure["seed"]: failure["note"] for failure in outcome.failures}
        assert (
            "DNS plain.example A: Reply(rcode='NOERROR', addresses=frozenset({'10.66.0.99'})" in notes["pin"]
        )
        assert "status, frozen: expected None, got 1" in notes["freeze"]


def test_a_sequence_survives_its_file(tmp_path: Path) -> None:
    story = make_process_story("any")
    save(story, "a note", tmp_path / "story.json")
    assert load(tmp_path / "story.json") == story == from_json(to_json(story, ""))


def test_sequences_have_every_kind_of_event_source_and_step() -> None:
    stories = [make_process_story(f"{number}") for number in range(200)]
    events = [event for story in stories for event in story.events]
    assert {story.workers for story in stories} == {1, 2}
    assert {story.kinds[0] for story in stories} == {"file", "http", "etcd"}
    assert {event["step"] for event in events if event["do"] == "kill_at_write"} == set(STEPS)
    kinds = {event["do"] for event in events}
    assert kinds >= {
        "snapshot",
        "reach",
        "time",
        "clock",
        "restart",
        "reload",
        "kill",
        "pin",
        "freeze",
        "rollback",
    }


def reply(*addresses: str, rcode: str = "NOERROR") -> Reply:
    return Reply(rcode, frozenset(addresses), None, None)


def test_answers_while_the_state_changes() -> None:
    one, two = "10.0.0.1", "10.0.0.2"
    allowed: set[Answer | str] = {Answer(frozenset({one}), None, stale=False)}
    both: set[Answer | str] = {Answer(frozenset({one, two}), None, stale=False)}
    reachable = frozenset({one})

    def wrong(given: Reply, answers: set[Answer | str], kind: str = "A") -> bool:
        return wrong_reply("plain.example", kind, given, answers, reachable) is not None

    assert not wrong(reply(one), allowed)
    assert not wrong(reply(one), both)
    assert wrong(reply(two), allowed)
    assert wrong(reply(two), both), "a dead member alone, while another one is reachable"
    assert wrong(reply(), allowed)
    assert not wrong(reply(), allowed, "AAAA")
    assert wrong(reply(rcode="SERVFAIL"), allowed)
    assert not wrong(reply(rcode="SERVFAIL"), {NOT_READY})
