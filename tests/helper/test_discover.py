from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from dnsproxy.core.challenge import Bearer
from dnsproxy.errors import DiscoverError, Doubt, ResolveError
from dnsproxy.helper import discover as discover_module
from dnsproxy.helper.assemble import targets
from dnsproxy.helper.discover import Inconclusive, Outcome, Report, Target, discover
from dnsproxy.helper.seek import Seeker
from dnsproxy.settings import Settings
from dnsproxy.settings.discovery import DiscoverSettings
from tests.fakes.hooked_registry import DIGEST, MANIFEST, Registry, redirect, unauthorized
from tests.fakes.shapes import SHAPES, Shape
from tests.fakes.shapes import SIGNED as SHAPE_SIGNED
from tests.netns.authority import Authority, Certificate

HOST = "corp-registry-vpc.cn-hangzhou.cr.aliyuncs.com"
AUTH = "dockerauth-vpc.cn-hangzhou.aliyuncs.com"
BUCKET = "cri-abc-registry.oss-cn-hangzhou-internal.aliyuncs.com"
SERVICE = "registry.aliyuncs.com:cn-hangzhou:china:cri-abc:2a"
SIGNED = "Expires=1&Signature=s1gned"
TOKEN = "t0ken"  # noqa: S105 - the fake's own
PASSWORD = "pa55word"  # noqa: S105 - the same
BOTH = frozenset({"auth", "storage"})

Behave = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca") / "ca")


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Certificate:
    return authority.issue(HOST, AUTH)


