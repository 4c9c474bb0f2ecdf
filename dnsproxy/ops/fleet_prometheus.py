"""Read how proxies stand from Prometheus, which scrapes them: its HTTP API, version 1.

https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries
"""

from __future__ import annotations

import asyncio
import math
import re
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dnsproxy.core.standings import Standing
from dnsproxy.ops.fleet import FleetError, get_json, open_session

SELECTOR = 'job=~".*dnsproxy.*"'
# Octets. Some 40 samples of 250 octets for each of 10,000 proxies.
MAX_ANSWER = 128 * 1024 * 1024
_READ = (
    "dnsproxy_build_info|dnsproxy_proxy_info|dnsproxy_ready|dnsproxy_draining|dnsproxy_issuer_serial"
    "|dnsproxy_source_up|dnsproxy_convergence_seconds_bucket"
)
_LABEL = r'\s*[A-Za-z_][A-Za-z0-9_]*\s*(?:=~|!~|!=|=)\s*"(?:[^"\\]|\\.)*"\s*'
_SELECTOR = re.compile(rf"{_LABEL}(?:,{_LABEL})*,?")


@dataclass(frozen=True, slots=True)
class _Sample:
    """One element of an instant vector."""

    labels: Mapping[str, str]
    value: float

    @property
    def name(self) -> str:
        return self.labels.get("__name__", "")

    @property
    def target(self) -> tuple[str, str]:
        return self.labels.get("job", ""), self.labels.get("instance", "")


def check_selector(text: str) -> str:
    """Return ``text`` if it is a list of label matchers, without braces.

    Raises:
        ValueError: it is not.
    """
    if not _SELECTOR.fullmatch(text):
        raise ValueError(f"{text!r} is no list of label matchers; write for example {SELECTOR}")
    return text


async def ask_prometheus(
    url: str,
    selector: str = SELECTOR,
    *,
    token: str | None = None,
    context: ssl.SSLContext | None = None,
    timeout: float = 30.0,  # noqa: ASYNC109 - of each request
) -> list[Standing]:
    """Return the standing of each target that ``selector`` picks; ``url`` is where Prometheus' own pages are.

    A target that could not be scraped is in it as silent. One that is no target any more is not.

    Raises:
        FleetError: Prometheus does not answer, or refuses the query.
    """
    queries = (
        f"up{{{selector}}}",
        f'{{__name__=~"{_READ}",{selector}}}',
        f"max by (job, instance) (dnsproxy_learned_age_seconds{{{selector}}})",
    )
    async with open_session(token, context, len(queries)) as session:
        try:
            answers = await asyncio.gather(
                *(
                    get_json(session, f"{url}/api/v1/query", timeout, {"query": query}, MAX_ANSWER)
                    for query in queries
                )
            )
            up, told, ages = (list(_samples(answer)) for answer in answers)
        except FleetError as exc:
            raise FleetError(f"{url}: {exc}") from exc
    return _standings(up, told, ages)


def _samples(answer: Mapping[str, Any]) -> Iterable[_Sample]:
    try:
        for element in answer["data"]["result"]:
            yield _Sample(dict(element["metric"]), float(element["value"][1]))
    except (KeyError, TypeError, ValueError, IndexError) as exc:
        raise FleetError("the answer is not an instant vector of Prometheus") from exc


def _standings(up: list[_Sample], told: list[_Sample], ages: list[_Sample]) -> list[Standing]:
    by_target: dict[tuple[str, str], list[_Sample]] = {}
    for sample in told:
        by_target.setdefault(sample.target, []).append(sample)
    age = {sample.target: sample.value for sample in ages}
    is_up = {sample.target: sample.value == 1 for sample in up}
    # Behind a gateway or a federation there may be no `up` of the proxies' own.
    return [
        _standing(target, by_target.get(target, []), age.get(target), is_up=is_up.get(target, True))
        for target in dict.fromkeys((*is_up, *by_target))
    ]


def _standing(
    target: tuple[str, str],
    samples: list[_Sample],
    age: float | None,
    *,
    is_up: bool,
) -> Standing:
    endpoint = target[1]
    if not is_up:
        return Standing(endpoint, silence="Prometheus cannot scrape it")
    if not any(sample.name == "dnsproxy_ready" for sample in samples):
        return Standing(endpoint, silence="it is scraped, but has no metrics of dnsproxy serve")
    serials: dict[str, int] = {}
    values: dict[str, float] = {}
    texts: dict[str, str] = {}
    failing: list[str] = []
    buckets: list[tuple[float, float]] = []
    for sample in samples:
        if sample.name == "dnsproxy_issuer_serial" and math.isfinite(sample.value):
            serials[sample.labels.get("issuer", "")] = int(sample.value)
        elif sample.name == "dnsproxy_source_up" and not sample.value:
            failing.append(sample.labels.get("source", ""))
        elif sample.name == "dnsproxy_convergence_seconds_bucket":
            buckets.append((float(sample.labels.get("le", "nan")), sample.value))
        else:
            values[sample.name] = sample.value
            texts |= {key: sample.labels[key] for key in ("version", "proxy") if key in sample.labels}
    return Standing(
        endpoint,
        proxy=texts.get("proxy", ""),
        version=texts.get("version", ""),
        ready=values.get("dnsproxy_ready") == 1,
        draining=values.get("dnsproxy_draining") == 1,
        serials=serials,
        age=age,
        last_error="; ".join(f"{source} fails" for source in sorted(failing)) or None,
        buckets=sorted(buckets),
    )
