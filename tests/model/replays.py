"""Sequences in tests/model/seeds/: each failure ever found, and the required ones."""

from __future__ import annotations

import json
from pathlib import Path

from tests.model.sequences import Story
from tests.model.shrink import as_json
from tests.model.world import configuration_of

FOLDER = Path(__file__).with_name("seeds")


def files() -> list[Path]:
    """Those for the state machine; `process-*.json` are for real processes."""
    return sorted(path for path in FOLDER.glob("*.json") if not path.name.startswith("process-"))


def load(path: Path) -> Story:
    data = json.loads(path.read_text(encoding="utf-8"))
    return Story(configuration_of(data["configuration"]), data["events"])


def save(story: Story, note: str, path: Path) -> None:
    """One event a line, so that a difference of two files can be read."""
    data = as_json(story, note)
    events = ",\n".join("    " + json.dumps(event) for event in data["events"])
    text = f'{{\n  "note": {json.dumps(note)},\n  "configuration": {json.dumps(data["configuration"])},\n'
    path.write_text(f'{text}  "events": [\n{events}\n  ]\n}}\n', encoding="utf-8")