class World:
    """A registry with its token service; ``behave`` may answer in their place."""

    def __init__(self, authority: Authority, certificate: Certificate) -> None:
        self.registry = Registry(certificate, self._handle)
        self.options: dict[str, Any] = {"ca_file": authority.file}
        self.location = f"https://{BUCKET}/data?{SIGNED}"
        self.manifest: Any = MANIFEST
        self.behave: Behave | None = None
        self.authorizations: list[tuple[str, str | None]] = []
        self.asked: list[str] = []
        self.queries: list[dict[str, str]] = []

    @property
    def challenge(self) -> str:
        return f'Bearer realm="https://{AUTH}:{self.registry.port}/auth",service="{SERVICE}"'

    async def addresses_of(self, name: str) -> tuple[str, ...]:
        self.asked.append(name)
        return ("127.0.0.1",)

    async def ask(self, *roles: str, **options: Any) -> Report:
        settings = DiscoverSettings(**{"port": self.registry.port, **self.options, **options})
        target = Target("hangzhou", f"{HOST}.", frozenset(roles) or BOTH, settings)
        return await discover(target, self.addresses_of)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.authorizations.append((request.path, request.headers.get("Authorization")))
        answer = await self.behave(request) if self.behave else None
        return answer or self.usual(request)

    def usual(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if request.host.startswith(AUTH):
            self.queries.append(dict(request.query))
            return web.json_response({"token": TOKEN})
        if path == "/v2/" or request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return unauthorized(self.challenge)
        if "/manifests/" in path:
            return web.json_response(self.manifest)
        return redirect(self.location)


@pytest.fixture
def world(authority: Authority, certificate: Certificate) -> World:
    return World(authority, certificate)


def reasons(report: Report) -> dict[str, Doubt]:
    return {role: got.reason for role, got in report.outcomes.items() if isinstance(got, DiscoverError)}


def unclear(report: Report) -> dict[str, Doubt]:
    return {role: got.reason for role, got in report.outcomes.items() if isinstance(got, Inconclusive)}


def named(report: Report) -> dict[str, Outcome]:
    """The outcomes; none is named by a response that is inconclusive."""
    return {role: () if isinstance(got, Inconclusive) else got for role, got in report.outcomes.items()}


def texts(report: Report) -> str:
    return " ".join(str(got) for got in report.outcomes.values())


async def behaving(world: World, behave: Behave, *roles: str, **options: Any) -> Report:
    world.behave = behave
    async with world.registry:
        return await world.ask(*roles, **options)


# --- what is found


async def test_one_anonymous_request_tells_auth_and_the_default_bucket(world: World) -> None:
    async with world.registry:
        report = await world.ask()
    assert report.outcomes == {"auth": (f"{AUTH}.",), "storage": (f"{BUCKET}.",)}
    assert world.registry.requests == [f"{HOST}/v2/"]
    assert world.authorizations == [("/v2/", None)]
    # Not the host's resolvers: the name was asked for where the helper asks.
    assert world.asked == [f"{HOST}."]


async def test_only_what_is_sought_is_told(world: World) -> None:
    async with world.registry:
        assert set((await world.ask("auth")).outcomes) == {"auth"}
        assert set((await world.ask("storage")).outcomes) == {"storage"}


async def test_an_instance_that_has_taken_over_its_auth_needs_no_auth_name(world: World) -> None:
    async def behave(_request: web.Request) -> web.StreamResponse:
        return unauthorized(f'Bearer realm="https://{HOST}:{world.registry.port}/auth",service="{SERVICE}"')

    report = await behaving(world, behave, realm_suffixes=[])
    assert report.outcomes == {"auth": (), "storage": (f"{BUCKET}.",)}


@pytest.mark.parametrize(
    "answer",
    [
        lambda: unauthorized('Basic realm="simple"'),
        lambda: web.Response(headers={"Docker-Distribution-Api-Version": "registry/2.0"}),
    ],
)
async def test_a_response_without_bearer_challenge_says_nothing_of_a_token_service(
    world: World, answer: Callable[[], web.Response]
) -> None:
    async def behave(_request: web.Request) -> web.StreamResponse:
        return answer()

    assert unclear(await behaving(world, behave, "auth")) == {"auth": Doubt.NO_BEARER}


async def test_a_challenge_over_two_fields(world: World) -> None:
    async def behave(_request: web.Request) -> web.StreamResponse:
        return unauthorized('Basic realm="a, b"', world.challenge)

    assert (await behaving(world, behave, "auth")).outcomes == {"auth": (f"{AUTH}.",)}


# --- the blob


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_blob_is_redirected_to_the_storage_host(world: World, scheme: str, status: int) -> None:
    async def behave(request: web.Request) -> web.StreamResponse | None:
        if "/blobs/" in request.path:
            return redirect(f"{scheme}://custom.oss-cn-hangzhou-internal.aliyuncs.com/d?{SIGNED}", status)
        return None

    report = await behaving(world, behave, repository="team/app:1.0")
    assert report.outcomes["storage"] == ("custom.oss-cn-hangzhou-internal.aliyuncs.com.",)
    assert world.registry.requests == [
        f"{HOST}/v2/",
        f"{AUTH}/auth",
        f"{HOST}/v2/team/app/manifests/1.0",
        f"{HOST}/v2/team/app/blobs/{DIGEST}",
    ]
    # The storage host is learned, and not asked.
    assert set(world.asked) == {f"{HOST}.", f"{AUTH}."}
    assert world.queries == [{"service": SERVICE, "scope": "repository:team/app:pull"}]


@pytest.mark.parametrize(
    ("repository", "path"),
    [("app", "app/manifests/latest"), (f"a/b@{DIGEST}", f"a/b/manifests/{DIGEST}")],
)
async def test_a_repository_names_a_manifest(world: World, repository: str, path: str) -> None:
    async with world.registry:
        await world.ask(repository=repository)
    assert f"{HOST}/v2/{path}" in world.registry.requests


async def test_the_index_of_several_platforms_leads_to_the_manifest_of_one(world: World) -> None:
    inner = "sha256:" + "d" * 64

    async def behave(request: web.Request) -> web.StreamResponse | None:
        if request.path.endswith("/manifests/latest"):
            return web.json_response({"manifests": [{"digest": "odd"}, {"digest": inner}]})
        return None

    report = await behaving(world, behave, repository="app")
    assert report.outcomes["storage"] == (f"{BUCKET}.",)
    assert f"{HOST}/v2/app/manifests/{inner}" in world.registry.requests


LAYER = "sha256:" + "e" * 64
WITH_LAYERS = {**MANIFEST, "layers": [{"digest": LAYER, "size": 9}, {"digest": "sha256:" + "f" * 64}]}


@pytest.mark.parametrize("target", ["/login", f"https://{HOST}/elsewhere", None])
async def test_a_registry_that_redirects_no_blob_says_nothing_of_its_storage(
    world: World, target: str | None
) -> None:
    async def behave(request: web.Request) -> web.StreamResponse | None:
        if "/blobs/" not in request.path:
            return None
        return redirect(target) if target else web.Response(body=b"{}")

    world.manifest = WITH_LAYERS
    report = await behaving(world, behave, repository="app")
    assert (report.outcomes["auth"], unclear(report)) == ((f"{AUTH}.",), {"storage": Doubt.NO_REDIRECT})
    # The configuration and one layer.
    assert [path.rpartition("/")[2] for path in world.registry.requests[3:]] == [DIGEST, LAYER]


async def test_a_layer_tells_the_storage_where_the_registry_serves_small_blobs_itself(world: World) -> None:
    async def behave(request: web.Request) -> web.StreamResponse | None:
        # Larger than is read, without end: the headers alone count.
        if not request.path.endswith(DIGEST):
            return None
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"{")
        await asyncio.Event().wait()
        return response

    world.manifest = WITH_LAYERS
    assert (await behaving(world, behave, repository="app")).outcomes["storage"] == (f"{BUCKET}.",)


