"""The commands: exit codes, what they print, and what an operator sees when start-up fails."""

from __future__ import annotations

import errno
import http.client
import json
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from dnsproxy.keys import write_key_pair
from tests.e2e.processes import dnsproxy_argv, find_program, run_command
from tests.e2e.world import ADDRESSES, AUTH, REGISTRY, STORAGE, World, fetch

pytestmark = pytest.mark.e2e

FIVE_MISTAKES = """\
registries:
  - name: hangzhou
    region: cn-hangzhou
    instance: xxxxxx
    colour: red
helper:
  interval: soon
learn:
  ttl: 0
serve:
  listen: ["127.0.0.1:5300", "127.0.0.1:99999"]
forward:
  upstreams: [resolver.example]
"""


def test_check_prints_all_five_mistakes_with_file_line_and_key_path(tmp_path: Path) -> None:
    file = tmp_path / "five.yaml"
    file.write_text(FIVE_MISTAKES)
    done = run_command(*dnsproxy_argv("check", file))
    assert done.returncode == 2
    assert done.stdout == ""
    places = [line.removeprefix(f"{file}:").split(": ", 2) for line in done.stderr.splitlines()]
    assert [(line, path) for line, path, _ in places] == [
        ("5", "registries[0].colour"),
        ("7", "helper.interval"),
        ("9", "learn.ttl"),
        ("11", "serve.listen[1]"),
        ("13", "forward.upstreams[0]"),
    ]
    assert all(message for _, _, message in places)


def test_check_of_a_good_file_says_ok(world: World) -> None:
    done = run_command(*dnsproxy_argv("check", world.config))
    assert (done.returncode, done.stderr) == (0, "")
    assert "4 names of 1 registries" in done.stdout


@pytest.mark.parametrize("command", ["serve", "helper", "status"])
def test_every_command_refuses_a_bad_file_with_exit_code_2(tmp_path: Path, command: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("serve: {listen: 53}\n")
    done = run_command(*dnsproxy_argv(command, "--config", file))
    assert done.returncode == 2
    assert done.stderr.startswith(f"{file}:1: serve.listen: ")
    assert done.stderr.count("\n") == 1


def test_keygen_never_overwrites(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    first = run_command(*dnsproxy_argv("keygen", folder))
    assert first.returncode == 0
    private, public = folder / "helper.key", folder / "helper.pub"
    assert private.stat().st_mode & 0o777 == 0o600
    before = private.read_bytes(), public.read_bytes()
    second = run_command(*dnsproxy_argv("keygen", folder))
    assert_one_line(second, "helper.key", "exists")
    assert (private.read_bytes(), public.read_bytes()) == before


# -- starts that must fail -----------------------------------------------------------


def assert_one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 1, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("dnsproxy: ")
    for word in words:
        assert word in line


@contextmanager
def occupied(kind: socket.SocketKind) -> Iterator[int]:
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            sock.listen()
        yield sock.getsockname()[1]


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM], ids=["udp", "tcp"])
def test_dns_port_in_use(world: World, kind: socket.SocketKind) -> None:
    with occupied(kind) as port:
        world.configure(serve={"listen": [f"127.0.0.1:{port}"]})
        assert_one_line(world.command("serve"), str(port), "in use")


def test_admin_port_in_use(world: World) -> None:
    with occupied(socket.SOCK_STREAM) as port:
        world.configure(admin={"listen": f"127.0.0.1:{port}"})
        assert_one_line(world.command("serve"), str(port), "in use")


def test_helper_port_in_use(world: World) -> None:
    with occupied(socket.SOCK_STREAM) as port:
        world.configure(helper={"listen": f"127.0.0.1:{port}"})
        assert_one_line(world.command("helper"), str(port), "in use")


def missing_key(path: Path) -> None:
    assert not path.exists()


def folder_for_a_key(path: Path) -> None:
    path.mkdir()


def junk_key(path: Path) -> None:
    path.write_bytes(b"\x00not a key\xff\n")
    path.chmod(0o600)


# Unreadable for root as well, whom no mode bits stop.
UNREADABLE = [missing_key, folder_for_a_key, junk_key]


@pytest.mark.parametrize("spoil", UNREADABLE)
def test_unreadable_public_key(world: World, spoil: Callable[[Path], None]) -> None:
    path = world.folder / "spoilt.pub"
    spoil(path)
    world.configure(learn={"trusted_keys": [str(path)]})
    assert_one_line(world.command("serve"), str(path))


@pytest.mark.parametrize("spoil", UNREADABLE)
def test_unreadable_signing_key(world: World, spoil: Callable[[Path], None]) -> None:
    path = world.folder / "spoilt.key"
    spoil(path)
    world.configure(helper={"signing_key_file": str(path)})
    assert_one_line(world.command("helper"), str(path))


def test_signing_key_that_others_may_read(world: World) -> None:
    world.key.chmod(0o644)
    assert_one_line(world.command("helper"), str(world.key), "chmod 600")


def test_public_key_in_place_of_the_private_one(world: World) -> None:
    world.configure(helper={"signing_key_file": str(write_key_pair(world.folder / "other")[1])})
    (world.folder / "other" / "helper.pub").chmod(0o600)
    assert_one_line(world.command("helper"), "helper.pub")


def test_state_folder_below_a_file(world: World) -> None:
    (world.folder / "file").write_text("in the way\n")
    path = world.folder / "file" / "learned.jws"
    world.configure(learn={"state_file": str(path)})
    assert_one_line(world.command("serve"), str(path), "cannot be written")


@contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    """Make ``folder`` refuse new files: by mode bits, or for root by the immutable attribute."""
    folder.chmod(0o555)
    probe = folder / "probe"
    immutable = False
    try:
        if can_create(probe):
            done = run_command("chattr", "+i", folder) if find_program("chattr") else None
            immutable = done is not None and done.returncode == 0
            if not immutable or can_create(probe):
                pytest.skip("root can write everywhere here: no immutable attribute on this file system")
        yield
    finally:
        if immutable:
            run_command("chattr", "-i", folder)
        folder.chmod(0o755)


def can_create(path: Path) -> bool:
    try:
        path.touch()
    except OSError as exc:
        assert exc.errno in {errno.EACCES, errno.EPERM}  # noqa: PT017 - anything else is no answer
        return False
    path.unlink()
    return True


def test_state_folder_that_refuses_new_files(world: World) -> None:
    with unwritable(world.state_file.parent):
        assert_one_line(world.command("serve"), str(world.state_file), "cannot be written")


# -- a running proxy ------------------------------------------------------------------------


@pytest.mark.xdist_group("e2e-commands")
def test_status_of_a_ready_proxy(running: World) -> None:
    done = running.command("status", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document["ready"] is True
    names = {entry["name"].removesuffix("."): entry for entry in document["names"]}
    assert {name: entry["addresses"] for name, entry in names.items()} == {
        REGISTRY: [ADDRESSES[REGISTRY]],
        AUTH: [ADDRESSES[AUTH]],
        STORAGE: [ADDRESSES[STORAGE]],
        f"*.{STORAGE}": [ADDRESSES[STORAGE]],
    }
    assert {entry["status"] for entry in names.values()} == {"ok"}
    assert [names[name]["role"] for name in (REGISTRY, AUTH, STORAGE)] == ["registry", "auth", "storage"]
    (source,) = document["sources"]
    assert (source["issuer"], source["last_error"]) == ("helper-e2e", None)
    assert source["serial"] > 0


@pytest.mark.xdist_group("e2e-commands")
def test_status_prints_names_and_addresses_for_people(running: World) -> None:
    done = running.command("status")
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line for line in done.stdout.splitlines() if REGISTRY in line]
    assert len(rows) == 1
    assert ADDRESSES[REGISTRY] in rows[0]
    assert "\x1b" not in done.stdout


@pytest.mark.xdist_group("e2e-commands")
def test_refresh_command_pulls_now(running: World) -> None:
    serial = running.admin("/api/v1/status").json()["serial"]
    done = running.command("refresh")
    assert (done.returncode, done.stderr) == (0, "")
    url = running.configuration()["learn"]["sources"][0]["url"]
    assert done.stdout == f"{url}: serial {serial} of helper-e2e\n"


def test_refresh_command_fails_with_the_reason_while_the_helper_cannot_be_reached(world: World) -> None:
    world.start_proxy()
    done = world.command("refresh")
    url = world.configuration()["learn"]["sources"][0]["url"]
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"{url}: Connection refused\n"


@pytest.mark.xdist_group("e2e-commands")
def test_metrics_tell_age_serial_and_answers(running: World) -> None:
    assert running.server.short(REGISTRY) == [ADDRESSES[REGISTRY]]
    assert running.metric("dnsproxy_learned_serial") > 0
    assert running.metric('dnsproxy_responses_total{rcode="NOERROR",source="learned"}') >= 1
    assert f'dnsproxy_learned_age_seconds{{name="{REGISTRY}."}}' in running.admin("/metrics").body.decode()


def test_status_without_a_proxy_is_one_line(world: World) -> None:
    assert_one_line(world.command("status"), str(world.admin_port), "is dnsproxy serve running?")


# -- the end -----------------------------------------------------------------------------------


# Seconds. An idle machine needs a tenth of one.
END = 10.0


def test_sigterm_ends_helper_and_proxy_with_exit_code_0(world: World) -> None:
    world.start()
    # A blocking query must not hold up the end. Its connection is in use before, so it is accepted.
    serial = fetch(world.helper_port, "/health").json()["serial"]
    with closing(http.client.HTTPConnection("127.0.0.1", world.helper_port, timeout=20)) as waiting:
        waiting.request("GET", "/health")
        waiting.getresponse().read()
        waiting.request("GET", f"/v1/snapshot?wait={serial}&timeout=100")
        assert world.proxy.stop(END) == 0
        assert world.helper.stop(END) == 0
        assert waiting.getresponse().status == 200
    for process, event in ((world.proxy, "proxy.stopped"), (world.helper, "helper.stopped")):
        assert process.events(event)
        assert "Traceback" not in process.text()


def test_sigint_ends_the_proxy_with_exit_code_0(world: World) -> None:
    world.configure(learn={"sources": []})
    world.start_proxy()
    world.proxy.signal(signal.SIGINT)
    assert world.proxy.wait(END) == 0
    assert "Traceback" not in world.proxy.text()


def test_open_tcp_connection_does_not_hold_up_the_end(world: World) -> None:
    world.configure(learn={"sources": []})
    world.start_proxy()
    with socket.create_connection(("127.0.0.1", world.dns_port), timeout=5):
        assert world.proxy.stop(END) == 0


def test_restart_takes_the_same_port_at_once(world: World) -> None:
    world.configure(learn={"sources": []})
    world.upstream.start()
    for _ in range(2):
        world.start_proxy()
        assert world.server.short("www.example", "+tcp") == ["192.0.2.1"]
        assert world.proxy.stop() == 0
