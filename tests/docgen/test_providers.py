from __future__ import annotations

from dnsproxy.core.providers import PROVIDERS
from docgen import providers

PAGE = providers.page()


def test_every_provider_with_facts_has_its_section_and_its_sources() -> None:
    for key, provider in PROVIDERS.items():
        if provider.sources:
            assert f"\n## {provider.title} {{ #{key} }}\n" in PAGE
        for source in provider.sources:
            assert f"<{source}>" in PAGE


def test_a_section_has_names_defaults_and_what_is_not_known() -> None:
    section = PAGE.partition("{ #ecr }")[2].partition("\n## ")[0]
    assert "| `account` | must be given: an account id of 12 digits, such as `'123456789012'` |" in section
    assert (
        "| variant `standard`: `dkr.ecr`, IPv4 | registry: `<account>.dkr.ecr.<region>.<domain>`" in section
    )
    assert "domain `amazonaws.com.cn`" in section
    assert "no storage name is known" in section
    assert "default `regional`, where no name is known `discover`" in section
    assert "realms below no other host than the registry" in section
    assert "|" not in PAGE.partition("`(?:usgov")[2].partition("`")[0]


def test_an_optional_parameter_decides_the_default() -> None:
    assert "default `regional` with `endpoint`, else `none`" in PAGE.partition("{ #harbor }")[2]