@pytest.mark.parametrize("layers", [1, None, [], [1, {"digest": 1}], {"digest": LAYER}])
async def test_a_manifest_without_layers_leaves_the_configuration(world: World, layers: object) -> None:
    async def behave(request: web.Request) -> web.StreamResponse | None:
        return web.Response(body=b"{}") if "/blobs/" in request.path else None

    world.manifest = {**MANIFEST, "layers": layers}
    assert unclear(await behaving(world, behave, repository="app")) == {"storage": Doubt.NO_REDIRECT}
    assert len(world.registry.requests) == 4


async def test_a_layer_that_fails_is_a_failure(world: World) -> None:
    async def behave(request: web.Request) -> web.StreamResponse | None:
        if request.path.endswith(LAYER):
            return web.Response(status=404)
        return web.Response(body=b"{}") if "/blobs/" in request.path else None

    world.manifest = WITH_LAYERS
    assert reasons(await behaving(world, behave, repository="app")) == {"storage": Doubt.STATUS}


async def test_odd_responses_of_a_front_end_withdraw_no_discovered_name(world: World) -> None:
    """With a real server: a stray page that asks for a password, and small blobs served without redirect."""
    now = 0.0
    settings = DiscoverSettings(**{**world.options, "repository": "app"})

    async def ask(target: Target) -> Report:
        options = replace(target, options=settings.model_copy(update={"port": world.registry.port}))
        return await discover(options, world.addresses_of)

    async def odd(request: web.Request) -> web.StreamResponse | None:
        if request.path == "/v2/":
            return unauthorized('Basic realm="restricted"')
        return web.json_response(MANIFEST) if "/manifests/" in request.path else web.Response(body=b"{}")

    target = Target("hangzhou", f"{HOST}.", BOTH, settings)
    seeker = Seeker([target], ask, interval=30, monotonic=lambda: now, wall=lambda: now)
    async with world.registry:
        assert await seeker.ask_once(target)
        before = seeker.findings.found()
        assert [found.names for found in before] == [(f"{AUTH}.",), (f"{BUCKET}.",)]
        world.behave = odd
        with capture_logs() as logs:
            for later in (7200.0, 300.0, 300.0, 86_400.0):
                now += later
                assert await seeker.ask_once(target)
    assert seeker.findings.found() == before
    assert [(entry["event"], entry["role"], entry["reason"]) for entry in logs] == [
        ("helper.discover_inconclusive", "auth", "no_bearer"),
        ("helper.discover_inconclusive", "storage", "no_redirect"),
    ]


