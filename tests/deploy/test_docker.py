"""The image's recipe and the Compose file. Building an image takes minutes: docs/testing.md says how."""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from tests.deploy.files import DEPLOY, Object, checked, output
from tests.e2e.processes import ROOT

pytestmark = pytest.mark.deploy

DOCKERFILE = DEPLOY / "docker" / "Dockerfile"
COMPOSE = DEPLOY / "compose.yaml"


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [
        (word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)
    ]


def test_hadolint_has_nothing_to_say(tool: Callable[[str], str]) -> None:
    assert output(tool("hadolint"), DOCKERFILE) == ""


def test_the_image_runs_as_a_numeric_user_that_is_not_root() -> None:
    final = [rest for word, rest in instructions() if word == "USER"]
    assert final == ["65532:65532"]


def test_the_base_is_pinned_by_its_tag_and_can_be_by_digest() -> None:
    (first, default), *_ = instructions()
    assert first == "ARG"
    assert re.fullmatch(r"PYTHON_IMAGE=docker\.io/library/python:3\.1[123]-slim-\w+", default)
    assert {rest.split()[0] for word, rest in instructions() if word == "FROM"} == {"${PYTHON_IMAGE}"}


def test_what_is_copied_is_let_through_and_little_else() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert rules[0] == "*"
    allowed = [rule[1:] for rule in rules if rule.startswith("!")]
    copied = {
        source
        for word, rest in instructions()
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    assert {source.partition("/")[0] for source in copied} == set(allowed)
    assert all((ROOT / source).exists() for source in copied)
    assert not any(
        fnmatch(name, rule) for rule in allowed for name in ("helper.key", ".git", "deploy", "tests")
    )


def compose(tool: Callable[[str], str]) -> Object:
    """The file as docker-compose understands it, all profiles, anchors and variables resolved."""
    text = output(tool("docker-compose"), "--file", COMPOSE, "--profile", "*", "config")
    document: Object = yaml.safe_load(text)
    return document


def test_compose_takes_the_file_and_every_service_is_confined(tool: Callable[[str], str]) -> None:
    services = compose(tool)["services"]
    assert set(services) == {"proxy", "helper", "keygen"}
    for service in services.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "cap_add" not in service
        assert "privileged" not in service
        assert any(entry.startswith("/tmp") for entry in service["tmpfs"])  # noqa: S108 - a mount's place
    assert services["helper"]["healthcheck"]["test"][-2:] == ["--helper", "--ready"]


def test_compose_publishes_what_the_configuration_listens_on(
    tool: Callable[[str], str], tmp_path: Path
) -> None:
    document = compose(tool)
    settings = checked((DEPLOY / "compose" / "config.yaml").read_text(), tmp_path)
    proxy, helper = document["services"]["proxy"], document["services"]["helper"]
    published = {(port["target"], port["protocol"]) for port in proxy["ports"]}
    (listen,) = settings.serve.listen
    assert settings.admin.listen is not None
    assert published == {(listen.port, "udp"), (listen.port, "tcp"), (settings.admin.listen.port, "tcp")}
    assert [port["target"] for port in helper["ports"]] == [settings.helper.listen.port]
    # Nothing is open to the world unless an address is given.
    assert {port["host_ip"] for port in [*proxy["ports"], *helper["ports"]]} == {"127.0.0.1"}


def test_compose_mounts_what_the_configuration_names(tool: Callable[[str], str], tmp_path: Path) -> None:
    document = compose(tool)
    settings = checked((DEPLOY / "compose" / "config.yaml").read_text(), tmp_path)
    targets = {
        name: {volume["target"] for volume in service["volumes"]}
        for name, service in document["services"].items()
    }
    assert str(settings.learn.trusted_keys[0]) in targets["proxy"]
    assert str(settings.learn.state_file.parent) in targets["proxy"]
    assert str(settings.helper.signing_key_file.parent) in targets["helper"]
    assert targets["keygen"] == {str(settings.helper.signing_key_file.parent)}
    made = re.findall(r"mkdir -p (.*?) &&", dict(instructions_joined())["RUN"])[0].split()
    # A new named volume takes owner and mode from the image's folder, which the user must own.
    assert {f"/layout{settings.helper.signing_key_file.parent}", "/layout/var/lib/dnsproxy"} == set(made)


def instructions_joined() -> list[tuple[str, str]]:
    return [("RUN", rest) for word, rest in instructions() if word == "RUN" and "/layout" in rest]
