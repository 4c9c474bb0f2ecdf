from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.ops.hostsfile import HostsFileError, HostsLine, UnreadLine, parse_hosts, read_hosts, split_hosts

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


def test_what_cannot_be_used_is_returned_with_its_line_and_the_reason() -> None:
    found = [line for line in split_hosts(TEXT) if isinstance(line, UnreadLine)]
    assert [(line.number, line.text) for line in found] == [
        (6, "::1"),
        (7, "not-an-address a.example"),
        (8, "10.0.0.2 a..b"),
        (9, "10.0.0.3 a..b"),
    ]
    assert found[0].reason == "no name"
    assert found[1].reason == "not-an-address is not an IP address"
    assert "a label that is empty" in found[2].reason


@pytest.mark.parametrize(
    "text",
    [
        *("${REGISTRY_IP} a.example", "10.0.0.1 ${HOST}", "10.0.0.1 reg.$REGION.example"),
        *("{{ ip }} a.example", "10.0.0.1 {{host}}", "%IP% a.example", "10.0.0.1 %HOST%", "10.0.0.1 <host>"),
    ],
)
def test_a_variable_is_named(text: str) -> None:
    first, *found = split_hosts(f"10.0.0.9 b.example\n{text}\n")
    assert first == HostsLine(1, "10.0.0.9", ("b.example.",))
    assert {(line.number, type(line)) for line in found} == {(2, UnreadLine)}
    assert any("variable" in line.reason for line in found if isinstance(line, UnreadLine))


EXPECTED = [HostsLine(1, "10.0.0.1", ("a.example.",)), HostsLine(3, "10.0.0.2", ("b.example.",))]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom", "utf-16-be-bom"])
def test_byte_order_marks_utf16_and_line_ends(tmp_path: Path, newline: str, encoding: str) -> None:
    text = newline.join(
        ["10.0.0.1 a.example", "# caf\u00e9 \u2028 \x0c 10.0.0.9 c.example", "10.0.0.2 b.example", ""]
    )
    if encoding.endswith("-bom"):
        text, encoding = "\ufeff" + text, encoding.removesuffix("-bom")
    path = tmp_path / "hosts"
    path.write_bytes(text.encode(encoding))
    assert read_hosts(path) == EXPECTED


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ("# x\n10.0.0.1 a\n".encode("utf-16-le"), ":1: a NUL byte; UTF-16 without byte order mark"),
        ("# x\n10.0.0.1 a\n".encode("utf-16-be"), ":1: a NUL byte; UTF-16 without byte order mark"),
        (b"10.0.0.1 a\n\n10.0.0.2 b\x00\n", ":3: a NUL byte"),
        ("10.0.0.1 a".encode("utf-32"), ":1: UTF-32"),
        (b"\xff\xfe" + "10.0.0.1 a\n".encode("utf-16-le") + b"\x00", ":2: not UTF-16"),
    ],
)
def test_other_encodings_are_refused_with_the_line(tmp_path: Path, data: bytes, complaint: str) -> None:
    path = tmp_path / "hosts"
    path.write_bytes(data)
    with pytest.raises(HostsFileError) as caught:
        read_hosts(path)
    assert str(caught.value).startswith(f"{path}{complaint}")


def test_a_file_that_is_too_long_is_not_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dnsproxy.ops.hostsfile._MAX_OCTETS", 20)
    path = tmp_path / "hosts"
    path.write_text("10.0.0.1 a\n")
    assert len(read_hosts(path)) == 1
    path.write_text("10.0.0.1 a\n10.0.0.2 b\n")
    with pytest.raises(HostsFileError, match="longer than"):
        read_hosts(path)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(data)
    try:
        found = read_hosts(path)
    except HostsFileError as exc:
        assert str(exc).startswith(str(path))  # noqa: PT017 - both outcomes are allowed
    else:
        assert all(line.names for line in found)