async def test_the_password_goes_to_the_token_service_and_nowhere_else(world: World, tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text(f"user:{PASSWORD}")
    file.chmod(0o600)
    with capture_logs() as logs:
        async with world.registry:
            report = await world.ask(repository="app", credentials_file=file)
    basic = "Basic " + base64.b64encode(f"user:{PASSWORD}".encode()).decode()
    assert world.authorizations == [
        ("/v2/", None),
        ("/auth", basic),
        ("/v2/app/manifests/latest", f"Bearer {TOKEN}"),
        (f"/v2/app/blobs/{DIGEST}", f"Bearer {TOKEN}"),
    ]
    assert report == Report({"auth": (f"{AUTH}.",), "storage": (f"{BUCKET}.",)}, exposed=False)
    assert logs == []
    file.chmod(0o644)
    async with world.registry:
        assert (await world.ask(repository="app", credentials_file=file)).exposed


async def test_a_registry_that_asks_for_the_password_itself_gets_it(world: World, tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text(f"user:{PASSWORD}")

    async def behave(request: web.Request) -> web.StreamResponse:
        if not request.headers.get("Authorization", "").startswith("Basic "):
            return unauthorized("Basic realm=x")
        return web.json_response(MANIFEST) if "/manifests/" in request.path else redirect(world.location)

    report = await behaving(world, behave, repository="app", credentials_file=file)
    assert report.outcomes["storage"] == (f"{BUCKET}.",)
    assert unclear(report) == {"auth": Doubt.NO_BEARER}


# --- what is not believed


HOSTILE = [
    ("https://auth.aliyuncs.com.attacker.example/auth", Doubt.FOREIGN),
    ("https://auth.aliyuncs.com@attacker.example/auth", Doubt.USERINFO),
    ("http://auth.aliyuncs.com/auth", Doubt.NOT_HTTPS),
    ("https://127.0.0.1/auth", Doubt.IP_LITERAL),
    ("https://auth.aliyuncs.com:22/auth", Doubt.PORT),
]


@pytest.mark.parametrize(("realm", "reason"), HOSTILE)
async def test_a_hostile_realm_gets_neither_belief_nor_password(
    world: World, tmp_path: Path, realm: str, reason: Doubt
) -> None:
    file = tmp_path / "credentials"
    file.write_text(f"user:{PASSWORD}")

    async def behave(_request: web.Request) -> web.StreamResponse:
        return unauthorized(f'Bearer realm="{realm}",service="{SERVICE}"')

    report = await behaving(world, behave, repository="app", credentials_file=file)
    assert reasons(report) == {"auth": reason, "storage": reason}
    assert world.registry.requests == [f"{HOST}/v2/"]


async def test_a_hostile_redirect_leaves_auth_known(world: World) -> None:
    world.location = f"https://bucket.aliyuncs.com.attacker.example/x?{SIGNED}"
    async with world.registry:
        report = await world.ask(repository="app")
    assert report.outcomes["auth"] == (f"{AUTH}.",)
    assert reasons(report) == {"storage": Doubt.FOREIGN}
    assert "s1gned" not in texts(report)


async def test_a_default_bucket_below_no_allowed_domain(world: World) -> None:
    async with world.registry:
        report = await world.ask(storage_suffixes=["elsewhere.example"])
    assert reasons(report) == {"storage": Doubt.FOREIGN}


async def test_a_service_without_instance_gives_no_bucket(world: World) -> None:
    async def behave(_request: web.Request) -> web.StreamResponse:
        return unauthorized(f'Bearer realm="https://{AUTH}/auth",service="registry.aliyuncs.com:r-x:26842"')

    report = await behaving(world, behave)
    assert report.outcomes["auth"] == (f"{AUTH}.",)
    assert reasons(report) == {"storage": Doubt.NO_HINT}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (unauthorized, Doubt.NOT_A_REGISTRY),
        (lambda: unauthorized("Negotiate"), Doubt.NOT_A_REGISTRY),
        (lambda: unauthorized('Bearer realm="open'), Doubt.MALFORMED),
        (lambda: unauthorized("Bearer service=x"), Doubt.NO_REALM),
        (lambda: web.Response(text="It works!"), Doubt.NOT_A_REGISTRY),
        (lambda: web.Response(status=404), Doubt.STATUS),
        (lambda: web.Response(status=500), Doubt.STATUS),
        (lambda: redirect(f"https://{HOST}/v2/"), Doubt.STATUS),
        (lambda: unauthorized("Bearer realm=" + "x" * 100_000), Doubt.NOT_HTTP),
        (lambda: unauthorized(*["Basic realm=" + "x" * 4000] * 4), Doubt.TOO_LONG),
        (lambda: web.Response(body=b"x" * 2_000_000), Doubt.TOO_LARGE),
    ],
)
async def test_answers_that_tell_nothing(
    world: World, answer: Callable[[], web.Response], reason: Doubt
) -> None:
    async def behave(_request: web.Request) -> web.StreamResponse:
        return answer()

    report = await behaving(world, behave)
    assert reasons(report) == {"auth": reason, "storage": reason}
    # Redirects are not followed, nothing is tried twice.
    assert world.registry.requests == [f"{HOST}/v2/"]


