from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from dnsproxy.config import load, parse
from dnsproxy.errors import MessageError
from dnsproxy.settings import Settings, plain
from dnsproxy.settings.plain import pack, unpack
from dnsproxy.system import system_resolvers
from dnsproxy.workers.start import for_one_of

ROOT = Path(__file__).parents[2]
FILES = [
    ROOT / "config.example.yaml",
    *sorted((ROOT / "deploy").rglob("examples/*.yaml")),
    *sorted((ROOT / "deploy").rglob("config.yaml")),
]
# Every kind of value, and every kind of source and target.
FULL = r"""
registries:
  - name: hangzhou
    region: cn-hangzhou
    instance: abc
    auth: dockerauth.aliyuncs.com
    names:
      - {name: '*.xn--bcher-kva.example', addresses: [10.0.0.9, 'fd00::1'], ports: [443, 80]}
      - {name: e.example, allowed: [8.8.8.0/24]}
      - {name: 'a\.b.example', cname: c.example}
      - {name: d.example, ports: []}
    network: {routed: [10.0.0.0/8], conflicts: ['fd00::/8']}
  - {name: other, provider: ecr, region: cn-north-1, account: '012345678901', storage: none}
helper:
  publish: [{type: file, path: /a}, {type: etcd, endpoints: ['https://10.0.0.1:2379'], key: /k, elect: true},
            {type: s3, bucket: abc}, {type: kubernetes}]
  canary: {proxies: ['https://10.0.0.1:9153']}
learn:
  trusted_keys: [/etc/key.pub, {file: /etc/other.pub, registries: [other]}]
  sources: [{url: 'https://h.example/v1/snapshot'}, {type: s3, bucket: abc}, {type: kubernetes},
            {type: etcd, endpoints: ['http://10.0.0.1:2379'], key: /k}, {url: 'dns://10.0.0.5'}]
  refresh: 0.1003
  max_stale: forever
  canary: {share: 0.5%, hold: 70m}
serve:
  listen: ['[::1]:5353', '127.0.0.1:53']
  workers: auto
  allow: ['fe80::/10', 192.0.2.0/24]
  tls: {listen: ['0.0.0.0:853'], cert_file: /c, key_file: /k}
forward:
  upstreams: [system, 'tcp://10.0.0.2', 'tls://10.0.0.5#dns.example', 'https://dns.example/x', '[fd00::2]:54']
  zones: {'a\.b.example': ['tls://[fd00::5]']}
  bootstrap: [10.0.0.2]
admin: {listen: null}
log: {queries: {sample: 7}, dnstap: {}}
"""


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_files_of_this_repository_arrive_as_they_are(file: Path) -> None:
    settings = load(file)
    assert unpack(pack(settings)) == settings


def test_every_kind_of_value_arrives_as_it_is() -> None:
    settings = parse(FULL)
    assert unpack(pack(settings)) == settings
    assert unpack(pack(Settings())) == Settings()


@pytest.mark.skipif(not system_resolvers(), reason="this host has no resolvers")
def test_the_part_of_one_worker_arrives_as_it_is() -> None:
    settings = for_one_of(parse(FULL), 3)
    assert unpack(pack(settings)) == settings


@pytest.mark.parametrize(
    "text",
    [b"", b"null", b"[]", b'{"serve": {"workers": 0}}', b'{"x": 1}', b"\xff", b"[" * 100_000, b"9" * 5000],
)
def test_anything_else_is_an_error(text: bytes) -> None:
    for packed in (text, zlib.compress(text), zlib.compress(text)[:-1]):
        with pytest.raises(MessageError, match="settings: "):
            unpack(packed)


def test_text_that_is_too_large_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "MAX_TEXT", 100)
    with pytest.raises(MessageError, match="more than 100 bytes"):
        unpack(pack(Settings()))


def test_the_error_never_quotes_the_value() -> None:
    with pytest.raises(MessageError) as caught:
        unpack(zlib.compress(b'{"serve": {"allow": ["secret"]}}'))
    assert "secret" not in str(caught.value)
