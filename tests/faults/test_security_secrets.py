"""Secrets are planted wherever one can be given, everything is made to talk, and nothing said holds one."""

from __future__ import annotations

import base64
import json
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from aiohttp import web

from dnsproxy.config import parse
from dnsproxy.errors import ConfigError
from tests.certificates import make_certificate
from tests.e2e.processes import dnsproxy_argv, run_command, wait_for
from tests.e2e.world import REGISTRY, STORAGE, World, fetch
from tests.fakes.hooked_registry import DIGEST, MANIFEST, Registry, Threaded, redirect, unauthorized
from tests.netns.authority import Authority

pytestmark = pytest.mark.faults

AUTH_HOST = "dockerauth.cn-shanghai.aliyuncs.com"
TOLD_BUCKET = f"cri-example123-registry.{STORAGE}"
PAGES = ("/", "/health", "/ready", "/metrics", "/api/v1/status", "/api/v1/history")


class Planted:
    """Words that must not come out, by what they are; ``spoken`` is all that was said so far, by whom."""

    def __init__(self) -> None:
        self.words: dict[str, str] = {}
        self.spoken: dict[str, str] = {}

    def plant(self, what: str) -> str:
        self.words[what] = f"planted{secrets.token_hex(9)}"
        return self.words[what]

    def plant_key(self, what: str, path: Path) -> None:
        """Have no line of the private key in a PEM file come out."""
        key = path.read_text().partition("PRIVATE KEY-----\n")[2].partition("-----END")[0]
        self.words |= {f"{what}, line {number}": line for number, line in enumerate(key.splitlines())}

    def leaks(self) -> list[str]:
        return [
            f"{what} in {who}"
            for what, word in self.words.items()
            for who, text in self.spoken.items()
            if any(form in text for form in _forms(word))
        ]


def _forms(word: str) -> set[str]:
    plain = word.encode()
    # Base64 of it alone, and the part of it that is the same wherever it stands in a longer text.
    inner = {base64.b64encode(bytes(shift) + plain)[4:-4].decode() for shift in range(3)}
    return {word, word[:16], word[-16:], quote(word, safe=""), plain.hex(), *inner}


class Talker:
    """A registry with a token service and a signed redirect; every secret of theirs is planted."""

    def __init__(self, planted: Planted, folder: Path) -> None:
        self.bearer = planted.plant("the registry's token")
        self.signature = planted.plant("the signature of a Location")
        self.status = 200
        authority = Authority(folder / "ca")
        self.ca_file = authority.file
        self.passwords: list[str] = []
        self.registry = Registry(authority.issue(REGISTRY, AUTH_HOST), self._handle)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/auth":
            self.passwords.append(request.headers.get("Authorization", ""))
            return web.json_response({"token": self.bearer}, status=self.status)
        if request.headers.get("Authorization") != f"Bearer {self.bearer}":
            realm = f"https://{AUTH_HOST}:{self.registry.port}/auth"
            return unauthorized(f'Bearer realm="{realm}",service="registry"')
        if "/manifests/" in request.path:
            return web.json_response(MANIFEST)
        if request.path.endswith(DIGEST):
            return redirect(f"https://{TOLD_BUCKET}/blob?Signature={self.signature}")
        return web.Response(status=404)


@pytest.fixture
def planted() -> Planted:
    return Planted()


@pytest.fixture
def talker(world: World, planted: Planted, tmp_path: Path) -> Iterator[Talker]:
    """A world in which every key that takes a secret has one, and all log all they can."""
    made = Talker(planted, tmp_path)
    with Threaded(made.registry) as registry:
        _configure(world, planted, made, registry.port)
        world.source.start()
        for host, address in (
            (REGISTRY, "127.0.0.1"),
            (AUTH_HOST, "127.0.0.1"),
            (TOLD_BUCKET, "100.118.28.43"),
        ):
            world.source.replace(host, f"A {address}")
        world.upstream.start()
        yield made