@pytest.mark.parametrize(
    ("part", "answer", "reason"),
    [
        ("/auth", lambda: web.Response(status=401), Doubt.CREDENTIALS),
        ("/auth", lambda: redirect("https://attacker.example/"), Doubt.STATUS),
        ("/auth", lambda: web.Response(text="no json"), Doubt.NOT_A_REGISTRY),
        ("/auth", lambda: web.json_response([]), Doubt.NOT_A_REGISTRY),
        ("/auth", lambda: web.json_response({}), Doubt.CREDENTIALS),
        ("/auth", lambda: web.json_response({"token": "a\r\nX: y"}), Doubt.CREDENTIALS),
        ("/auth", lambda: web.json_response({"token": 1}), Doubt.CREDENTIALS),
        ("/manifests/", lambda: web.Response(status=403), Doubt.CREDENTIALS),
        ("/manifests/", lambda: web.Response(status=404), Doubt.STATUS),
        ("/manifests/", lambda: web.json_response({}), Doubt.NO_BLOB),
        ("/manifests/", lambda: web.json_response({"manifests": 1}), Doubt.NO_BLOB),
        ("/manifests/", lambda: web.json_response({"manifests": [{"digest": DIGEST}]}), Doubt.NO_BLOB),
        ("/manifests/", lambda: web.json_response({"config": {"digest": "sha256:../../x"}}), Doubt.NO_BLOB),
        ("/blobs/", lambda: web.Response(status=404), Doubt.STATUS),
        ("/blobs/", lambda: web.Response(status=307), Doubt.NOT_A_URL),
        ("/blobs/", lambda: redirect("http://10.0.0.1/x"), Doubt.IP_LITERAL),
    ],
)
async def test_a_step_that_fails_is_named(
    world: World, part: str, answer: Callable[[], web.Response], reason: Doubt
) -> None:
    async def behave(request: web.Request) -> web.StreamResponse | None:
        return answer() if part in request.path else None

    report = await behaving(world, behave, repository="app")
    assert report.outcomes["auth"] == (f"{AUTH}.",)
    assert reasons(report) == {"storage": reason}
    assert TOKEN not in texts(report)


async def test_an_access_token_is_a_token(world: World) -> None:
    async def behave(request: web.Request) -> web.StreamResponse | None:
        return web.json_response({"access_token": TOKEN}) if request.path == "/auth" else None

    assert (await behaving(world, behave, repository="app")).outcomes["storage"] == (f"{BUCKET}.",)


# --- the way there


async def test_a_certificate_of_another_name_is_refused(world: World, authority: Authority) -> None:
    world.registry = Registry(authority.issue("other.example"), world._handle)
    async with world.registry:
        report = await world.ask("auth")
    assert reasons(report) == {"auth": Doubt.CERTIFICATE}
    assert "certificate" in texts(report)
    assert world.registry.requests == []


async def test_an_unknown_authority_is_refused(world: World) -> None:
    async with world.registry:
        assert reasons(await world.ask("auth", ca_file=None)) == {"auth": Doubt.CERTIFICATE}


async def test_a_file_of_authorities_that_cannot_be_used(world: World, tmp_path: Path) -> None:
    report = await world.ask("auth", ca_file=tmp_path / "none.pem", port=9)
    assert reasons(report) == {"auth": Doubt.CERTIFICATE}
    assert "No such file" in texts(report)


