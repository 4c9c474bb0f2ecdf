from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.net.certname import mismatch
from tests.certificates import der, make_certificate


@pytest.mark.parametrize(
    ("presented", "host", "matches"),
    [
        ("a.example", "a.example", True),
        ("A.Example", "a.eXample", True),
        ("*.example", "a.example", True),
        ("*.oss.example", "a.oss.example", True),
        ("*.oss.example", "oss.example", False),
        ("*.oss.example", "a.b.oss.example", False),
        ("b.example", "a.example", False),
        ("example", "a.example", False),
        ("a.example.attacker.example", "a.example", False),
        ("f*.example", "foo.example", False),
        ("*", "example", False),
    ],
)
def test_names_are_compared_label_by_label(presented: str, host: str, matches: bool, tmp_path: Path) -> None:
    complaint = mismatch(der(make_certificate(tmp_path, presented)), host)
    assert complaint == (None if matches else f"its certificate is for {presented}")


def test_any_of_its_names_will_do(tmp_path: Path) -> None:
    certificate = der(make_certificate(tmp_path, "a.example", "b.example", "c.example", "d.example"))
    assert mismatch(certificate, "d.example") is None
    complaint = mismatch(certificate, "e.example")
    assert complaint == "its certificate is for a.example, b.example, c.example, ..."


def test_a_common_name_is_not_a_host(tmp_path: Path) -> None:
    assert mismatch(der(make_certificate(tmp_path)), "test") == "its certificate names no host"


@given(st.binary(max_size=200))
def test_any_octets_get_a_verdict(octets: bytes) -> None:
    assert mismatch(octets, "a.example") == "its certificate cannot be read"
