"""What is installed: files that a lock has hashes of, and nothing of PyPI by the name of this project."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from dnsproxy.settings.logging import DNSTAP_PACKAGES
from dnsproxy.transport.extras import PACKAGES
from tests.deploy.files import DEPLOY
from tests.e2e.processes import ROOT

DOCKERFILE = DEPLOY / "docker" / "Dockerfile"
LOCKS = sorted(ROOT.glob("requirements*.lock"))
# A version of one package, and below it the hashes of its files; comments say who asks for it.
_PINNED = re.compile(
    r"^(?P<name>[a-z0-9][a-z0-9._-]*)==[^\s;]+( ; [^\\\n]+)?( \\\n    --hash=sha256:[0-9a-f]{64})+$",
    re.MULTILINE,
)


# -- the image ---------------------------------------------------------------------------


def commands(text: str) -> list[str]:
    """Each command of the RUN instructions in a Dockerfile."""
    joined = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    runs = [line.partition(" ")[2] for line in joined.splitlines() if line.startswith("RUN ")]
    return [command.strip() for run in runs for command in re.split(r"&&|\|\||;(?! print)|\|", run)]


def wrong_installs(text: str) -> list[str]:
    """Commands that could put into the image what no hash of a lock names."""
    wrong = []
    for command in commands(text):
        words = command.split()
        is_pip = re.search(r"\bpip3?\b.*\b(install|wheel|download)\b", command) is not None
        has_no_index = "--no-index" in words and "--no-deps" in words
        is_locked = {"--require-hashes", "--only-binary", ":all:", "--requirement"} <= set(
            words
        ) and re.search(r'--requirement ("\$\{LOCK\}"|requirements[a-z-]*\.lock)', command) is not None
        if is_pip and not (has_no_index or is_locked):
            wrong.append(command)
        if re.search(r"\b(curl|wget|git|npm|uv|pipx|easy_install)\b|setup\.py", command):
            wrong.append(command)
    return wrong


def test_the_image_installs_only_what_a_hash_names() -> None:
    text = DOCKERFILE.read_text()
    assert wrong_installs(text) == []
    assert sum("--require-hashes" in command for command in commands(text)) == 2, "program, and its compilers"
    assert re.search(r"^ADD ", text, re.MULTILINE) is None
    (default,) = re.findall(r"^ARG LOCK=(\S+)$", text, re.MULTILINE)
    named = {default, *re.findall(r"[a-z-]+\.lock", text)}
    assert named == {"requirements.lock", "requirements-extras.lock", "requirements-build.lock"}
    assert all((ROOT / name).exists() for name in named)


@pytest.mark.parametrize(
    "command",
    [
        "/opt/dnsproxy/bin/python -m pip install .",
        '/opt/dnsproxy/bin/python -m pip install ".${EXTRAS}"',
        "python -m pip install mypy cython",
        "pip install --require-hashes --requirement requirements.lock",
        "pip install --require-hashes --only-binary :all: --requirement other.txt",
        "true && pip wheel --no-index .",
        "pip wheel --no-build-isolation --no-deps .",
        "curl -O https://example.com/x.whl",
    ],
)
def test_such_commands_would_be_found(command: str) -> None:
    assert wrong_installs(f"FROM x\nRUN {command}\n") != []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_each_lock_has_a_hash_for_every_package(lock: Path) -> None:
    text = lock.read_text()
    names = [match["name"] for match in _PINNED.finditer(text)]
    assert names
    assert len(names) == len(re.findall(r"^[^#\s]", text, re.MULTILINE)), "each is pinned, with hashes"
    assert "dnsproxy" not in names


def test_a_lock_without_hashes_would_be_found() -> None:
    assert not _PINNED.search("aiohttp==3.14.5\n    # via dnsproxy (pyproject.toml)\n")
    assert not _PINNED.search("aiohttp>=3.14.5 \\\n    --hash=sha256:" + "0" * 64 + "\n")


def test_what_compiles_the_image_is_what_the_build_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = (ROOT / "requirements-build.in").read_text().splitlines()
    listed = {Requirement(line).name.lower(): line for line in asked if not line.startswith("#")}
    locked = {match["name"] for match in _PINNED.finditer((ROOT / "requirements-build.lock").read_text())}
    assert set(listed) <= locked
    assert set(project["build-system"]["requires"]) <= set(listed.values())
    imported = re.findall(r"^    from (\w+)", (ROOT / "setup.py").read_text(), re.MULTILINE)
    assert sorted(imported) == ["Cython", "mypyc"]
    assert {"cython", "mypy"} <= locked


def test_the_same_versions_are_in_the_image_with_and_without_extras() -> None:
    plain, extras = ((ROOT / f"requirements{end}.lock").read_text() for end in ("", "-extras"))
    pins = {match[0] for match in _PINNED.finditer(plain)}
    assert pins <= {match[0] for match in _PINNED.finditer(extras)}


# -- by which name -----------------------------------------------------------------------

# What installs, and the end of what belongs to it.
_INSTALLS = re.compile(
    r"\b(?:pip3?|pipx|uv|uvx|poetry|pdm|conda|mamba|easy_install)\b[^\n&|;`]*?\b(?:install|add|run|wheel|download)\b"
    r"([^\n&|;`]*)"
)
_OURS = re.compile(r"dnsproxy(\[[^\]]*\])?([=<>~!].*)?")
# What pip takes for a requirement of that name in a file of them, or a list of packages.
_LISTED = re.compile(
    r"^\s*-?\s*[\"']?dnsproxy(\[[^\]]*\])?\s*([=<>~!]=?[^@]*)?[\"']?,?\s*(#.*)?$", re.MULTILINE
)
# path → why it may name an extra of this project.
SELF_REFERENCES = {"pyproject.toml": "extras that consist of others: pip takes them from the project itself"}


def texts() -> dict[str, str]:
    """Every text of the repository, or of an unpacked release, by path."""
    if (ROOT / ".git").exists():
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
    else:
        listed = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file()]
        listed = [name for name in listed if not name.startswith((".", "build/", "dist/"))]
    found = {}
    for name in listed:
        try:
            found[name] = (ROOT / name).read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
            continue
    return found


def installs_by_name(text: str) -> list[str]:
    """What in ``text`` would install the package of PyPI that has the name of this project."""
    joined = text.replace("\\\n", " ")
    found = []
    for match in _INSTALLS.finditer(joined):
        # What is left of the line: quotes need not be in pairs there.
        words = re.sub(r"[\"'()]|,(?=\s|$)", " ", match[1]).split()
        for index, word in enumerate(words):
            is_url = words[index + 1 : index + 2] == ["@"]
            if _OURS.fullmatch(word.rstrip(".:")) and not is_url:
                found.append(match[0].strip())
    return found


def test_nothing_installs_the_package_of_pypi_that_has_our_name() -> None:
    here = Path(__file__).relative_to(ROOT).as_posix()
    wrong = []
    for name, text in texts().items():
        if name == here:
            continue
        wrong += [f"{name}: {found}" for found in installs_by_name(text)]
        if name not in SELF_REFERENCES and name != "CHANGELOG.md":
            wrong += [f"{name}: {match[0]}" for match in re.finditer(r"\bdnsproxy\[[a-z0-9,]+\]", text)]
        is_list = re.search(r"requirements[^/]*\.(txt|in|lock)$|(^|/)constraints[^/]*\.txt$", name)
        if is_list or name.endswith((".tf", ".yaml", ".yml", ".toml", ".cfg")):
            # YAML: a list of packages as in cloud-init, an entry of pip in conda or Ansible.
            listed = _LISTED.finditer(text) if is_list else _packages(text)
            wrong += [f"{name}: {match[0].strip()}" for match in listed]
    assert wrong == []


def _packages(text: str) -> list[re.Match[str]]:
    """The entries of lists under keys such as ``packages`` or ``pip``."""
    blocks = re.findall(
        r"^([ \t]*)(?:packages|pip|dependencies)\b[ \t]*[:=].*\n((?:\1[ \t]+.*\n|\1-.*\n)*)",
        text,
        re.MULTILINE,
    )
    return [match for _, block in blocks for match in _LISTED.finditer(block)]


@pytest.mark.parametrize(
    "text",
    [
        "pip install dnsproxy",
        "pip install 'dnsproxy[s3]'",
        'pip install "dnsproxy[s3,kubernetes]==1.0"',
        "run: pip install --upgrade dnsproxy.",
        "python3 -m pip install \\\n    --quiet \\\n    dnsproxy",
        "pipx install dnsproxy",
        "uv tool install dnsproxy",
        "uv pip install dnsproxy>=1",
        "raise StartError(\"needs an extra: pip install 'dnsproxy[s3]'\")",
        "`pip install dnsproxy`,",
    ],
)
def test_such_installs_would_be_found(text: str) -> None:
    assert installs_by_name(text) != []


@pytest.mark.parametrize(
    "text",
    [
        "pip install .",
        "pip install '.[s3]'",
        "/opt/dnsproxy/bin/python -m pip install --require-hashes --requirement requirements.lock",
        "pip install --no-deps dist/dnsproxy-0.1.0-py3-none-any.whl",
        "pip install 'dnsproxy @ https://bucket.example/dnsproxy-1-py3-none-any.whl#sha256=00'",
        "pip install obstore; dnsproxy serve",
    ],
)
def test_other_installs_are_not(text: str) -> None:
    assert installs_by_name(text) == []


def test_lists_of_packages_are_read() -> None:
    for text in (
        "packages:\n  - curl\n  - dnsproxy\n",
        "  pip:\n  - dnsproxy==1.0\n",
        'packages:\n  - "dnsproxy[s3]"\n',
    ):
        assert len(_packages(text)) == 1
    for text in (
        "packages:\n  - curl\n",
        "command: [dnsproxy]\n",
        "  packages:\n    - dnsproxy @ https://b.example/x.whl\n",
    ):
        assert _packages(text) == []


def test_what_the_program_says_to_install_are_its_extras() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {kind: [package] for kind, package in PACKAGES.items()} == {
        kind: extras[kind] for kind in PACKAGES
    }
    assert shlex.split(DNSTAP_PACKAGES) == extras["dnstap"]