async def test_a_name_that_cannot_be_resolved(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def addresses_of(_name: str) -> tuple[str, ...]:
        raise ResolveError("10.0.0.2:53: NXDOMAIN")

    monkeypatch.setattr(world, "addresses_of", addresses_of)
    report = await world.ask("auth", port=9)
    assert reasons(report) == {"auth": Doubt.UNREACHABLE}
    assert "10.0.0.2:53: NXDOMAIN" in texts(report)


async def test_a_port_where_nobody_listens(world: World) -> None:
    async with world.registry:
        port = world.registry.port
    report = await world.ask("auth", port=port)
    assert reasons(report) == {"auth": Doubt.UNREACHABLE}
    assert "refused" in texts(report)


async def test_what_does_not_speak_tls(world: World) -> None:
    async def handle(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 smtp.example ESMTP\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        report = await world.ask("auth", port=server.sockets[0].getsockname()[1])
    assert reasons(report) == {"auth": Doubt.UNREACHABLE}


@pytest.mark.parametrize("part", ["/v2/", "/auth"])
async def test_a_body_without_end_meets_the_deadline(
    world: World, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    monkeypatch.setattr(discover_module, "DEADLINE", 0.5)

    async def behave(request: web.Request) -> web.StreamResponse | None:
        if not request.path.endswith(part):
            return None
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"{")
        await asyncio.Event().wait()
        return response

    report = await behaving(world, behave, repository="app")
    failed = {"storage"} if part == "/auth" else {"auth", "storage"}
    assert reasons(report) == dict.fromkeys(failed, Doubt.TIMEOUT)


async def test_a_name_without_an_answer_meets_the_deadline(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discover_module, "DEADLINE", 0.2)

    async def addresses_of(_name: str) -> tuple[str, ...]:
        await asyncio.Event().wait()
        return ()

    monkeypatch.setattr(world, "addresses_of", addresses_of)
    assert reasons(await world.ask("auth", port=9)) == {"auth": Doubt.TIMEOUT}


async def test_credentials_that_cannot_be_read(world: World, tmp_path: Path) -> None:
    async with world.registry:
        report = await world.ask(repository="app", credentials_file=tmp_path / "none")
    assert report.outcomes["auth"] == (f"{AUTH}.",)
    assert reasons(report) == {"storage": Doubt.CREDENTIALS}


@pytest.mark.parametrize("realm", ["https://other.example/auth", "http://auth.example/", "https://[::1/"])
def test_the_password_goes_nowhere_when_two_readers_of_the_realm_disagree(realm: str) -> None:
    judged = Bearer(realm, "auth.example.", taken_over=False, service=None, hint=None)
    with pytest.raises(DiscoverError, match="realm: not a usable URL") as caught:
        discover_module._token_url(judged, {"scope": "x"})
    assert caught.value.reason is Doubt.NOT_A_URL


# --- the clouds


class Cloud:
    """A registry that answers as ``shape`` says, to who has authenticated as that asks for."""

    def __init__(self, shape: Shape, authority: Authority, folder: Path) -> None:
        self.shape = shape
        self.challenge, self.location = shape.challenge, shape.location
        self.registry = Registry(authority.issue(shape.host), self._handle)
        self._authority = authority
        self._credentials = folder / "credentials"
        self._credentials.write_text(f"AWS:{PASSWORD}")
        self._credentials.chmod(0o600)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        header = request.headers.get("Authorization", "")
        if request.path.endswith(("/token", "/auth/")) and header.startswith("Basic "):
            return web.json_response({self.shape.token: TOKEN})
        scheme = self.challenge.partition(" ")[0]
        if request.path == "/v2/" or not header.startswith(f"{scheme} "):
            return unauthorized(self.challenge.replace("{port}", str(self.registry.port)))
        if "/manifests/" in request.path:
            return web.json_response(MANIFEST)
        return web.Response(body=b"{}") if self.location is None else redirect(self.location)

    async def ask(self) -> Report:
        async def addresses_of(_name: str) -> tuple[str, ...]:
            return ("127.0.0.1",)

        async with self.registry:
            return await discover(self._target(), addresses_of)

    def _target(self) -> Target:
        here = {
            "port": self.registry.port,
            "ca_file": str(self._authority.file),
            "credentials_file": str(self._credentials),
        }
        registry = {**self.shape.registry, "discover": {**self.shape.registry["discover"], **here}}
        (target,) = targets(Settings.model_validate({"registries": [registry]}))
        assert target.host == f"{self.shape.host}."
        return target


@pytest.fixture(params=SHAPES, ids=lambda shape: shape.name)
def cloud(request: pytest.FixtureRequest, authority: Authority, tmp_path: Path) -> Cloud:
    return Cloud(request.param, authority, tmp_path)


async def test_the_registries_of_all_clouds_tell_their_names(cloud: Cloud) -> None:
    report = await cloud.ask()
    assert named(report) == {"auth": cloud.shape.auth, "storage": cloud.shape.storage}
    assert set(unclear(report).values()) <= {Doubt.NO_BEARER, Doubt.NO_REDIRECT}
    assert SHAPE_SIGNED not in texts(report)
    assert PASSWORD not in texts(report)


async def test_a_realm_that_is_not_the_clouds_gets_no_password(cloud: Cloud) -> None:
    cloud.challenge = f'Bearer realm="{cloud.shape.foreign[0]}",service="x"'
    report = await cloud.ask()
    reason = Doubt.NOT_HTTPS if cloud.shape.foreign[0].startswith("http:") else Doubt.FOREIGN
    assert reasons(report) == {"auth": reason, "storage": reason}
    assert cloud.registry.requests == [f"{cloud.shape.host}/v2/"]


async def test_a_redirect_that_is_not_the_clouds_is_not_taken(cloud: Cloud) -> None:
    cloud.location = cloud.shape.foreign[1]
    report = await cloud.ask()
    assert named(report)["auth"] == cloud.shape.auth
    assert reasons(report) == {"storage": Doubt.FOREIGN}
    assert SHAPE_SIGNED not in texts(report)
