"""What is handed out: lock files that fit, packages that install and run, a release that looks first."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dnsproxy.version import __version__
from tests.e2e.processes import ROOT, environment

pytestmark = pytest.mark.e2e

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def asked_for(extra: str) -> list[Requirement]:
    """What an extra asks for, also through another extra of this project."""
    found = []
    for requirement in map(Requirement, EXTRAS[extra]):
        inner = requirement.extras if requirement.name == PROJECT["name"] else ()
        found += [entry for name in inner for entry in asked_for(name)] if inner else [requirement]
    return found


ALWAYS = [Requirement(text) for text in PROJECT["dependencies"]]
LOCKS = {
    "requirements.lock": ALWAYS,
    "requirements-extras.lock": [*ALWAYS, *asked_for("s3"), *asked_for("kubernetes"), *asked_for("dnstap")],
    "requirements-build.lock": [
        Requirement(line)
        for line in (ROOT / "requirements-build.in").read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    ],
    "requirements-dev.lock": [*ALWAYS, *asked_for("dev"), *asked_for("docs"), *asked_for("release")],
}
_PIN = re.compile(
    r"^([A-Za-z0-9._-]+)==([^\s;]+)(?: ; [^\\]+)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)",
    re.MULTILINE,
)


# -- lock files ----------------------------------------------------------------------


@pytest.mark.parametrize("name", LOCKS)
def test_lock_holds_what_is_asked_for(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    pinned: dict[str, list[str]] = {}
    for package, version, _ in _PIN.findall(text):
        pinned.setdefault(canonicalize_name(package), []).append(version)
    behind = [
        str(wanted)
        for wanted in LOCKS[name]
        if wanted.marker is None or wanted.marker.evaluate()
        if not any(wanted.specifier.contains(held) for held in pinned.get(canonicalize_name(wanted.name), []))
    ]
    assert behind == [], "run: make lock"


@pytest.mark.parametrize("name", LOCKS)
def test_lock_has_nothing_but_pins_with_hashes(name: str) -> None:
    """No index, no path, no address: they would be those of the machine that it was made on."""
    text = (ROOT / name).read_text(encoding="utf-8")
    left = [
        line for line in _PIN.sub("", text).splitlines() if line.strip() and not line.lstrip().startswith("#")
    ]
    assert left == []
    assert [line for line in text.splitlines() if "://" in line or "--index" in line] == []


# -- packages ------------------------------------------------------------------------


# Needs the package index, which is slow at times.
@pytest.mark.timeout(330)
def test_dist_builds_installs_and_runs(tmp_path: Path) -> None:
    """One test, as the build takes long. The script itself tries the wheel in a clean environment."""
    done = subprocess.run(
        [ROOT / "scripts" / "dist.sh", tmp_path],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=environment(),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "config.example.yaml: ok, " in done.stderr
    base = f"dnsproxy-{__version__}"
    source, wheel, bill = (tmp_path / f"{base}{end}" for end in (".tar.gz", "-py3-none-any.whl", ".cdx.json"))
    sums = {f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in (source, wheel, bill)}
    assert set((tmp_path / "SHA256SUMS").read_text().splitlines()) == sums
    assert len(list(tmp_path.iterdir())) == 4
    tracked = tracked_files()
    check_source(source, tracked)
    check_wheel(wheel, base, tracked)
    check_bill(json.loads(bill.read_text()))


def tracked_files() -> set[str]:
    """Everything that is in the repository; nothing where this is an unpacked release."""
    if not (ROOT / ".git").exists():
        return set()
    return set(git(ROOT, "ls-files").splitlines())


def check_source(file: Path, tracked: set[str]) -> None:
    """Everything but what only those need who work on the repository."""
    with tarfile.open(file) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    without = {".ci", ".editorconfig", ".gitignore", ".dockerignore"}
    wanted = {path for path in tracked if path.partition("/")[0] not in without}
    assert sorted(wanted - held) == [], "add them to MANIFEST.in"
    assert not [name for name in held if "__pycache__" in name or name.endswith(".so")]


def check_wheel(file: Path, base: str, tracked: set[str]) -> None:
    with zipfile.ZipFile(file) as archive:
        held = set(archive.namelist())
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "dnsproxy").rglob("*.py")}
    files = {path for path in tracked if path.startswith("dnsproxy/")}
    assert sorted((modules | files) - held) == [], "other files than modules: package-data in pyproject.toml"
    assert {name.partition("/")[0] for name in held} == {"dnsproxy", f"{base}.data", f"{base}.dist-info"}


def check_bill(bill: dict[str, Any]) -> None:
    """It lists what the lock pins, and all that the program asks for."""
    program = bill["metadata"]["component"]
    assert (bill["bomFormat"], program["name"], program["version"]) == ("CycloneDX", "dnsproxy", __version__)
    pins = {
        (canonicalize_name(package), version)
        for package, version, _ in _PIN.findall((ROOT / "requirements.lock").read_text())
    }
    listed = {(canonicalize_name(part["name"]), part["version"]) for part in bill["components"]}
    assert listed - pins == set()
    asked = {canonicalize_name(wanted.name) for wanted in ALWAYS}
    assert asked - {name for name, _ in listed} == set()


# -- release -------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with the script, a version, a changelog, and a ``dist.sh`` that only says that it ran."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "dnsproxy").mkdir()
    shutil.copy(ROOT / "scripts" / "release.sh", tmp_path / "scripts")
    dist = tmp_path / "scripts" / "dist.sh"
    dist.write_text("#!/bin/sh\necho built\n")
    dist.chmod(0o755)
    (tmp_path / "dnsproxy" / "version.py").write_text('__version__ = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text("## [1.2.3] - 2026-01-02\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message", "Start")
    return tmp_path


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=Tester", "-c", "user.email=tester@example.invalid"]
    done = subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def release(folder: Path) -> subprocess.CompletedProcess[str]:
    who = {"GIT_COMMITTER_NAME": "Tester", "GIT_COMMITTER_EMAIL": "tester@example.invalid"}
    return subprocess.run(
        [folder / "scripts" / "release.sh"],
        capture_output=True,
        text=True,
        check=False,
        env=environment() | who,
    )


def test_release_builds_and_tags(repository: Path) -> None:
    done = release(repository)
    assert (done.returncode, done.stdout) == (0, "built\n"), done.stderr
    assert git(repository, "tag", "--list") == "v1.2.3\n"
    again = release(repository)
    assert (again.returncode, again.stdout) == (1, "")
    assert "v1.2.3 is there already" in again.stderr


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        ("dnsproxy/version.py", '__version__ = "1.2.3.dev0"\n', "no version to release"),
        ("dnsproxy/version.py", '__version__ = "1.2.4"\n', "no section '## [1.2.4]"),
        ("CHANGELOG.md", "## [Unreleased]\n", "no section '## [1.2.3]"),
        ("CHANGELOG.md", "## [1x2x3] - 2026-01-02\n", "no section '## [1.2.3]"),
    ],
)
def test_release_refuses_what_is_not_fit(repository: Path, file: str, text: str, complaint: str) -> None:
    (repository / file).write_text(text)
    git(repository, "commit", "--quiet", "--all", "--message", "Change")
    done = release(repository)
    assert (done.returncode, done.stdout) == (1, "")
    assert complaint in done.stderr
    assert git(repository, "tag", "--list") == ""


def test_release_refuses_uncommitted_changes(repository: Path) -> None:
    (repository / "new").write_text("")
    done = release(repository)
    assert (done.returncode, done.stdout) == (1, "")
    assert "not committed" in done.stderr
