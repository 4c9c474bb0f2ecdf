from __future__ import annotations

from dnsproxy.core.providers import PROVIDERS
from dnsproxy.core.providers.generic import GENERIC
from dnsproxy.core.registry import Wanted


def test_it_makes_no_names_but_takes_hosts() -> None:
    assert GENERIC.host({}, "listed") is None
    assert (GENERIC.auth, GENERIC.default_storage({}, "listed")) == ("none", "none")
    assert GENERIC.wanted("g", {}, "listed", chart=False, auth="auth.example", storage="none") == [
        Wanted("auth.example.", "auth", "g")
    ]
    assert GENERIC.suffixes("auth", {}) == GENERIC.suffixes("storage", {}) == []


def test_every_provider_is_found_and_says_where_its_facts_are_from() -> None:
    assert list(PROVIDERS) == ["acr", "ecr", "azure", "tcr", "swr", "harbor", "generic"]
    for key, provider in PROVIDERS.items():
        assert provider.key == key
        assert provider.notes
        assert provider.sources or key == "generic"
        for parameter in provider.parameters:
            example = parameter.example.strip("'")
            variant = parameter.variants[0] if parameter.variants else provider.default_variant
            assert provider.complaints({parameter.key: example}, variant) == {}
