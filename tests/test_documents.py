"""What README.md and docs/ show is true: commands parse, configurations load, links lead somewhere."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import typer
import yaml

import dnsproxy.cli
from dnsproxy import config
from dnsproxy.settings import Settings

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "deploy/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
_FENCE = re.compile(r"^([ ]*)```([a-z]*)[^\n]*\n(.*?)^[ ]*```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[[^\]\[]+\]\(([^)\s]+)\)|!\[[^\]\[]*\]\(([^)\s]+)\)")


class Block(NamedTuple):
    """A fenced block; ``place`` is the file and the line of its first line."""

    place: str
    language: str
    text: str


def blocks(*languages: str) -> Iterator[Block]:
    for path in DOCUMENTS:
        document = path.read_text(encoding="utf-8")
        for match in _FENCE.finditer(document):
            if match[2] in languages:
                line = document.count("\n", 0, match.start(3)) + 1
                indent = len(match[1])
                text = "".join(row[indent:] for row in match[3].splitlines(keepends=True))
                yield Block(f"{path.relative_to(ROOT)}:{line}", match[2], text)


def ids(value: Block | list[str]) -> str:
    return value.place if isinstance(value, Block) else " ".join(value)


def commands(*programs: str) -> list[list[str]]:
    """Each command of the ``sh`` blocks that starts with one of ``programs``, or with ``sudo`` and one."""
    found = {}
    for block in blocks("sh"):
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            words = words[1:] if words[:1] == ["sudo"] else words
            if words[:1] in (["kubectl"], ["docker"]):
                words = inside(words)
            if words and Path(words[0]).name in programs:
                found[" ".join(words)] = words
    return list(found.values())


def inside(words: list[str]) -> list[str]:
    """What ``kubectl exec POD -- COMMAND`` or ``docker compose exec SERVICE COMMAND`` runs in there."""
    if words[:3] == ["docker", "compose", "exec"]:
        return words[4:]
    return words[words.index("--") + 1 :] if "--" in words else []


# --- commands


def test_there_are_commands() -> None:
    assert len(commands("dnsproxy")) > 20
    assert len(commands("make")) > 3


@pytest.mark.parametrize("words", commands("dnsproxy"), ids=ids)
def test_a_command_parses(words: list[str]) -> None:
    command = typer.main.get_command(dnsproxy.cli.app)
    # What is behind it in a pipe or redirection is another program's.
    end = next((at for at, word in enumerate(words) if word[:1] in {"|", ">", "<", "&"}), len(words))
    words = words[:end]
    if words[1:] in (["--version"], ["--show-completion"]):
        return
    with command.make_context("dnsproxy", words[1:]) as context:
        if not hasattr(command, "resolve_command"):
            pytest.fail("the program has no sub-commands")
        name, sub_command, rest = command.resolve_command(context, words[1:])
        # Parses options and arguments, and runs nothing.
        with sub_command.make_context(name, rest, parent=context):
            pass


def test_a_wrong_command_would_be_noticed() -> None:
    for words in (["dnsproxy", "no-such-command"], ["dnsproxy", "check", "--no-such-option"]):
        with pytest.raises(Exception, match=r"[Nn]o such"):
            test_a_command_parses(words)


@pytest.mark.parametrize("words", commands("make"), ids=ids)
def test_a_make_target_exists(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z0-9]+):.*##", makefile, re.MULTILINE))
    assert {word for word in words[1:] if "=" not in word} <= targets


@pytest.mark.parametrize("block", list(blocks("sh", "bash")), ids=ids)
def test_a_shell_block_is_shell(block: Block) -> None:
    done = subprocess.run(["bash", "-n"], input=block.text, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


# --- configurations


def configurations() -> Iterator[Block]:
    """Blocks that are a configuration, or hold one as an entry of a ConfigMap."""
    sections = set(Settings.model_fields)
    for block in blocks("yaml"):
        for document in yaml.safe_load_all(block.text):
            if isinstance(document, dict) and set(document) <= sections:
                yield block
            elif isinstance(document, dict) and document.get("kind") == "ConfigMap":
                for name, text in document["data"].items():
                    if name.endswith(".yaml"):
                        yield block._replace(text=text)


def test_there_are_configurations() -> None:
    assert len(list(configurations())) > 2


@pytest.mark.parametrize("block", list(configurations()), ids=ids)
def test_a_configuration_loads(block: Block) -> None:
    config.parse(block.text, block.place)


@pytest.mark.parametrize("block", list(blocks("yaml")), ids=ids)
def test_a_yaml_block_is_a_configuration_or_somebody_elses(block: Block) -> None:
    foreign = {"apiVersion", "services", "scrape_configs", "groups", "server", "name"}
    for document in yaml.safe_load_all(block.text):
        keys = set(document)
        assert keys <= set(Settings.model_fields) or keys & foreign, f"{sorted(keys)}: a mistyped section?"


# --- links


def links() -> list[tuple[Path, str]]:
    found = []
    for path in DOCUMENTS:
        text = _FENCE.sub("", path.read_text(encoding="utf-8"))
        found += [(path, match[1] or match[2]) for match in _LINK.finditer(text)]
    return found


def test_links_between_files_lead_somewhere() -> None:
    """Those within docs/ are checked, with their anchors, by the build of the site as well."""
    broken = [
        f"{path.relative_to(ROOT)}: {target}"
        for path, target in links()
        if "://" not in target and not target.startswith("#")
        if not (path.parent / target.partition("#")[0]).exists()
    ]
    assert links()
    assert broken == []


def test_every_line_of_the_protocol_is_told_and_has_a_test() -> None:
    lines = {f"{number:02}" for number in (*range(1, 30), 43)}
    rows = re.findall(
        r"^\| (\d+) \|", (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert {f"{int(number):02}" for number in rows} == lines
    tested = {
        number
        for path in (ROOT / "tests").rglob("test_*.py")
        for number in re.findall(r"def test_p(\d\d)_", path.read_text(encoding="utf-8"))
    }
    assert tested == lines
