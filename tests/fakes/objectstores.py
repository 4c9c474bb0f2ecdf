"""Object stores that speak S3, on loopback: moto's server, SeaweedFS, and one with the limits of OSS.

The first two are real programs. The last stands for what neither shows: it refuses the bucket in the path and
answers conditional writes with 501, as Alibaba Cloud documents of OSS and its users report.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from aiohttp import web
from aiohttp.test_utils import TestServer

from dnsproxy.settings.sources import S3Source
from dnsproxy.settings.stores import S3Place
from tests.e2e.processes import Ports, Process

BUCKET = "snapshots-1"
ACCESS_KEY = "AKIDEXAMPLE"
SECRET_KEY = "do-not-show-me"  # noqa: S105 - of a store of the tests


def credentials(folder: Path, access_key: str = ACCESS_KEY, secret_key: str = SECRET_KEY) -> Path:
    """Write a file like ``~/.aws/credentials``."""
    path = folder / "credentials"
    path.write_text(
        f"[default]\naws_access_key_id = {access_key}\naws_secret_access_key = {secret_key}\n",
        encoding="utf-8",
    )
    return path


@dataclass
class Store:
    """A store that runs; ``place`` names an object of its bucket that nobody else has."""

    endpoint: str
    folder: Path
    count: int = 0

    def place(self, key: str | None = None, **keys: object) -> S3Place:
        return S3Place.model_validate(self.keys(key, **keys))

    def source(self, key: str | None = None, **keys: object) -> S3Source:
        return S3Source.model_validate({"type": "s3", **self.keys(key, **keys)})

    def keys(self, key: str | None = None, **keys: object) -> dict[str, object]:
        self.count += 1
        return {
            "bucket": BUCKET,
            "key": key or f"dnsproxy/{self.count}.jws",
            "endpoint": self.endpoint,
            "addressing": "path",
            "credentials_file": str(credentials(self.folder)),
            **keys,
        }


def answers(url: str) -> bool:
    try:
        urlopen(url, timeout=1).close()  # noqa: S310 - http on loopback
    except HTTPError:
        return True
    except OSError:
        return False
    return True


@contextmanager
def owner_of(endpoint: str) -> Iterator[Any]:
    """Give AWS's own client, for what is done once by hand."""
    import boto3  # noqa: PLC0415 - comes with moto and takes long to load
    from botocore.config import Config  # noqa: PLC0415

    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=Config(s3={"addressing_style": "path"}),
    )
    try:
        yield client
    finally:
        client.close()


@contextmanager
def running(process: Process, endpoint: str, folder: Path) -> Iterator[Store]:
    try:
        process.start(lambda: answers(endpoint))
        with owner_of(endpoint) as owner:
            owner.create_bucket(Bucket=BUCKET)
        yield Store(endpoint, folder)
    finally:
        process.kill()


@contextmanager
def moto(folder: Path) -> Iterator[Store]:
    """The server of moto; it takes any credentials."""
    ports = Ports()
    port = ports.take()
    argv = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with running(Process("moto", argv, folder / "moto.log"), f"http://127.0.0.1:{port}", folder) as store:
        yield store
    ports.release()


def find_seaweedfs() -> str | None:
    """The program that PyPI's package puts beside the interpreter."""
    return shutil.which("weed", path=str(Path(sys.executable).parent))


@contextmanager
def seaweedfs(folder: Path, domain: str) -> Iterator[Store]:
    """All of SeaweedFS in one process. It asks for credentials; buckets are also names below ``domain``."""
    identity = {
        "name": "helper",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "List", "Write"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}), encoding="utf-8")
    (folder / "data").mkdir()
    ports = Ports()
    s3 = ports.take()
    numbers = {
        name: ports.take()
        for name in (
            "master.port",
            "master.port.grpc",
            "volume.port",
            "volume.port.grpc",
            "filer.port",
            "filer.port.grpc",
            "s3.port.grpc",
        )
    }
    argv = [
        find_seaweedfs() or "weed",
        "server",
        f"-dir={folder / 'data'}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-master.telemetry=false",  # it would report to its makers
        "-master.volumeSizeLimitMB=16",
        "-volume.max=4",
        "-filer",
        "-s3",
        f"-s3.port={s3}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-s3.config={folder / 's3.json'}",
        f"-s3.domainName={domain}",
        *(f"-{name}={number}" for name, number in numbers.items()),
    ]
    with running(Process("weed", argv, folder / "weed.log"), f"http://127.0.0.1:{s3}", folder) as store:
        yield store
    ports.release()


@dataclass
class Oss:
    """A store with the limits of OSS, reached as an HTTP proxy so that names of hosts need no resolver."""

    objects: dict[str, bytes] = field(default_factory=dict)
    seen: list[tuple[str, str]] = field(default_factory=list)
    """Method and host of each request."""

    async def handle(self, request: web.Request) -> web.Response:
        self.seen.append((request.method, request.host))
        if not request.headers.get("Authorization", "").startswith("AWS4-HMAC-SHA256 "):
            return _error(403, "AccessDenied")
        if not request.host.startswith(f"{BUCKET}."):
            return _error(403, "SecondLevelDomainForbidden")
        key = request.path.lstrip("/")
        if request.method == "PUT":
            if {"If-Match", "If-None-Match"} & set(request.headers):
                return _error(501, "NotImplemented")
            self.objects[key] = await request.read()
            return web.Response(headers={"ETag": _tag(self.objects[key])})
        if key not in self.objects:
            return _error(404, "NoSuchKey")
        tag = _tag(self.objects[key])
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers={"ETag": tag})
        headers = {"ETag": tag, "Last-Modified": "Tue, 24 Nov 2026 10:00:00 GMT"}
        return web.Response(body=self.objects[key], headers=headers)

    async def serve(self) -> TestServer:
        app = web.Application()
        app.router.add_route("*", "/{key:.*}", self.handle)
        server = TestServer(app, host="127.0.0.1")
        await server.start_server(shutdown_timeout=0.1)
        return server


def _tag(content: bytes) -> str:
    return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest().upper()}"'


def _error(status: int, code: str) -> web.Response:
    body = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>x</Message></Error>'
    return web.Response(status=status, text=body, content_type="application/xml")
