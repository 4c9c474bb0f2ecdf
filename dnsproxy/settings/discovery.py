"""How the helper asks a registry which other names it uses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from dnsproxy.settings.values import Model, Name


def _plain(value: str) -> str:
    if value == "." or "*" in value:
        raise ValueError(f"{value!r} is not one domain; write for example aliyuncs.com")
    return value


Domain = Annotated[Name, AfterValidator(_plain)]
# A path as the distribution specification has it, with a tag or a digest.
_PATH = r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*"
_REFERENCE = r"(?::[A-Za-z0-9_][A-Za-z0-9._-]{0,127}|@sha256:[0-9a-f]{64})?"


class DiscoverSettings(Model):
    """What to ask for, of whom, and whom to believe."""

    host: Domain | None = None
    """The name to ask, as clients use it. By default that of the instance; for generic, the first of `names`
    whose role is registry.
    """
    port: int = Field(443, ge=1, le=65_535)
    """Port of the registry and, besides 443, of its token service."""
    realm_suffixes: list[Domain] = Field(default_factory=lambda: ["aliyuncs.com."])
    """Only hosts below these domains, or the registry itself, are believed to be its token service. The
    default shown is that of acr; others have that of their provider, generic none.
    """
    storage_suffixes: list[Domain] = Field(default_factory=lambda: ["aliyuncs.com."])
    """The same for its storage."""
    ca_file: Path | None = None
    """PEM file of the authority of the registry's certificate; null: the system's."""
    credentials_file: Path | None = None
    """A docker `config.json`, or a file with one line `user:password`; needs `repository`. It is read anew
    each time, so a short-lived password can be replaced. null: asked without, as for a public image.
    """
    repository: str | None = Field(None, max_length=255, pattern=f"^{_PATH}{_REFERENCE}$")
    """A small image that may be pulled, such as `team/app:1.0`; without a tag, latest. With it the storage
    host is the one that a layer of this image is redirected to.
    """

    @model_validator(mode="after")
    def _used(self) -> Self:
        if self.credentials_file and not self.repository:
            raise ValueError("credentials_file needs a repository to ask for")
        return self
