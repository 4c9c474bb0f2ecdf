from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.ops.hostsfile import HostsFileError, HostsLine, parse_hosts, read_hosts

TEXT = """\
127.0.0.1 localhost

# 10.0.0.1 commented.example
10.94.205.198\tXXX-registry-vpc.cn-hangzhou.cr.aliyuncs.com  alias # since March
fe80::1%eth0 router.example
::1
not-an-address a.example
10.0.0.2 a..b good.example
10.0.0.3 a..b
"""


def test_lines_that_give_an_address() -> None:
    assert list(parse_hosts(TEXT)) == [
        HostsLine(1, "127.0.0.1", ("localhost.",)),
        HostsLine(4, "10.94.205.198", ("xxx-registry-vpc.cn-hangzhou.cr.aliyuncs.com.", "alias.")),
        HostsLine(5, "fe80::1", ("router.example.",)),
        HostsLine(8, "10.0.0.2", ("good.example.",)),
    ]


@given(st.text(max_size=200))
def test_any_text_is_read(text: str) -> None:
    for line in parse_hosts(text):
        assert line.number >= 1
        assert line.names


def test_a_file_with_foreign_octets(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_bytes(b"10.0.0.1 a.example # caf\xe9\n10.0.0.2 caf\xe9.example\n")
    assert read_hosts(path) == [HostsLine(1, "10.0.0.1", ("a.example.",))]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(HostsFileError, match=r"hosts: No such file or directory$"):
        read_hosts(tmp_path / "hosts")
