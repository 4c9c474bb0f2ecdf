"""The source region: its DNS, a registry with a token service and a storage host, as real programs.

The registry is distribution's. It redirects every blob to the storage host
(307), as a registry on an object store does, and nginx in front of it adds the
query that makes such a URL look signed; the storage host refuses one without.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.e2e.nameservers import Unbound
from tests.e2e.processes import Process
from tests.netns.authority import Authority
from tests.netns.spaces import Space
from tests.netns.tokens import Settings

REGISTRY = "corp-registry-vpc.cn-hangzhou.cr.aliyuncs.com"
AUTH = "dockerauth-vpc.cn-hangzhou.aliyuncs.com"
STORAGE = "oss-cn-hangzhou-internal.aliyuncs.com"
BUCKET = f"cri-xxx-registry.{STORAGE}"
REGISTRY_ADDRESS, AUTH_ADDRESS, STORAGE_ADDRESS = "10.94.205.198", "100.103.7.181", "100.118.28.43"
ADDRESSES = {
    REGISTRY: REGISTRY_ADDRESS,
    AUTH: AUTH_ADDRESS,
    STORAGE: STORAGE_ADDRESS,
    BUCKET: STORAGE_ADDRESS,
}
# Names that only the registry can tell of.
OTHER_AUTH = "dockerauth-ee-vpc.cn-hangzhou.aliyuncs.com"
OTHER_BUCKET = f"custom-corp.{STORAGE}"
# Names that only the registry can tell of.
OTHER_AUTH = "dockerauth-ee-vpc.cn-hangzhou.aliyuncs.com"
OTHER_BUCKET = f"custom-corp.{STORAGE}"
_MORE = {OTHER_AUTH: AUTH_ADDRESS, OTHER_BUCKET: STORAGE_ADDRESS}
# Somebody else's.
OTHER_HOST = "other.example"
# Anycast in every VPC of every region, so of no use to anybody outside.
RESOLVER = "100.100.2.136"
HELPER_ADDRESS = "10.94.0.10"
# Where storage may move to: a good address; one where no port is open; one that
# nobody has, so that packets to it vanish; one that the remote side has no route to.
MOVED, CLOSED, SILENT, UNROUTED = "100.118.28.44", "100.118.28.45", "100.118.28.46", "100.118.31.9"

# The shape of an ACR Enterprise Edition's challenge: region and instance id stand in it.
SERVICE = "registry.aliyuncs.com:cn-hangzhou:china:cri-xxx:2a"
ISSUER = "dockerauth"
USER, PASSWORD = "puller", "correct-horse"
SIGNATURE = "d2hvZXZlci1sb2dzLXRoaXM"
_BACKEND = "127.0.0.1:5000"


@dataclass(frozen=True)
class Shape:
    """What a test may change about the region; the defaults are in order.

    ``records`` are the addresses that DNS gives for the storage host and its
    bucket, ``storage`` those that it listens on. ``registry_port`` is where the
    registry takes connections, ``registry_certificate`` the host its
    certificate is for, ``bucket`` the host that blobs are redirected to. With
    ``storage_fails`` the storage host answers 503 to everything.
    """

    records: tuple[str, ...] = (STORAGE_ADDRESS,)
    storage: tuple[str, ...] = (STORAGE_ADDRESS,)
    registry_port: int = 443
    registry_certificate: str = REGISTRY
    realm: str = f"https://{AUTH}/auth"
    bucket: str = BUCKET
    storage_fails: bool = False


class Fetch(NamedTuple):
    """A blob that the storage host was asked for."""

    address: str
    host: str
    digest: str
    status: int


class Region:
    """Nothing runs before `take`, which brings everything up in the shape that is asked for."""

    def __init__(self, space: Space, folder: Path, authority: Authority) -> None:
        folder.mkdir()
        self._space, self._folder = space, folder
        hosts = ((REGISTRY,), (AUTH, OTHER_AUTH), (STORAGE, f"*.{STORAGE}"), (OTHER_HOST,))
        self._certificates = {names[0]: authority.issue(*names) for names in hosts}
        self._signer = authority.issue_signer(ISSUER)
        self._records = Shape().records
        self.dns = Unbound(
            *(folder, "source-dns", 53, ["aliyuncs.com"]),
            records=[f"{name} 5 IN A {address}" for name, address in (ADDRESSES | _MORE).items()],
            host=RESOLVER,
            within=space.within(),
        )
        self.registry = self._process("registry", "docker-registry", "serve", folder / "registry.json")
        self.front = self._process(
            "nginx", "nginx", "-e", "stderr", "-p", f"{folder}/", "-c", folder / "nginx.conf"
        )
        self.tokens = self._process(
            "tokens", sys.executable, "-m", "tests.netns.tokens", folder / "tokens.json"
        )
        self.processes = [self.dns.process, self.registry, self.front, self.tokens]
        self._write_token_settings()

    def _process(self, name: str, *argv: str | Path) -> Process:
        return Process(name, self._space.within(*argv), self._folder / f"{name}.log")

    def _write_token_settings(self) -> None:
        served, signer = self._certificates[AUTH], self._signer
        Settings(
            *(AUTH_ADDRESS, 443),
            *(str(served.certificate), str(served.key), str(signer.certificate), str(signer.key)),
            *(ISSUER, {USER: PASSWORD}),
        ).write(self._folder / "tokens.json")

    # -- shape --------------------------------------------------------------

    def take(self, shape: Shape) -> None:
        """Start what does not run, and bring the rest into this shape."""
        if not self.tokens.alive:
            self.tokens.start(lambda: self._space.listens(AUTH_ADDRESS, 443))
        self._run(self.registry, "registry.json", self._registry_settings(shape), _BACKEND)
        listening = f"{REGISTRY_ADDRESS}:{shape.registry_port}"
        self._run(self.front, "nginx.conf", self._nginx_settings(shape), listening)
        if not self.dns.process.alive:
            self.dns.start()
            self._records = Shape().records
        if shape.records != self._records:
            self._records = shape.records
            for name in (STORAGE, BUCKET):
                self.dns.replace(name, *(f"A {address}" for address in shape.records))

    def _run(self, process: Process, file: str, settings: str, listening: str) -> None:
        """Let ``process`` run with these settings, and do nothing if it does already."""
        path = self._folder / file
        if process.alive and path.read_text() == settings:
            return
        process.kill()
        path.write_text(settings)
        address, _, port = listening.rpartition(":")
        process.start(lambda: self._space.listens(address, int(port)))

    def _registry_settings(self, shape: Shape) -> str:
        # JSON is YAML.
        token = {
            "realm": shape.realm,
            "service": SERVICE,
            "issuer": ISSUER,
            "rootcertbundle": str(self._signer.certificate),
        }
        redirect = {"name": "redirect", "options": {"baseurl": f"https://{shape.bucket}/"}}
        return json.dumps(
            {
                "version": 0.1,
                "log": {"accesslog": {"disabled": True}},
                "storage": {
                    "filesystem": {"rootdirectory": str(self._folder / "blobs")},
                    "maintenance": {"uploadpurging": {"enabled": False}},
                },
                "http": {"addr": _BACKEND, "host": f"https://{REGISTRY}", "secret": "of this world alone"},
                "auth": {"token": token},
                "middleware": {"storage": [redirect]},
            }
        )

    def _nginx_settings(self, shape: Shape) -> str:
        query = f"Expires=1764000000&OSSAccessKeyId=test&Signature={SIGNATURE}"
        certificate, storage = self._certificates[shape.registry_certificate], self._certificates[STORAGE]
        failing = "return 503;" if shape.storage_fails else ""
        ports = (f"listen {address}:{port};" for address in shape.storage for port in ("443 ssl", "80"))
        return f"""
            # One process, whose end is the end of all of it.
            daemon off; master_process off; user root; pid nginx.pid;
            events {{ }}
            http {{
              log_format fetches '$server_addr $host $uri $status';
              access_log off;
              client_max_body_size 0;
              client_body_temp_path temp; proxy_temp_path temp; fastcgi_temp_path temp;
              uwsgi_temp_path temp; scgi_temp_path temp;
              server {{
                listen {REGISTRY_ADDRESS}:{shape.registry_port} ssl;
                ssl_certificate {certificate.certificate}; ssl_certificate_key {certificate.key};
                location / {{
                  proxy_pass http://{_BACKEND};
                  proxy_set_header Host $http_host;
                  proxy_set_header X-Forwarded-Proto https;
                  proxy_redirect "~^(https://[^/]+/docker/.*)$" "$1?{query}";
                }}
              }}
              server {{
                {" ".join(ports)}
                ssl_certificate {storage.certificate}; ssl_certificate_key {storage.key};
                access_log fetches.log fetches;
                root blobs;
                {failing}
                if ($arg_Signature != "{SIGNATURE}") {{ return 403; }}
              }}
            }}
        """

    # -- what happened ---------------------------------------------------------

    def fetches(self) -> list[Fetch]:
        """Return what the storage host was asked for, oldest first."""
        lines = (self._folder / "fetches.log").read_text().splitlines()
        words = [line.split() for line in lines]
        return [Fetch(address, host, path.split("/")[-2], int(code)) for address, host, path, code in words]
