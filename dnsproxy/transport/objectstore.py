"""One object of an S3-compatible store, by way of obstore (the extra ``s3``): reads and conditional writes.

obstore is called in threads. Its own coroutines hand results over from threads of the Rust runtime, which may
still want the interpreter when that is gone already: a process that ended at such a moment was aborted.
"""

from __future__ import annotations

import asyncio
import configparser
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dnsproxy.errors import StartError, StoreError
from dnsproxy.settings.stores import S3Place
from dnsproxy.transport.extras import needs_extra

if TYPE_CHECKING:
    from obstore.store import S3Store

# Octets. Some hundred times the snapshot of a large region; as for other sources.
MAX_OCTETS = 8 * 1024 * 1024
# Seconds for one request and for its connection. Retries are the caller's.
DEADLINE = 8.0
CONNECT_DEADLINE = 5.0
# What the object is served as, should it be public: as the helper itself serves it.
ATTRIBUTES = {"Content-Type": "application/jose", "Cache-Control": "no-cache"}

_CODE = re.compile(r"<Code>([A-Za-z0-9.]{1,64})</Code>")
_STATUS = re.compile(r"status code: (\d{3}[A-Za-z ]*)")
_WORDS = {
    "AccessDenied": "access denied",
    "InvalidAccessKeyId": "the access key is not known there",
    "SignatureDoesNotMatch": "the signature was refused: a wrong secret key, or a wrong region",
    "RequestTimeTooSkewed": "the clock of this host is wrong",
    "NoSuchBucket": "there is no such bucket",
    "NoSuchKey": "there is no such object",
    "SecondLevelDomainForbidden": "the store wants addressing: virtual",
}
# Phrases of the HTTP client's own errors.
_CAUSES = {
    "Connection refused": "Connection refused",
    "dns error": "the host name cannot be resolved",
    "UnknownIssuer": "certificate not trusted: its authority is not known",
    "NotValidForName": "certificate not trusted: it is for another name",
    "CaUsedAsEndEntity": "certificate not trusted: it is an authority's own, signed by itself",
    "Expired": "certificate not trusted: it has expired",
    "invalid peer certificate": "certificate not trusted",
    "operation timed out": "no answer in time",
}


class ChangedMeanwhileError(StoreError):
    """Somebody else has written since the object was read."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An object; ``mark`` is its entity tag."""

    content: bytes
    mark: str | None


class ObjectStore:
    """Reads and writes the object at ``place``.

    Raises:
        StartError: obstore is not installed.
    """

    def __init__(self, place: S3Place) -> None:
        try:
            import obstore  # noqa: F401, PLC0415 - an extra, and only where such a place is configured
        except ImportError as exc:
            raise StartError(needs_extra("s3")) from exc
        self._place = place
        self._store: S3Store | None = None
        self._made_from: tuple[int, ...] = ()
        self.writes_conditionally = True
        """False once the store has said that it does not know conditional writes (OSS does not)."""

    async def get(self, unless: str | None = None) -> Stored | None:
        """Return the object; None when its mark is still ``unless``.

        Raises:
            StoreError: it cannot be had; the message says why, without secrets.
            FileNotFoundError: the bucket has no such object.
        """
        return await asyncio.to_thread(self._get, unless)

    async def put(self, content: bytes, over: Stored | None) -> Stored:
        """Write the object in place of ``over``, or where nothing is; return what is there now.

        Stores that know no conditional writes write in any case.

        Raises:
            ChangedMeanwhileError: something else is there now.
            StoreError: it cannot be written.
        """
        return await asyncio.to_thread(self._put, content, over)

    def _get(self, unless: str | None) -> Stored | None:
        import obstore  # noqa: PLC0415 - see the module's docstring
        from obstore.exceptions import BaseError, NotModifiedError  # noqa: PLC0415

        try:
            options: Any = {} if unless is None else {"if_none_match": unless}
            result = obstore.get(self._open(), self._place.key, options=options)
            if result.meta["size"] > MAX_OCTETS:
                raise StoreError(f"larger than {MAX_OCTETS} octets")
            return Stored(bytes(result.bytes()), result.meta["e_tag"])
        except NotModifiedError:
            return None
        except FileNotFoundError as exc:
            if _CODE.search(str(exc)) and "NoSuchKey" not in str(exc):
                raise StoreError(reason_of(exc)) from None
            raise FileNotFoundError("there is no such object") from None
        except (BaseError, OSError) as exc:
            raise StoreError(reason_of(exc)) from None  # its text is a page long

    def _put(self, content: bytes, over: Stored | None) -> Stored:
        import obstore  # noqa: PLC0415 - as above
        from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError  # noqa: PLC0415

        store = self._open()
        mode: Any = "overwrite"
        if self.writes_conditionally and over is None:
            mode = "create"
        elif self.writes_conditionally and over is not None and over.mark is not None:
            mode = {"e_tag": over.mark}
        try:
            try:
                done = obstore.put(store, self._place.key, content, mode=mode, attributes=ATTRIBUTES)
            except BaseError as exc:
                if mode == "overwrite" or not _is_unknown_condition(exc):
                    raise
                self.writes_conditionally = False
                done = obstore.put(store, self._place.key, content, attributes=ATTRIBUTES)
        except (AlreadyExistsError, PreconditionError):
            raise ChangedMeanwhileError("somebody else has written there meanwhile") from None
        except (BaseError, OSError) as exc:
            raise StoreError(reason_of(exc)) from None
        return Stored(content, done["e_tag"])

    def _open(self) -> S3Store:
        """Return the client, made anew when one of its files has changed."""
        files = [path for path in (self._place.credentials_file, self._place.ca_file) if path is not None]
        try:
            made_from = tuple(path.stat().st_mtime_ns for path in files)
        except OSError as exc:
            raise StoreError(f"{exc.filename}: {exc.strerror}") from exc
        if self._store is None or made_from != self._made_from:
            self._store, self._made_from = make_client(self._place), made_from
        return self._store


