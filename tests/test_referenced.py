from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import BaseModel

from dnsproxy import config, referenced
from dnsproxy.referenced import WRITTEN, changed_files
from dnsproxy.settings import Settings


def settings(folder: Path) -> Settings:
    return config.parse(f"""
registries: [{{name: hz, region: cn-hangzhou, instance: abc}}]
serve: {{tls: {{listen: ["127.0.0.1:853"], cert_file: {folder}/tls.pem, key_file: {folder}/tls.key}}}}
forward: {{upstreams: [system], ca_file: {folder}/ca.pem}}
learn:
  sources: [{{url: "https://192.0.2.1/v1/snapshot", token_file: {folder}/token}}]
  trusted_keys: [{folder}/a.pub, {{file: {folder}/b.pub, registries: [hz]}}]
  state_file: {folder}/learned.jws
admin: {{listen: "127.0.0.1:9153", token_file: {folder}/admin}}
""")


READ = ("tls.pem", "tls.key", "ca.pem", "token", "a.pub", "b.pub", "admin")


@pytest.mark.parametrize("name", READ)
def test_a_changed_file_is_named(tmp_path: Path, name: str) -> None:
    for each in READ:
        (tmp_path / each).write_text("before")
    before = referenced.referenced(settings(tmp_path))
    assert referenced.referenced(settings(tmp_path)) == before
    path = tmp_path / name
    other = tmp_path / "other"
    # Kubernetes swaps links; other programs write into the file. Size and time may be as they were.
    other.write_text("behind")
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)
    assert changed_files(before, referenced.referenced(settings(tmp_path))) == [str(path)]
    path.unlink()
    assert changed_files(before, referenced.referenced(settings(tmp_path))) == [str(path)]


def test_what_this_program_writes_is_left_out(tmp_path: Path) -> None:
    before = referenced.referenced(settings(tmp_path))
    (tmp_path / "learned.jws").write_text("a state")
    assert referenced.referenced(settings(tmp_path)) == before


def test_what_the_program_writes_is_a_field_of_the_settings() -> None:
    def models(kind: type[BaseModel]) -> set[type[BaseModel]]:
        return {kind}.union(*map(models, kind.__subclasses__()))

    fields = {(model.__name__, field) for model in models(BaseModel) for field in model.model_fields}
    assert fields >= WRITTEN


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "tls.pem")
    before = referenced.referenced(settings(tmp_path))
    assert before[str(tmp_path / "tls.pem")]
    assert before[str(tmp_path / "token")] == "No such file or directory"
