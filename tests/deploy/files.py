"""The files of deploy/, and how the tests here read them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

from dnsproxy.config import load
from dnsproxy.settings import Settings
from tests.e2e.processes import ROOT, environment

DEPLOY = ROOT / "deploy"

Object = dict[str, Any]


def run(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a tool to its end; the exit code is for the caller to judge."""
    return subprocess.run(
        [str(word) for word in argv],
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
    )


def output(*argv: str | Path) -> str:
    """Return what a tool prints; it must succeed."""
    done = run(*argv)
    assert done.returncode == 0, f"{argv}:\n{done.stdout}{done.stderr}"
    return done.stdout


def documents(text: str) -> list[Object]:
    return [document for document in yaml.safe_load_all(text) if document]


def checked(text: str, folder: Path) -> Settings:
    """What `dnsproxy check` makes of a configuration; mistakes fail the test with their lines."""
    path = folder / "config.yaml"
    path.write_text(text)
    return load(path)
