"""What the status page says of single addresses, and what of everything needs attention.

Both are read from the document of ``/api/v1/status`` alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from dnsproxy.admin.wording import plain, span

Document = Mapping[str, Any]


class Tone(StrEnum):
    """How bad it is; the page gives each a sign and a word beside its colour."""

    BAD = "bad"
    WARN = "warn"
    OK = "ok"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Address:
    """One address of a name: whether it is answered, and why or why not. ``since`` is Unix seconds."""

    address: str
    served: bool
    tone: Tone
    word: str
    detail: str
    since: float | None
    routed: bool | None


@dataclass(frozen=True, slots=True)
class Concern:
    """Something to look at; ``section`` is the part of the page that tells more."""

    tone: Tone
    subject: str
    text: str
    section: str


def addresses(name: Document) -> list[Address]:
    """Return the addresses of an entry of ``names``, those without a probe or a route as well."""
    details = list(name["details"])
    told = {detail["address"] for detail in details}
    found = [_address(detail) for detail in details]
    return found + [
        Address(address, served=True, tone=Tone.NONE, word="not probed", detail="", since=None, routed=None)
        for address in name["addresses"]
        if address not in told
    ]


def _address(detail: Document) -> Address:
    is_served = detail["state"] == "serving"
    tone, word, text = _judged(detail, is_served=is_served)
    return Address(
        detail["address"],
        is_served,
        tone,
        word,
        text or "",
        detail["since"] if detail["probe"] else None,
        detail["routed"],
    )


def _judged(detail: Document, *, is_served: bool) -> tuple[Tone, str, str | None]:
    probe, reason = detail["probe"], detail["reason"]
    if detail["state"] == "refused":
        return Tone.BAD, "refused", reason
    if any(text != "ok" for text in probe.values()):
        return (Tone.WARN, "failed, still answered", reason) if is_served else (Tone.BAD, "failed", reason)
    if not is_served:
        return Tone.WARN, "held back", reason
    if probe:
        ports = ", ".join(probe)
        return Tone.OK, "ok", f"port{'s' if len(probe) > 1 else ''} {ports}"
    return Tone.NONE, "not probed", reason


def concerns(document: Document) -> list[Concern]:
    """Return what needs attention, the worst first."""
    found = [
        *_of_state(document),
        *_of_names(document),
        *_of_canary(document),
        *_of_upstreams(document),
        *_of_sources(document),
        *_of_workers(document),
    ]
    return sorted(found, key=lambda concern: concern.tone is not Tone.BAD)


def _of_state(document: Document) -> Iterator[Concern]:
    if document["draining"]:
        yield Concern(Tone.BAD, "draining", "the proxy is being stopped; clients should go elsewhere", "top")
    for missing in document["missing"]:
        yield Concern(Tone.BAD, plain(missing), "no address is known, clients get SERVFAIL", "names")
    frozen = document["frozen"]
    if frozen is not None:
        age = span(document["now"] - frozen["since"])
        back = frozen["rolled_back_to"]
        how = "frozen" if back is None else f"rolled back to serial {back}"
        yield Concern(Tone.WARN, "orders", f"{how} for {age}: what is learned anew is not taken", "orders")


def _of_names(document: Document) -> Iterator[Concern]:
    for name in document["names"]:
        subject = plain(name["name"])
        if name["status"] == "stale":
            text = f"stale: last confirmed {span(name['age'])} ago"
            yield Concern(Tone.WARN, subject, text, "names")
        for address in addresses(name):
            if address.tone in {Tone.BAD, Tone.WARN}:
                detail = f": {address.detail}" if address.detail else ""
                yield Concern(address.tone, subject, f"{address.address} {address.word}{detail}", "names")
            if address.routed is False:
                text = f"{address.address} is not in network.routed"
                yield Concern(Tone.WARN, subject, text, "names")


def _of_canary(document: Document) -> Iterator[Concern]:
    for trial in (document["canary"] or {"trials": ()})["trials"]:
        if trial["state"] == "rolled_back":
            text = f"{', '.join(trial['new'])} was rolled back: {trial['detail']}"
            yield Concern(Tone.WARN, plain(trial["name"]), text, "canary")


def _of_upstreams(document: Document) -> Iterator[Concern]:
    for upstream in document["upstreams"]:
        if upstream["looped"]:
            text = "leads back to this proxy, and is left out"
            yield Concern(Tone.BAD, upstream["name"], text, "upstreams")
        elif not upstream["up"]:
            yield Concern(Tone.BAD, upstream["name"], "upstream is down", "upstreams")


def _of_sources(document: Document) -> Iterator[Concern]:
    for source in document["sources"]:
        if source["last_error"]:
            yield Concern(Tone.WARN, source["url"], problem(source), "sources")


def problem(source: Document) -> str:
    """Return what is wrong with a source, without its URL, which stands beside it."""
    return str(source["last_error"]).removeprefix(f"{source['url']}: ")


def _of_workers(document: Document) -> Iterator[Concern]:
    for worker in document["workers"]:
        if not worker["answers"]:
            yield Concern(Tone.BAD, f"worker {worker['worker']}", "does not answer", "workers")
