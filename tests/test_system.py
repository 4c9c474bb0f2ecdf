from __future__ import annotations

import resource
from pathlib import Path
from typing import Self

import pytest

from dnsproxy.errors import StartError
from dnsproxy.settings.values import Endpoint
from dnsproxy.system import ResolvConf, expand_resolvers, is_own, raise_file_limit, system_resolvers

RESOLV_CONF = """\
# made by hand
; nameserver 9.9.9.9
search example.internal
nameserver 100.100.2.136
nameserver\t100.100.2.138   # the second
nameserver 100.100.2.136
nameserver fe80::1%eth0
nameserver fd00::2
nameserver not-an-address
nameserver
options timeout:2
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "resolv.conf"
    path.write_text(text, encoding="utf-8")
    return path


def test_usable_nameservers_are_read_in_order(tmp_path: Path) -> None:
    assert system_resolvers(write(tmp_path, RESOLV_CONF)) == [
        Endpoint("100.100.2.136", 53),
        Endpoint("100.100.2.138", 53),
        Endpoint("fd00::2", 53),
    ]


@pytest.mark.parametrize("text", ["", "# nameserver 10.0.0.2\n", "nameserver fe80::1%eth0\n"])
def test_no_usable_nameserver_is_a_start_error(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(StartError, match="no usable nameserver") as caught:
        system_resolvers(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_a_start_error_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="No such file"):
        system_resolvers(tmp_path / "absent")


def test_octets_that_are_not_utf8_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_bytes(b"# \xff\xfe\nnameserver 10.0.0.2\n")
    assert system_resolvers(path) == [Endpoint("10.0.0.2", 53)]


def test_system_is_replaced_where_it_stands_and_repeats_are_dropped(tmp_path: Path) -> None:
    path = write(tmp_path, "nameserver 10.0.0.2\nnameserver 10.0.0.3\n")
    first, second = Endpoint("10.0.0.9", 53), Endpoint("10.0.0.2", 53)
    assert expand_resolvers([first, "system", second], path) == [
        first,
        second,
        Endpoint("10.0.0.3", 53),
    ]


def test_the_file_is_not_read_unless_asked_for(tmp_path: Path) -> None:
    only = Endpoint("10.0.0.9", 5353, "tcp")
    assert expand_resolvers([only], tmp_path / "absent") == [only]


@pytest.mark.parametrize(
    ("endpoint", "listen", "own"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.2", "127.0.0.1", False),
        ("127.0.0.1", "0.0.0.0", True),
        ("::1", "::", True),
        ("192.0.2.1", "0.0.0.0", False),
        ("2001:db8::1", "::", False),
        ("dns.example", "0.0.0.0", False),
    ],
)
def test_an_endpoint_may_be_ours(endpoint: str, listen: str, *, own: bool) -> None:
    listens = [Endpoint("10.0.0.1", 53), Endpoint(listen, 5300)]
    assert is_own(Endpoint(endpoint, 5300), listens) is own
    assert not is_own(Endpoint(endpoint, 5301), listens)


def test_an_address_of_this_host_is_ours_where_we_listen_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    class Socket:
        """Has 10.0.0.9 on an interface; all else goes through it."""

        def __init__(self, *_: object) -> None: ...

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None: ...

        def connect(self, _: tuple[str, int]) -> None: ...

        def getsockname(self) -> tuple[str, int]:
            return "10.0.0.9", 40_000

    monkeypatch.setattr("dnsproxy.system.socket.socket", Socket)
    everywhere = [Endpoint("0.0.0.0", 53)]
    assert is_own(Endpoint("10.0.0.9", 53), everywhere)
    assert not is_own(Endpoint("10.0.0.5", 53), everywhere)


def test_the_limit_of_open_files_is_raised_as_far_as_it_may_be() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before[0] // 2, before[1]))
        assert raise_file_limit() >= before[0] // 2
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_other_nameservers_are_reported_once_the_file_no_longer_changes(tmp_path: Path) -> None:
    path = write(tmp_path, "nameserver 10.0.0.2\n")
    conf = ResolvConf(path)
    assert (conf.poll(), conf.failure) == (None, None)
    # Other options, or the same servers in another spelling, are no change.
    write(tmp_path, "options rotate\nnameserver  10.0.0.2 # the same\n")
    assert [conf.poll() for _ in range(3)] == [None] * 3
    write(tmp_path, "nameserver 10.0.0.3\n")
    assert conf.poll() is None
    write(tmp_path, "nameserver 10.0.0.3\nnameserver 10.0.0.4\n")
    assert conf.poll() is None
    found = [Endpoint("10.0.0.3", 53), Endpoint("10.0.0.4", 53)]
    assert (conf.poll(), conf.poll()) == (found, found)
    conf.take()
    assert [conf.poll() for _ in range(3)] == [None] * 3


@pytest.mark.parametrize("text", [None, "", "# being written\n"])
def test_a_file_that_cannot_be_used_changes_nothing(tmp_path: Path, text: str | None) -> None:
    path = write(tmp_path, "nameserver 10.0.0.2\n")
    conf = ResolvConf(path)
    path.unlink()
    if text is not None:
        write(tmp_path, text)
    assert [conf.poll() for _ in range(3)] == [None] * 3
    assert str(path) in (conf.failure or "")
    write(tmp_path, "nameserver 10.0.0.2\n")
    assert [conf.poll() for _ in range(3)] == [None] * 3
    assert conf.failure is None
