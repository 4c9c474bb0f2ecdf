"""The whole file: its sections, and what must hold between them."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from dnsproxy.core.registry import Wanted
from dnsproxy.settings.learning import HelperSettings, LearnSettings
from dnsproxy.settings.registries import RegistrySettings
from dnsproxy.settings.serving import (
    AdminSettings,
    CacheSettings,
    ForwardSettings,
    LogSettings,
    ServeSettings,
)
from dnsproxy.settings.values import Model


class Settings(Model):
    """The whole file."""

    registries: list[RegistrySettings] = Field(default_factory=list)
    helper: HelperSettings = HelperSettings()
    learn: LearnSettings = LearnSettings()
    serve: ServeSettings = ServeSettings()
    forward: ForwardSettings = ForwardSettings()
    cache: CacheSettings = CacheSettings()
    admin: AdminSettings = AdminSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _distinct_labels(self) -> Self:
        labels = [registry.name for registry in self.registries]
        if len(set(labels)) != len(labels):
            raise ValueError("registries: two have the same name")
        return self

    def wanted(self) -> list[Wanted]:
        """Return the names of all registries; the first registry that lists a name owns it."""
        by_name: dict[str, Wanted] = {}
        for registry in self.registries:
            for entry in registry.wanted():
                by_name.setdefault(entry.name, entry)
        return list(by_name.values())


def schema() -> dict[str, Any]:
    """Return the JSON schema of the file."""
    return Settings.model_json_schema(mode="validation")
