"""The site, the manual page and the completions, with the programs that readers have."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.processes import ROOT, run_command
from tests.needs import need_programs

pytestmark = pytest.mark.e2e

# What a page loads, in contrast to what it links to.
_LOADED = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\ssrc=["']?([^"'\s>]+)|<link\b[^>]*\shref=["']?([^"'\s>]+)"""
)
_IN_STYLES = re.compile(r"url\([\"']?([^\"')]+)|@import\s+[\"']([^\"']+)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = run_command(sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_site_has_every_page(site: Path) -> None:
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    assert pages
    assert {page for page in pages if not (site / page).is_file()} == set()
    assert "快速开始" in (site / "zh" / "quick-start.html").read_text(encoding="utf-8")


def test_reader_of_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    """Links to other sites are no fetches; scripts, styles, fonts and pictures are."""
    loaded = [
        (path.name, match[1] or match[2])
        for kind, pattern in (("*.html", _LOADED), ("*.css", _IN_STYLES))
        for path in site.rglob(kind)
        for match in pattern.finditer(path.read_text(encoding="utf-8"))
    ]
    assert any(name == "index.html" for name, _ in loaded)
    assert [entry for entry in loaded if re.match(r"(https?:)?//", entry[1])] == []


def test_manual_page_is_well_formed() -> None:
    need_programs("NOT TESTED", "mandoc")
    done = run_command("mandoc", "-T", "lint", "-W", "warning", ROOT / "docs/man/dnsproxy.1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_manual_page_is_shown() -> None:
    need_programs("NOT TESTED", "mandoc")
    done = run_command("mandoc", "-T", "ascii", ROOT / "docs/man/dnsproxy.1")
    shown = re.sub(".\b", "", done.stdout)
    assert "dnsproxy doctor [--config FILE]" in shown


# -- completion --------------------------------------------------------------------


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A folder with a ``dnsproxy`` that is this source."""
    script = tmp_path / "dnsproxy"
    script.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "from dnsproxy.cli import main\nmain()\n"
    )
    script.chmod(0o755)
    return tmp_path


def shell(program: Path, *words: str) -> str:
    environment = os.environ | {"PATH": f"{program}:{os.environ['PATH']}", "HOME": str(program)}
    done = subprocess.run(
        words, cwd=program, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_bash_completes(program: Path) -> None:
    script = f"""
        source {ROOT}/completions/dnsproxy
        complete -p dnsproxy >/dev/null || exit 1
        COMP_WORDS=(dnsproxy routes --format ""); COMP_CWORD=3
        _dnsproxy dnsproxy; printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    shown = shell(program, "bash", "--norc", "-c", script).split()
    assert sorted(shown) == ["aliyun", "json", "table", "terraform"]


def test_zsh_completes(program: Path) -> None:
    need_programs("NOT TESTED", "zsh")
    # A terminal of its own, in which a person types half a word and presses the tabulator key. The
    # completion asks the program; what is typed runs a function of the same name.
    script = f"""
        zmodload zsh/zpty
        zpty typed zsh -f -i
        zpty -w typed 'PS1=; fpath=({ROOT}/completions $fpath)'
        zpty -w typed 'autoload -Uz compinit; compinit -u -D; dnsproxy() {{ print -r -- "was-typed:$*" }}'
        zpty -w typed 'print -r -- is""up'
        while zpty -r typed line && [[ $line != *isup* ]]; do :; done
        zpty -w typed $'dnsproxy roll\t'
        while zpty -r typed line; do
            [[ $line != *was-typed:roll* ]] || {{ print -r -- $line; exit }}
        done
    """
    assert "was-typed:rollback" in shell(program, "zsh", "-f", "-c", script)


def test_fish_completes(program: Path) -> None:
    need_programs("NOT TESTED", "fish")
    script = f'source {ROOT}/completions/dnsproxy.fish; complete --do-complete "dnsproxy hosts "'
    words = [line.split("\t")[0] for line in shell(program, "fish", "--no-config", "-c", script).splitlines()]
    assert sorted(words) == ["audit", "export", "import"]
