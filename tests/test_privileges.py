"""Giving up root, in processes of their own: it cannot be had back."""

from __future__ import annotations

import os
import pwd
import sys
import textwrap
from pathlib import Path

import pytest

from dnsproxy.errors import StartError
from dnsproxy.privileges import find_account
from tests.e2e.processes import run_command

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root can become somebody else")
NOBODY = pwd.getpwnam("nobody")


def run(body: str) -> str:
    program = "from dnsproxy.privileges import *\nimport os, socket\n" + textwrap.dedent(body)
    done = run_command(sys.executable, "-c", program, deadline=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def status(text: str) -> dict[str, str]:
    """/proc/self/status as a mapping."""
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


@as_root
@pytest.mark.parametrize("kept", [True, False])
def test_nothing_of_root_is_left_but_what_is_kept(kept: bool) -> None:
    seen = status(
        run(
            f"""
            become(find_account("nobody", None), keep=[BIND_SERVICE] if {kept} else [])
            print(open("/proc/self/status").read())
            """
        )
    )
    assert set(seen["Uid"].split()) == {str(NOBODY.pw_uid)}
    assert set(seen["Gid"].split()) == {str(NOBODY.pw_gid)}
    assert "0" not in seen["Groups"].split()
    capabilities = [int(seen[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")]
    assert capabilities == ([0, 1 << 10, 1 << 10, 0] if kept else [0, 0, 0, 0])
    assert seen["NoNewPrivs"] == "1"


@as_root
def test_it_can_bind_low_ports_and_do_nothing_else_of_root() -> None:
    assert (
        run(
            """
        become(find_account("nobody", None), keep=[BIND_SERVICE])
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 1))
        for attempt in (lambda: os.setuid(0), lambda: open("/etc/shadow"), lambda: os.chown("/tmp", 0, 0)):
            try:
                attempt()
            except PermissionError:
                print("refused")
        """
        ).split()
        == ["refused"] * 3
    )


@as_root
def test_a_folder_that_is_missing_is_made_for_the_account(tmp_path: Path) -> None:
    run(
        f"""
        from pathlib import Path
        give_folders(find_account("nobody", None), [Path("{tmp_path}"), Path("{tmp_path}/a/state")])
        """
    )
    made = (tmp_path / "a" / "state").stat()
    assert (made.st_uid, made.st_mode & 0o777) == (NOBODY.pw_uid, 0o700)
    assert tmp_path.stat().st_uid == os.geteuid()


def test_who_there_is_not_is_named() -> None:
    with pytest.raises(StartError, match="user: there is no user 'nobody-of-this-name' on this host"):
        find_account("nobody-of-this-name", None)
    with pytest.raises(StartError, match="group: there is no group 'nobody-of-this-name' on this host"):
        find_account("nobody", "nobody-of-this-name")


def test_there_is_nothing_to_become() -> None:
    assert find_account(None, None) is None
    assert find_account(pwd.getpwuid(os.geteuid()).pw_name, None) is None


@as_root
def test_only_root_can() -> None:
    assert "only root can become 'daemon'" in run(
        """
        from dnsproxy.errors import StartError
        become(find_account("nobody", None))
        try:
            find_account("daemon", None)
        except StartError as exc:
            print(exc)
        """
    )
