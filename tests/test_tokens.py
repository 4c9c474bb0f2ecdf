from __future__ import annotations

import base64
import hmac
from collections.abc import Callable
from pathlib import Path

import pytest

from dnsproxy.errors import StartError
from dnsproxy.tokens import is_basic, is_bearer, read_token


def test_white_space_around_a_token_is_not_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("  s3cret\n")
    assert read_token(path) == "s3cret"


@pytest.mark.parametrize("content", [b"", b" \n", b"two words", b"caf\xc3\xa9", b"a\x00b", b"a\nb\n"])
def test_what_is_no_token(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(StartError, match="token") as caught:
        read_token(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="No such file"):
        read_token(tmp_path / "token")


@pytest.mark.parametrize("header", ["Bearer s3cret", "bearer s3cret", "BEARER   s3cret "])
def test_the_right_token(header: str) -> None:
    assert is_bearer(header, "s3cret")


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "s3cret", "Basic s3cret", "Bearer s3cre", "Bearer s3cret2", "Bearer \udcff"],
)
def test_a_wrong_one(header: str) -> None:
    assert not is_bearer(header, "s3cret")


def basic(credentials: bytes) -> str:
    return f"Basic {base64.b64encode(credentials).decode()}"


@pytest.mark.parametrize("credentials", [b"admin:s3cret", b":s3cret", b"\xff:s3cret"])
def test_the_right_password(credentials: bytes) -> None:
    assert is_basic(basic(credentials), "s3cret")
    assert is_basic(basic(credentials).replace("Basic", "bASIC "), "s3cret")
    assert not is_bearer(basic(credentials), "s3cret")


def test_a_password_may_hold_a_colon() -> None:
    assert is_basic(basic(b"me:a:b"), "a:b")
    assert not is_basic(basic(b"me:a:b"), "b")


@pytest.mark.parametrize(
    "header",
    [
        *("", "Basic", "Basic ", "Basic s3cret", "Basic \udcff", "Basic é", "Bearer s3cret"),
        *map(basic, (b"", b":", b"s3cret", b"me:", b"me:s3cre", b"me:s3cret2", b"s3cret:me")),
        basic(b"me:s3cret").rstrip("=") + "!",
    ],
)
def test_a_wrong_password(header: str) -> None:
    assert not is_basic(header, "s3cret")


@pytest.mark.parametrize("check", [is_bearer, is_basic])
def test_tokens_are_compared_in_constant_time(
    check: Callable[[str, str], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(given: bytes, held: bytes) -> bool:
        compared.append((given, held))
        return False

    monkeypatch.setattr(hmac, "compare_digest", compare)
    given = base64.b64encode(b"any:guess").decode()
    # What it says decides: nothing before it has looked at the token.
    assert not check(f"Bearer {given}" if check is is_bearer else f"Basic {given}", "held")
    assert [held for _, held in compared] == [b"held"]
