"""Sequences that failed once, and those of the documentation's purpose, agree with the model."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.model.replays import files, load, save
from tests.model.shrink import failure
from tests.model.subject import SUBJECT


def test_there_are_sequences() -> None:
    assert files()


@pytest.mark.parametrize("path", files(), ids=lambda path: path.stem)
def test_a_sequence_that_failed_once(path: Path) -> None:
    assert failure(load(path), SUBJECT) is None


def test_a_sequence_survives_its_file(tmp_path: Path) -> None:
    for path in files():
        story = load(path)
        save(story, "a note", tmp_path / "copy.json")
        assert load(tmp_path / "copy.json") == story