def _configure(world: World, planted: Planted, talker: Talker, port: int) -> None:
    def file(what: str, content: str = "{}") -> str:
        path = world.folder / what.replace(" ", "-")
        path.write_text(content.format(planted.plant(what)) + "\n")
        path.chmod(0o600)
        return str(path)

    planted.plant_key("the signing key", world.key)
    certificate = make_certificate(world.folder, "dns.example")
    planted.plant_key("the key of the listener", certificate)
    (source,) = world.configuration()["learn"]["sources"]
    userinfo = f"http://user:{planted.plant('a password in a URL')}@127.0.0.1"
    query = f"?Signature={planted.plant('a signature in a URL')}"
    names = [{"name": REGISTRY, "role": "registry", "allowed": ["127.0.0.0/8"]}]
    world.configure_registry(
        auth="discover",
        storage="discover",
        names=names,
        discover={
            "port": port,
            "ca_file": str(talker.ca_file),
            "repository": "library/image",
            "credentials_file": file("the password of the registry", "robot:{}"),
        },
    )
    token = file("the helper's token")
    world.configure(
        helper={"token_file": token},
        learn={
            "sources": [
                source | {"token_file": token},
                # The helper itself, which refuses it; nobody; and a server that is no helper at all.
                {"url": f"{userinfo}:{world.helper_port}/v1/snapshot{query}"},
                {"url": f"{userinfo}:{world.take_port()}/v1/snapshot{query}"},
                {"url": f"{userinfo}:{world.admin_port}/no{query}", "token_file": file("a source's token")},
            ],
        },
        serve={
            "tls": {
                "listen": [f"127.0.0.1:{world.take_port()}"],
                "cert_file": str(certificate),
                "key_file": str(certificate),
            }
        },
        admin={"token_file": file("the admin token")},
        log={"level": "debug", "format": "json"},
    )


# Commands that need no order of their own.
COMMANDS: tuple[tuple[str, ...], ...] = (
    *(("check",), ("status",), ("status", "--json"), ("refresh",), ("flush",), ("history",), ("freeze",)),
    *(("unfreeze",), ("explain", TOLD_BUCKET, "--json"), ("routes",)),
    *(("serve",), ("helper",)),  # both run already, and say so
)


def _talk(world: World, planted: Planted, *commands: tuple[str, ...]) -> None:
    """Have every page, every refusal and these commands speak."""
    token = planted.words["the admin token"]
    for path in PAGES:
        for value in (f"Bearer {token}", "Bearer nothing", f"Basic {token}"):
            page = fetch(world.admin_port, path, {"Authorization": value})
            planted.spoken[f"{path} to {value[:6]}"] = f"{page.headers}{page.body.decode()}"
    for path in ("/v1/snapshot", "/health", "/nothing"):
        page = fetch(world.helper_port, path, {"Authorization": "Bearer nothing"})
        planted.spoken[f"the helper's {path}"] = f"{page.headers}{page.body.decode()}"
    for words in commands:
        option = () if words == ("check",) else ("--config",)
        arguments: list[str | Path] = [*words, *option, world.config]
        done = run_command(*dnsproxy_argv(*arguments))
        planted.spoken[" ".join(words)] = done.stdout + done.stderr


