from __future__ import annotations

import sys

import pytest

from dnsproxy.transport import extras
from dnsproxy.transport.extras import missing_extras, needs_extra


def test_only_what_is_used_and_not_installed_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda library: None if library == "obstore" else object())
    assert missing_extras({"url", "s3", "kubernetes"}) == ["s3"]
    assert missing_extras({"url", "etcd"}) == []


def test_looking_loads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("obstore", "lightkube"):
        monkeypatch.delitem(sys.modules, library, raising=False)
    assert missing_extras({"s3", "kubernetes"}) == []
    assert not {"obstore", "lightkube"} & sys.modules.keys()


def test_what_to_install_is_said() -> None:
    assert needs_extra("s3") == "s3 needs another package: pip install 'obstore>=0.11,<0.13'"
