"""DNS over TLS and over HTTPS, towards upstreams and towards clients, beside programs that know both."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.certificates import make_certificate
from tests.e2e.digging import Reply, Server
from tests.e2e.processes import Process, accepts, run_command, wait_for
from tests.e2e.world import ADDRESSES, OTHER, OTHER_ADDRESS, REGISTRY, World

pytestmark = pytest.mark.e2e

NAME = "dns.example"
# The query of RFC 8484 §4.1.1, for www.example.com.
RFC_QUERY = "AAABAAABAAAAAAAAA3d3dwdleGFtcGxlA2NvbQAAAQAB"


@pytest.fixture
def certificate(world: World) -> Path:
    return make_certificate(world.folder, NAME)


class Secure:
    """Unbound with DNS over TLS and over HTTPS on ports of their own."""

    def __init__(self, world: World, certificate: Path, name: str = "secure") -> None:
        self.dot, self.doh = world.take_port(), world.take_port()
        self.unbound = world.add_unbound(
            name,
            ["example"],
            [f"{OTHER} 60 IN A {OTHER_ADDRESS}", f"a.{OTHER} 60 IN A {OTHER_ADDRESS}"],
            [
                *(f"interface: 127.0.0.1@{port}" for port in (self.dot, self.doh)),
                *(f"tls-port: {self.dot}", f"https-port: {self.doh}"),
                *(f'tls-service-key: "{certificate}"', f'tls-service-pem: "{certificate}"'),
            ],
        )

    def upstream(self, transport: str, name: str = NAME) -> str:
        if transport == "tls":
            return f"tls://127.0.0.1:{self.dot}#{name}"
        return f"https://127.0.0.1:{self.doh}/dns-query#{name}"


def failures(world: World, upstream: str, reason: str) -> float:
    labels = f'reason="{reason}",upstream="{upstream}"'
    swapped = f'upstream="{upstream}",reason="{reason}"'
    name = "dnsproxy_upstream_failures_total"
    return world.metric(f"{name}{{{labels}}}") + world.metric(f"{name}{{{swapped}}}")


# -- upstreams


@pytest.mark.parametrize(("transport", "method"), [("tls", "post"), ("https", "post"), ("https", "get")])
def test_p17_unbound_as_upstream(world: World, certificate: Path, transport: str, method: str) -> None:
    secure = Secure(world, certificate)
    upstream = secure.upstream(transport)
    world.configure(
        # Probes in the background would be counted too.
        forward={
            "upstreams": [upstream],
            "ca_file": str(certificate),
            "https_method": method,
            "probe": {"interval": "forever"},
        },
        cache={"size": 0},
        learn={"sources": []},
    )
    secure.unbound.start()
    world.start_proxy()
    for _ in range(5):
        assert world.server.dig(OTHER).data == [OTHER_ADDRESS]
    assert world.server.dig(f"none.{OTHER}").rcode == "NXDOMAIN"
    assert world.metric(f'dnsproxy_upstream_sent_total{{upstream="{upstream}"}}') == 6
    # It closes our connection; that costs no query.
    secure.unbound.process.kill()
    secure.unbound.start()
    assert world.server.dig(OTHER).data == [OTHER_ADDRESS]
    for reason in ("network", "timeout", "tls", "http", "certificate"):
        assert failures(world, upstream, reason) == 0


@pytest.mark.parametrize("transport", ["tls", "https"])
def test_p17_an_upstream_with_another_name_gives_way_to_the_next(
    world: World, certificate: Path, transport: str
) -> None:
    secure = Secure(world, certificate)
    wrong = secure.upstream(transport, "other.example")
    world.configure(
        forward={
            "upstreams": [wrong, world.upstream.endpoint],
            "policy": "sequential",
            "ca_file": str(certificate),
            "probe": {"interval": "forever"},
        },
        learn={"sources": []},
    )
    secure.unbound.start()
    world.upstream.start()
    world.start_proxy()
    assert world.server.dig(OTHER).data == [OTHER_ADDRESS]
    assert failures(world, wrong, "certificate") == 1
    (told,) = world.proxy.events("upstream.unreachable")
    assert (told["upstream"], told["reason"]) == (wrong, "certificate")
    assert "Hostname mismatch" in told["detail"]


def test_p17_a_hung_tls_upstream_gives_way_and_comes_back(world: World, certificate: Path) -> None:
    secure = Secure(world, certificate)
    upstream = secure.upstream("tls")
    world.configure(
        forward={
            "upstreams": [upstream, world.upstream.endpoint],
            "policy": "sequential",
            "ca_file": str(certificate),
        },
        cache={"size": 0},
        learn={"sources": []},
    )
    secure.unbound.start()
    world.upstream.start()
    world.start_proxy()
    assert world.server.dig(f"a.{OTHER}").data == [OTHER_ADDRESS]
    secure.unbound.process.signal(signal.SIGSTOP)
    assert world.server.dig(OTHER).data == [OTHER_ADDRESS]
    assert failures(world, upstream, "timeout") >= 1
    secure.unbound.process.signal(signal.SIGCONT)
    # Only the upstream over TLS knows this one.
    wait_for(lambda: world.server.dig(f"a.{OTHER}").data == [OTHER_ADDRESS], "it is used again")


def test_p17_the_name_of_an_upstream_is_found_by_bootstrap(world: World, certificate: Path) -> None:
    secure = Secure(world, certificate)
    bootstrap = world.add_dnsmasq("bootstrap", {NAME: "127.0.0.1"})
    world.configure(
        forward={
            "upstreams": [f"tls://{NAME}:{secure.dot}"],
            "bootstrap": [bootstrap.endpoint],
            "ca_file": str(certificate),
        },
        learn={"sources": []},
    )
    secure.unbound.start()
    bootstrap.start()
    world.start_proxy()
    assert world.server.dig(OTHER).data == [OTHER_ADDRESS]


# -- listeners


class Listening:
    """A proxy with an encrypted listener that has learned every name."""

    def __init__(self, world: World, certificate: Path) -> None:
        self.world = world
        self.certificate = certificate
        self.port = world.take_port()
        tls = {
            "listen": [f"127.0.0.1:{self.port}"],
            "cert_file": str(certificate),
            "key_file": str(certificate),
        }
        world.configure(serve={"tls": tls})
        world.start()

    def kdig(self, *arguments: str) -> Reply:
        trust = (f"+tls-ca={self.certificate}", f"+tls-hostname={NAME}")
        return Server(self.port).kdig(*trust, *arguments)

    def curl(self, target: str, *arguments: str) -> tuple[str, bytes]:
        """The head and the content of the response."""
        content = self.world.folder / "content"
        done = run_command(
            *("curl", "-sS", "--max-time", "5", "--cacert", self.certificate, "-D", "-", "-o", content),
            *(
                "--resolve",
                f"{NAME}:{self.port}:127.0.0.1",
                f"https://{NAME}:{self.port}{target}",
                *arguments,
            ),
        )
        assert done.returncode == 0, done.stderr
        return done.stdout, content.read_bytes()


@pytest.fixture
def listening(world: World, certificate: Path) -> Listening:
    return Listening(world, certificate)


@pytest.mark.parametrize("way", [["+tls"], ["+https"], ["+https-get"]])
def test_p17_kdig_is_answered(listening: Listening, way: list[str]) -> None:
    for name, address in ((REGISTRY, ADDRESSES[REGISTRY]), (OTHER, OTHER_ADDRESS)):
        assert listening.kdig(*way, name).data == [address]
    padded = listening.kdig(*way, "+padding=128", REGISTRY)
    assert re.search(r"Received 468 B", padded.text)
    assert "PADDING" in padded.text


def test_p17_kdig_asks_again_on_the_same_connection(listening: Listening) -> None:
    text = listening.kdig("+tls", "+keepopen", REGISTRY, OTHER, REGISTRY).text
    assert text.count("status: NOERROR") == 3
    # One handshake is printed once; a second connection would print its own.
    assert text.count("WARNING") == 0


def test_p17_dig_asks_again_on_the_same_tcp_connection_and_is_told_how_long_it_lasts(
    listening: Listening,
) -> None:
    text = listening.world.server.dig("+tcp", "+keepopen", "+keepalive", REGISTRY, "+tcp", OTHER).text
    assert text.count("status: NOERROR") == 2
    assert "TCP KEEPALIVE: 10.0 secs" in text or "TCP-KEEPALIVE: 10.0 secs" in text


@pytest.mark.parametrize(("flag", "version"), [("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/2")])
def test_p17_curl_gets_a_message(listening: Listening, flag: str, version: str) -> None:
    head, content = listening.curl(f"/dns-query?dns={RFC_QUERY}", flag)
    assert head.startswith(f"{version} 200")
    assert "content-type: application/dns-message" in head
    assert content[:3] == b"\0\0\x81"
    message = listening.world.folder / "message"
    message.write_bytes(content[:2] + b"\x01\x00" + content[4:6] + bytes(6) + content[12:])
    posted, answer = listening.curl(
        "/dns-query", flag, "-H", "content-type: application/dns-message", "--data-binary", f"@{message}"
    )
    assert posted.startswith(f"{version} 200")
    assert answer[12:] == content[12:]
    for target, status in (("/", 404), ("/dns-query", 400)):
        assert listening.curl(target, flag)[0].startswith(f"{version} {status}")


def test_p17_a_new_certificate_is_presented_without_a_restart(listening: Listening, tmp_path: Path) -> None:
    assert listening.kdig("+tls", REGISTRY).data == [ADDRESSES[REGISTRY]]
    successor = make_certificate(tmp_path, NAME)
    listening.certificate.write_bytes(successor.read_bytes())
    assert listening.kdig("+tls", REGISTRY).data == [ADDRESSES[REGISTRY]]
    assert len(listening.world.proxy.events("tls.certificate_loaded")) == 1


def test_p17_unbound_forwards_to_the_proxy_over_tls(listening: Listening) -> None:
    world, port = listening.world, listening.world.take_port()
    config = world.folder / "down.conf"
    config.write_text(
        f"""
server:
  interface: 127.0.0.1
  port: {port}
  do-daemonize: no
  username: ""
  chroot: ""
  pidfile: ""
  use-syslog: no
  module-config: "iterator"
  do-not-query-localhost: no
  tls-cert-bundle: "{listening.certificate}"
forward-zone:
  name: "."
  forward-tls-upstream: yes
  forward-addr: "127.0.0.1@{listening.port}#{NAME}"
"""
    )
    downstream = Process("down", ["unbound", "-d", "-c", config], world.folder / "down.log")
    try:
        downstream.start(lambda: accepts(port))
        for _ in range(2):
            assert Server(port).dig(REGISTRY).data == [ADDRESSES[REGISTRY]]
        assert Server(port).dig(OTHER).data == [OTHER_ADDRESS]
    finally:
        downstream.kill()
