"""docs/providers.md, from the data of the providers themselves."""

from __future__ import annotations

from collections.abc import Iterator

from dnsproxy.core.provider import Parameter, Provider
from dnsproxy.core.providers import PROVIDERS

HEAD = """\
# Registries of several clouds

Generated from `dnsproxy/core/providers/` by `make pages`; one file there is one provider. A registry says
with `provider` whose service it is, and with a few keys which one; the names follow. What a provider does not
know, the registry is asked for, and what it tells is believed below the domains listed here only.

Every fact is from the documents and captures named with it. Nothing was measured on a live account, so
where a document says nothing, this page says so, and `discover` finds out instead of a guess.

## What is asked, and what the answers mean { #discovery }

| asked | answer | meaning |
|---|---|---|
| `GET https://REGISTRY/v2/` | 401, `Bearer realm="https://HOST/..."` | HOST hands out tokens |
| | 401 with `Basic`, or 200 | no token service is named, which is no failure; a known one is kept |
| the smallest blob of `discover.repository`, then a layer | a redirect | the host of `Location` has it |
| | 200 for both | no storage host is named; a known one is kept |

A realm that is not https, one that is not below the provider's domains, and a redirect to a host that is
not, are refused, named in the log (`helper.discover_failed`) and change nothing. `discover.realm_suffixes`
and `discover.storage_suffixes` replace the provider's domains.

## What must be routed { #routes }

Each name's addresses, from the hosts that pull: the registry, what hands out tokens or passwords, and the
storage. `dnsproxy routes` prints them from what is learned, and for OSS the ranges that Alibaba publishes.

By default only internal addresses are answered (RFC 1918, 100.64.0.0/10, fc00::/7). A name whose addresses
are public even in its own region, such as S3 behind a gateway endpoint, is then without an answer rather
than led astray: route it privately, or set `network.allow_public`, or give the one name `allowed` ranges.

## Several clouds in one proxy { #several }

List a registry for each, with its own `network`; a helper runs in each source region.
`deploy/examples/clouds.yaml` is such a file.

- Names belong to one registry. Two that claim the same name are a mistake, told with both places. A service
  that two registries of one region share, such as the OSS of `acr`, may stand in both.
- Limit each helper's key to its registries, or the key of one cloud speaks for the names of all. What a
  limited key says is known by its registries and the helper's id: `frankfurt/helper-a`. A discovered name
  belongs to who tells it, so registries whose keys are kept apart must not believe hosts below one domain;
  that is a mistake in the configuration, which says what to narrow.

    ```yaml
    learn:
      sources:
        - {url: "https://10.94.0.10:8953/v1/snapshot"}
        - {url: "https://10.20.1.10:8953/v1/snapshot"}
        - {url: "dns://10.60.0.53", registries: [harbor]}
      trusted_keys:
        - {file: /etc/dnsproxy/hangzhou.pub, registries: [hangzhou]}
        - {file: /etc/dnsproxy/frankfurt.pub, registries: [frankfurt]}
    registries:
      - {name: hangzhou, region: cn-hangzhou, instance: xxxxxx}
      - {name: frankfurt, provider: ecr, region: eu-central-1, account: "123456789012"}
      - {name: harbor, provider: harbor, hostname: harbor.corp.example}
    ```

- A helper looks for every registry of its own file. Leave out those that its region does not resolve, or it
  logs and publishes them as failed; that takes nothing from the helper that knows them.

A registry that is none of these is `generic`: list its names under `names`, and with `auth: discover` or
`storage: discover` say whom to believe.
"""

SECTION = """
## {title} {{ #{key} }}

`provider: {key}`{example}

| | |
|---|---|
{rows}
{notes}
{sources}"""


def page() -> str:
    """Return the page."""
    listed = [provider for provider in PROVIDERS.values() if provider.sources]
    return HEAD + "".join(map(_section, listed))


def _section(provider: Provider) -> str:
    return SECTION.format(
        title=provider.title,
        key=provider.key,
        example=f", for example `deploy/examples/{provider.key}.yaml`",
        rows="".join(f"| {name} | {value} |\n" for name, value in _rows(provider)),
        notes=provider.notes.lstrip("\n"),
        sources="Sources: " + ",\n".join(f"<{source}>" for source in provider.sources) + ".\n",
    )


def _rows(provider: Provider) -> Iterator[tuple[str, str]]:
    for parameter in provider.parameters:
        yield f"`{parameter.key}`", _parameter(parameter)
    several = len(provider.variants) > 1
    for key, variant in provider.variants.items():
        name = (
            f"variant `{key}`" + (f": {variant.meaning}" if variant.meaning else "") if several else "names"
        )
        parts = [("registry", variant.registry), ("chart", variant.chart)]
        parts += [("auth", template) for template in variant.auth]
        parts += [("storage", template) for template in variant.storage]
        yield name, "<br>".join(f"{role}: `{_shown(template)}`" for role, template in parts if template)
    if provider.partitions:
        yield (
            "domains by region",
            "<br>".join(
                f"`{partition.regions.replace('|', '&#124;')}`: "
                + ", ".join(f"{key} `{value}`" for key, value in partition.values.items())
                + ("" if partition.storage or not _makes_storage(provider) else "; no storage name is known")
                for partition in provider.partitions
            ),
        )
    yield "`auth`", f"default `{provider.auth}`; realms below {_domains(provider.realm_suffixes)}"
    yield (
        "`storage`",
        f"default {_default_storage(provider)}; redirects to {_domains(provider.storage_suffixes)}",
    )
    yield (
        "public addresses",
        "with `network.allow_public`" if provider.public else "for one name, with `allowed`",
    )


def _parameter(parameter: Parameter) -> str:
    need = "must be given" if parameter.required else "may be given"
    where = f" for variant {' and '.join(parameter.variants)}" if parameter.variants else ""
    form = f": {parameter.form}" if parameter.form else ""
    return f"{need}{where}{form}, such as `{parameter.example}`"


def _makes_storage(provider: Provider) -> bool:
    return any(variant.storage for variant in provider.variants.values())


def _default_storage(provider: Provider) -> str:
    if not all(parameter.required for parameter in provider.parameters):
        return "`regional` with `endpoint`, else `none`"
    return ", where no name is known ".join(f"`{value}`" for value in provider.storage)


def _domains(templates: tuple[str, ...]) -> str:
    return ", ".join(f"`{_shown(t)}`" for t in templates) or "no other host than the registry"


def _shown(template: str) -> str:
    return template.replace("{", "<").replace("}", ">")