def make_client(place: S3Place) -> S3Store:
    """Return obstore's client for ``place``.

    Raises:
        StoreError: a file cannot be used.
    """
    from obstore.exceptions import BaseError  # noqa: PLC0415 - see `ObjectStore`
    from obstore.store import S3Store  # noqa: PLC0415

    config: dict[str, Any] = {"bucket": place.bucket, "region": place.region}
    config["virtual_hosted_style_request"] = place.addressing == "virtual"
    if place.endpoint is not None:
        config["endpoint"] = _endpoint(place.endpoint, place)
    if place.credentials_file is not None:
        config |= read_credentials(place.credentials_file, place.profile)
    http: dict[str, Any] = {
        "allow_http": (place.endpoint or "").startswith("http://"),
        "timeout": f"{DEADLINE:g}s",
        "connect_timeout": f"{CONNECT_DEADLINE:g}s",
    }
    if place.ca_file is not None:
        http["root_certificate"] = _read(place.ca_file, "ca_file")
    options: Any = {"config": config, "client_options": http, "retry_config": {"max_retries": 0}}
    try:
        return S3Store(**options)
    except (BaseError, ValueError) as exc:
        raise StoreError(f"not a usable place: {str(exc).partition(chr(10))[0]}") from None


def _endpoint(endpoint: str, place: S3Place) -> str:
    if place.addressing == "path":
        return endpoint.rstrip("/")
    parts = urlsplit(endpoint)
    return f"{parts.scheme}://{place.bucket}.{parts.netloc}"


def read_credentials(path: Path, profile: str) -> dict[str, str]:
    """Return the keys of ``profile`` in a file like ``~/.aws/credentials``.

    Raises:
        StoreError: it cannot be read, or lacks them.
    """
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    try:
        parser.read_string(_read(path, "credentials_file"))
    except configparser.Error:
        # Its message shows the line, which may hold the secret.
        raise StoreError(f"credentials_file {path}: not a file of keys by section") from None
    if not parser.has_section(profile):
        raise StoreError(f"credentials_file {path}: no section [{profile}]")
    section = parser[profile]
    names = {
        "access_key_id": "aws_access_key_id",
        "secret_access_key": "aws_secret_access_key",
        "session_token": "aws_session_token",
    }
    keys = {name: section[key] for name, key in names.items() if section.get(key)}
    for name in ("access_key_id", "secret_access_key"):
        if name not in keys:
            raise StoreError(f"credentials_file {path}: [{profile}] has no {names[name]}")
    return keys


def _read(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as exc:
        raise StoreError(f"{what} {path}: {exc.strerror}") from exc
    except ValueError as exc:
        raise StoreError(f"{what} {path}: not text") from exc


def _is_unknown_condition(exc: Exception) -> bool:
    return "status code: 501" in str(exc) or "<Code>NotImplemented</Code>" in str(exc)


def reason_of(exc: Exception) -> str:
    """Say in a few words why a request failed; obstore's own text is a page with the whole request."""
    text = str(exc)
    if code := _CODE.search(text):
        status = _STATUS.search(text)
        return _WORDS.get(code[1], f"{code[1]}{f' (status {status[1].strip()})' if status else ''}")
    for phrase, words in _CAUSES.items():
        if phrase in text:
            return words
    if status := _STATUS.search(text):
        return f"status {status[1].strip()}"
    with suppress(IndexError):
        return text.splitlines()[0].rpartition(" - ")[2] or type(exc).__name__
    return type(exc).__name__
