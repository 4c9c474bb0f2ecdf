from __future__ import annotations

from pathlib import Path

import pytest

from dnsproxy import config
from dnsproxy.config_files import missing_files

TEXT = """\
registries:
  - name: a
    provider: harbor
    hostname: harbor.example
    discover: {{ca_file: {0}/registry-ca.pem}}
helper:
  token_file: {0}/helper-token
  publish_file: {0}/not-yet/snapshot.jws
  publish:
    - {{type: etcd, endpoints: [http://127.0.0.1:1], key: k, elect: true, peer_keys: [{0}/peer.pub]}}
learn:
  state_file: {0}/state/not-yet.jws
  sources:
    - {{url: http://10.0.0.1/v1/snapshot, token_file: {0}/there}}
  trusted_keys:
    - {0}/helper.pub
    - {{file: {0}/limited.pub, registries: [a]}}
serve:
  listen: [127.0.0.1:53]
  tls: {{listen: [127.0.0.1:853], cert_file: {0}/cert.pem, key_file: {0}}}
admin: {{token_file: {0}/admin-token}}
log: {{queries: {{file: {0}/queries.log}}}}
"""
SERVE = [
    "learn.trusted_keys[0]",
    "learn.trusted_keys[1].file",
    "serve.tls.cert_file",
    "serve.tls.key_file",
    "admin.token_file",
]
HELPER = ["registries[0].discover.ca_file", "helper.token_file", "helper.publish[0].peer_keys[0]"]


@pytest.fixture
def text(tmp_path: Path) -> str:
    (tmp_path / "there").write_text("token")
    return TEXT.format(tmp_path)


def places(text: str, role: str | None) -> list[str]:
    found = missing_files(config.parse(text), role)
    return [config.key_path(place) for place, _ in found]


def test_each_file_that_is_named_and_read_is_looked_for(text: str) -> None:
    assert sorted(places(text, None)) == sorted(HELPER + SERVE)


def test_each_command_needs_its_own_files(text: str) -> None:
    assert places(text, "serve") == SERVE
    # What the helper signs with has a default, which it cannot do without.
    assert places(text, "helper") == [*HELPER, "helper.signing_key_file"]


def test_the_reason_is_the_systems(text: str, tmp_path: Path) -> None:
    reasons = {config.key_path(place): reason for place, reason in missing_files(config.parse(text), None)}
    needs = "`dnsproxy serve` needs it"
    assert reasons["admin.token_file"] == f"{tmp_path}/admin-token: No such file or directory; {needs}"
    assert reasons["serve.tls.key_file"] == f"{tmp_path}: not a file; {needs}"
    assert reasons["helper.token_file"].endswith("; `dnsproxy helper` needs it")


def test_a_configuration_without_files_misses_none() -> None:
    assert places("{}", None) == places("{}", "serve") == []