@pytest.mark.timeout(300)  # it runs many commands, one after the other
def test_no_secret_is_ever_told(world: World, planted: Planted, talker: Talker) -> None:
    world.start_helper()
    world.start_proxy()
    token = planted.words["the admin token"]
    bearer = {"Authorization": f"Bearer {token}"}
    wait_for(lambda: world.server.short(TOLD_BUCKET) == ["100.118.28.43"], "the bucket was found out")
    # The secrets were in use, or there would be nothing to tell.
    password = planted.words["the password of the registry"]
    assert "Basic " + base64.b64encode(f"robot:{password}".encode()).decode() in talker.passwords
    status = fetch(world.admin_port, "/api/v1/status", bearer).json()
    assert [source["last_error"] is None for source in status["sources"]] == [True, False, False, False]
    resolver = f"127.0.0.1:{world.dns_port}"
    _talk(world, planted, *COMMANDS, ("doctor", "--json", "--resolver", resolver))
    # The token service refuses, and the tokens and keys that files hold are spoilt, which is told too.
    talker.status = 403
    (world.folder / "the-password-of-the-registry").write_text(f"no colon {password}\n")
    wait_for(lambda: world.helper.events("helper.discover_failed"), "the helper objects")
    helpers_token = planted.words["the helper's token"]
    (world.folder / "the-helper's-token").write_text(f"two {helpers_token}\n")
    _talk(world, planted, ("status",))
    assert world.proxy.stop() == 0
    assert world.helper.stop() == 0
    for program in (world.proxy, world.helper):
        planted.spoken[f"the log of the {program.name}"] = program.text()
    assert "learned.source_failed" in world.proxy.text()
    assert planted.leaks() == []


def test_a_leak_would_be_noticed(planted: Planted) -> None:
    word = planted.plant("a word")
    for text in (word, f"Basic {base64.b64encode(f'u:{word}'.encode()).decode()}", json.dumps({"a": word})):
        planted.spoken = {"somebody": text}
        assert planted.leaks() == ["a word in somebody"]
    planted.spoken = {"somebody": "nothing of it"}
    assert planted.leaks() == []


@pytest.mark.parametrize(
    "line",
    [
        "forward: {{upstreams: ['https://user:{}@10.0.0.5/dns-query']}}",
        "forward: {{upstreams: ['tls://user:{}@10.0.0.5#a.example']}}",
        "forward: {{upstreams: ['user:{}@10.0.0.5']}}",
        "forward: {{bootstrap: ['tcp://user:{}@10.0.0.5']}}",
        "helper: {{resolvers: ['user:{}@10.0.0.5']}}",
        "helper: {{listen: 'user:{}@127.0.0.1:1'}}",
        "learn: {{sources: [{{url: 'htp://user:{}@host/'}}]}}",
        "learn: {{sources: [{{url: 'http://user:{}@host/ x'}}]}}",
        "learn: {{sources: [{{url: 'dns://user:{}@10.0.0.5'}}]}}",
        "learn: {{sources: [{{url: 'http://user:{0}@h/'}}, {{url: 'http://user:{0}@h/'}}]}}",
        "admin: {{token: {}}}",
        "admin: {{token_file: [{}]}}",
        "admin: {}",
        "helper: {{id: 'x', password: {}}}",
    ],
)
def test_a_mistake_beside_a_secret_does_not_show_it(planted: Planted, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(line.format(planted.plant("a secret")), "config.yaml")
    planted.spoken["check"] = str(caught.value)
    assert "config.yaml:1: " in str(caught.value)
    assert planted.leaks() == []


# -- files -----------------------------------------------------------------------------


def test_files_with_secrets_are_their_owners_whatever_the_umask(world: World) -> None:
    folder = world.folder / "made"
    argv = dnsproxy_argv("keygen", folder)
    assert run_command("sh", "-c", 'umask 0; exec "$@"', "sh", *argv).returncode == 0
    assert _mode(folder / "helper.key") == 0o600
    assert _mode(folder / "helper.pub") == 0o644
    world.configure(learn={"sources": [{"url": f"dns://{world.source.endpoint}"}], "trusted_keys": []})
    world.source.start()
    world.upstream.start()
    world.proxy.run_by("sh", "-c", 'umask 0; exec "$@"', "sh")
    world.start_proxy()
    world.wait_ready()
    assert world.command("pin", REGISTRY, "10.1.2.3").returncode == 0
    assert world.proxy.stop() == 0
    kept = {path.name: _mode(path) for path in world.state_file.parent.iterdir()}
    name = world.state_file.name
    assert kept == {name: 0o600, f"{name}.key": 0o600}


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
