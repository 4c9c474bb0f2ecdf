from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dnsproxy.errors import DiscoverError, Doubt
from dnsproxy.helper.credentials import MAX_FILE, Credentials, read_credentials
from tests import strategies

HOST = "corp-registry-vpc.cn-hangzhou.cr.aliyuncs.com"
PAIR = base64.b64encode(b"user:pa:ss").decode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "credentials"


def write(path: Path, content: str | bytes, mode: int = 0o600) -> None:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)


def failure(path: Path, **options: Any) -> str:
    with pytest.raises(DiscoverError) as caught:
        read_credentials(path, HOST, **options)
    assert caught.value.reason is Doubt.CREDENTIALS
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_one_line_of_user_and_password(path: Path) -> None:
    write(path, "user:pa:ss\n")
    assert read_credentials(path, HOST) == Credentials("user", "pa:ss")


@pytest.mark.parametrize("key", [HOST, HOST.upper(), f"https://{HOST}", f"https://{HOST}/v1/", f"{HOST}:443"])
@pytest.mark.parametrize(
    "entry", [{"auth": PAIR}, {"username": "user", "password": "pa:ss"}, {"auth": PAIR, "email": "x"}]
)
def test_docker_config(path: Path, key: str, entry: dict[str, str]) -> None:
    write(path, json.dumps({"auths": {"other.example": {"auth": "eA=="}, key: entry}}))
    assert read_credentials(path, f"{HOST}.") == Credentials("user", "pa:ss")


def test_docker_config_tells_registries_of_other_ports_apart(path: Path) -> None:
    write(path, json.dumps({"auths": {HOST: {"auth": "eA=="}, f"{HOST}:5000": {"auth": PAIR}}}))
    assert read_credentials(path, HOST, 5000).user == "user"
    write(path, json.dumps({"auths": {HOST: {"auth": PAIR}}}))
    assert "no entry" in failure(path, port=5000)


def test_docker_config_of_old_pads_with_nul(path: Path) -> None:
    padded = base64.b64encode(b"user:pw\x00\x00").decode()
    write(path, json.dumps({"auths": {HOST: {"auth": padded}}}))
    assert read_credentials(path, HOST) == Credentials("user", "pw")


def test_basic_is_that_of_rfc_7617() -> None:
    assert Credentials("Aladdin", "open sesame").basic == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="


def test_the_password_is_not_shown() -> None:
    assert "s3cret" not in repr(Credentials("user", "s3cret"))


@pytest.mark.parametrize(("mode", "exposed"), [(0o600, False), (0o640, False), (0o644, True), (0o604, True)])
def test_a_file_that_everybody_can_read_is_told(path: Path, mode: int, exposed: bool) -> None:
    write(path, "user:pw", mode)
    assert read_credentials(path, HOST).exposed is exposed


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "not user:password"),
        ("s3cret", "not user:password"),
        (":s3cret", "not user:password"),
        ("user:", "not user:password"),
        ("user:s3cret\nmore", "not user:password"),
        (b"user:s3cret\xff", "not UTF-8"),
        ("{s3cret", "not JSON"),
        ("{" + "[" * 100_000, "not JSON"),
        ("{}", "no entry"),
        ('{"auths": ["s3cret"]}', "no entry"),
        (json.dumps({"auths": {"other.example": {"auth": PAIR}}}), "no entry"),
        (json.dumps({"auths": {HOST: "s3cret"}}), "no entry"),
        (json.dumps({"credsStore": "s3cret"}), "credential helpers are not asked"),
        (json.dumps({"auths": {HOST: {}}}), "not user:password"),
        (json.dumps({"auths": {HOST: {"auth": "s3cret!"}}}), "not base64"),
        (json.dumps({"auths": {HOST: {"auth": "/////w=="}}}), "not base64"),
        (json.dumps({"auths": {HOST: {"identitytoken": "s3cret"}}}), "not user:password"),
        ("x" * (MAX_FILE + 1), "not a regular file"),
    ],
)
def test_what_cannot_be_used_is_told_without_its_content(
    path: Path, content: str | bytes, complaint: str
) -> None:
    write(path, content)
    message = failure(path)
    assert complaint in message
    assert "s3cret" not in message


def test_what_is_no_file(path: Path) -> None:
    assert "No such file" in failure(path)
    os.mkfifo(path)
    assert "not a regular file" in failure(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary() | st.builds(lambda value: json.dumps({"auths": value}).encode(), strategies.json_values))
def test_any_content_is_read_or_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        read_credentials(path, HOST)
    except DiscoverError as exc:
        assert exc.reason is Doubt.CREDENTIALS  # noqa: PT017 - both outcomes are allowed
