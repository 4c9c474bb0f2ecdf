from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from dnsproxy import config
from dnsproxy.errors import ConfigError
from dnsproxy.settings.stores import KubernetesPlace, S3Place

OSS = {"bucket": "snapshots", "endpoint": "https://oss-cn-hangzhou-internal.aliyuncs.com"}


def test_the_place_names_endpoint_bucket_and_key() -> None:
    assert S3Place.model_validate({"bucket": "snapshots"}).place == "s3://snapshots/dnsproxy/snapshot.jws"
    place = S3Place.model_validate({**OSS, "key": "a/b.jws"})
    assert place.place == "s3://oss-cn-hangzhou-internal.aliyuncs.com/snapshots/a/b.jws"
    assert place.addressing == "virtual"


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"bucket": "Snapshots"}, "bucket"),
        ({"bucket": "a/b"}, "bucket"),
        ({**OSS, "endpoint": "oss-cn-hangzhou.aliyuncs.com"}, "endpoint"),
        ({**OSS, "endpoint": "https://me:secret@oss.example"}, "endpoint"),
        ({**OSS, "endpoint": "https://oss.example/snapshots"}, "endpoint"),
        ({**OSS, "endpoint": "http://127.0.0.1:9000"}, "addressing: path"),
        ({**OSS, "endpoint": "http://[::1]:9000"}, "addressing: path"),
        ({**OSS, "endpoint": "http://oss.example", "ca_file": "ca.pem"}, "ca_file is for an https endpoint"),
        ({**OSS, "key": "/a"}, "key"),
        ({**OSS, "key": "a/../b"}, "key"),
        ({**OSS, "region": ""}, "region"),
        ({**OSS, "addressing": "dns"}, "addressing"),
    ],
)
def test_what_cannot_be_an_object(keys: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        S3Place.model_validate(keys)


def test_the_place_names_namespace_object_and_key() -> None:
    place = KubernetesPlace.model_validate
    assert place({}).place == "kubernetes://-/configmap/dnsproxy-snapshot/snapshot.jws"
    named = {"kind": "Secret", "object": "s", "namespace": "n", "key": "k"}
    assert place(named).place == "kubernetes://n/secret/s/k"
    # Two clusters are two places.
    places = {place({"kubeconfig": "f", "context": context}).place for context in ("a", "b", None)}
    assert len(places) == 3


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"kind": "Pod"}, "kind"),
        ({"object": "Snapshot"}, "object"),
        ({"namespace": "a.b"}, "namespace"),
        ({"key": "a/b"}, "key"),
        ({"key": ".."}, "key"),
        ({"context": "x"}, "give kubeconfig as well"),
    ],
)
def test_what_cannot_be_an_entry(keys: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        KubernetesPlace.model_validate(keys)


def test_mistakes_name_line_and_key() -> None:
    text = """\
helper:
  publish:
    - type: s3
      buckett: snapshots
learn:
  trusted_keys: [helper.pub]
  sources:
    - type: s3
      bucket: snapshots
      addressing: dns
"""
    with pytest.raises(ConfigError) as caught:
        config.parse(text, "c.yaml")
    lines = sorted(str(caught.value).splitlines())
    assert lines[0].startswith("c.yaml:10: learn.sources[0].addressing: ")
    assert lines[1:] == [
        "c.yaml:3: helper.publish[0].bucket: must be given",
        "c.yaml:4: helper.publish[0].buckett: unknown key; did you mean bucket?",
    ]
