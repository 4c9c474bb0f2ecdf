"""What a registry's challenge and redirects tell, and whether to believe it. No I/O.

Everything in here was written by whoever answers at the registry's address. A host is
taken only when it lies below a domain that the configuration allows, or is the registry
itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from dnsproxy.core.registry import lies_below
from dnsproxy.errors import DiscoverError, Doubt

# Characters. Real headers have some 200, a signed Location some 600.
MAX_HEADER = 8192
MAX_URL = 4096
# Real fields have one or two.
MAX_CHALLENGES = 16
HTTP_PORT, HTTPS_PORT = 80, 443

# RFC 9110 §5.6.2, §11.2, §5.6.4; obs-text is let in, for a realm is refused later if it has any.
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SCHEME = re.compile(_WORD)
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|\Z))")
_QUOTED = r'"((?:[\t !#-\[\]-~\x80-\uffff]|\\[\t -~\x80-\uffff])*)"'
_PARAMETER = re.compile(rf"({_WORD})[ \t]*=[ \t]*(?:({_WORD})|{_QUOTED})")
_GAP = re.compile(r"[ \t,]*")
_SPACE = re.compile(r"[ \t]+")
_END = re.compile(r"[ \t]*(?:,|\Z)")

# No white space, control character or backslash: each is read differently by different programs.
_PLAIN = re.compile(r"[!-\[\]-~\x80-\U0010ffff]+")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)(?:[/?#].*)?")
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})+")
# The C library and browsers read 127.1, 0x7f000001 and 2130706433 as addresses too.
_NUMERIC = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?")
_PORT = re.compile(r"[1-9][0-9]{0,4}")

_REGION = r"[a-z]{2,8}(?:-[a-z0-9]{1,20}){1,4}"
_SERVICE = re.compile(
    rf"registry\.aliyuncs\.com:(?P<region>{_REGION}):(?:[a-z]+:(?P<instance>cri-[a-z0-9]{{1,48}}):.*|[0-9]+)"
)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to authenticate; ``scheme`` and the names of ``parameters`` are in lower case."""

    scheme: str
    parameters: dict[str, str] = field(default_factory=dict)
    token68: str | None = None


@dataclass(frozen=True, slots=True)
class Hint:
    """What the service of a challenge says of an ACR registry; ``instance`` is None for a personal one."""

    region: str
    instance: str | None


@dataclass(frozen=True, slots=True)
class Bearer:
    """A token service that may be believed.

    ``host`` is its canonical name; ``taken_over`` tells that it is the registry's own, so
    that clients need no further name.
    """

    realm: str
    host: str
    taken_over: bool
    service: str | None
    hint: Hint | None


def parse_challenges(values: Sequence[str]) -> list[Challenge]:
    """Read the ``WWW-Authenticate`` fields of a response (RFC 9110 §11.6.1).

    Several fields are one list, and one field may hold several challenges (§5.3).

    Raises:
        DiscoverError: ``TOO_LONG`` or ``MALFORMED``.
    """
    text = ", ".join(values)
    if len(text) > MAX_HEADER:
        raise DiscoverError(Doubt.TOO_LONG, f"WWW-Authenticate of more than {MAX_HEADER} characters")
    challenges: list[Challenge] = []
    position = _skip(_GAP, text, 0)
    while position < len(text):
        position = _read_element(challenges, text, position)
        if len(challenges) > MAX_CHALLENGES:
            raise DiscoverError(Doubt.TOO_LONG, f"WWW-Authenticate of more than {MAX_CHALLENGES} challenges")
        if _END.match(text, position) is None:
            raise _malformed(text, position)
        position = _skip(_GAP, text, position)
    return challenges


def _read_element(challenges: list[Challenge], text: str, position: int) -> int:
    """Read one element of the list: a parameter of the last challenge, or the start of the next."""
    parameter = _PARAMETER.match(text, position)
    if parameter is not None and challenges:
        _add(challenges[-1], parameter)
        return parameter.end()
    scheme = _SCHEME.match(text, position)
    if scheme is None:
        raise _malformed(text, position)
    position = _skip(_SPACE, text, scheme.end())
    token68 = _TOKEN68.match(text, position) if position > scheme.end() else None
    challenges.append(Challenge(scheme[0].lower(), token68=token68[0] if token68 else None))
    if token68 is not None:
        return token68.end()
    parameter = _PARAMETER.match(text, position) if position > scheme.end() else None
    if parameter is None:
        return position
    _add(challenges[-1], parameter)
    return parameter.end()


def _add(challenge: Challenge, parameter: re.Match[str]) -> None:
    name = parameter[1].lower()
    # Two of a name are for two readers to disagree on (RFC 9110 §11.2 forbids them).
    if name in challenge.parameters or challenge.token68 is not None:
        raise DiscoverError(Doubt.MALFORMED, f"WWW-Authenticate: {_shown(name)} does not belong there")
    quoted = parameter[3]
    challenge.parameters[name] = parameter[2] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)


def _skip(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    return match.end() if match else position


def _malformed(text: str, position: int) -> DiscoverError:
    return DiscoverError(
        Doubt.MALFORMED, f"WWW-Authenticate cannot be read at {_shown(text[position : position + 20])}"
    )


def judge_bearer(
    challenges: Iterable[Challenge], registry: str, port: int, suffixes: Sequence[str]
) -> Bearer | None:
    """Return the token service of the first Bearer challenge; None when there is no such challenge.

    ``registry`` is the canonical name that was asked, ``port`` where it was asked;
    ``suffixes`` are canonical names. The realm must be https, on 443 or ``port``.

    Raises:
        DiscoverError: its realm is missing or must not be believed.
    """
    bearer = next((entry for entry in challenges if entry.scheme == "bearer"), None)
    if bearer is None:
        return None
    realm = bearer.parameters.get("realm")
    if not realm:
        raise DiscoverError(Doubt.NO_REALM, "a Bearer challenge without a realm")
    scheme, host, stated = _split("realm", realm)
    if scheme != "https":
        raise DiscoverError(Doubt.NOT_HTTPS, f"realm: {_shown(scheme)} in place of https")
    if stated not in {None, HTTPS_PORT, port}:
        raise DiscoverError(Doubt.PORT, f"realm: port {stated} of {_shown(host)} is not allowed")
    _check_host("realm", host, registry, suffixes)
    service = bearer.parameters.get("service")
    return Bearer(realm, host, host == registry, service, read_hint(service))


def judge_redirect(location: str, registry: str, suffixes: Sequence[str]) -> str | None:
    """Return the canonical host of a blob's ``Location``; None when it is the registry itself.

    http is as good as https: layers are checked by their digest, and the port is for
    clients to use. No message holds the query, which is signed.

    Raises:
        DiscoverError: it must not be believed.
    """
    if location.startswith("/") and not location.startswith("//") and _PLAIN.fullmatch(location):
        return None
    scheme, host, _ = _split("Location", location)
    if scheme not in {"http", "https"}:
        raise DiscoverError(Doubt.NOT_A_URL, f"Location: {_shown(scheme)} in place of http or https")
    _check_host("Location", host, registry, suffixes)
    return None if host == registry else host


def _split(what: str, url: str) -> tuple[str, str, int | None]:
    """Return scheme, canonical host and port (None when not stated) of an absolute URL."""
    if len(url) > MAX_URL:
        raise DiscoverError(Doubt.TOO_LONG, f"{what}: more than {MAX_URL} characters")
    match = _URL.fullmatch(url) if _PLAIN.fullmatch(url) else None
    if match is None:
        raise DiscoverError(Doubt.NOT_A_URL, f"{what}: not an absolute URL")
    scheme, authority = match[1].lower(), match[2]
    if "@" in authority:
        raise DiscoverError(Doubt.USERINFO, f"{what}: a user name in front of the host")
    if "[" in authority:
        raise DiscoverError(Doubt.IP_LITERAL, f"{what}: an address in place of a name")
    host, colon, port = authority.partition(":")
    host = host.lower()
    if not host.isascii():
        raise DiscoverError(Doubt.IDN, f"{what}: {_shown(host)} is not ASCII")
    if _NUMERIC.fullmatch(host):
        raise DiscoverError(Doubt.IP_LITERAL, f"{what}: an address in place of a name")
    if _HOST.fullmatch(host) is None or len(host) > 253:
        raise DiscoverError(Doubt.BAD_HOST, f"{what}: {_shown(host)} is not a host name")
    if colon and not (_PORT.fullmatch(port) and int(port) <= 65_535):
        raise DiscoverError(Doubt.PORT, f"{what}: {_shown(port)} is not a port")
    return scheme, f"{host}.", int(port) if colon else None


def _check_host(what: str, host: str, registry: str, suffixes: Sequence[str]) -> None:
    if host == registry:
        return
    suffix = next((each for each in suffixes if lies_below(host, [each])), None)
    if suffix is None:
        raise DiscoverError(Doubt.FOREIGN, f"{what}: {_shown(host)} is not below an allowed domain")
    # Below a domain that was written down by hand, what looks like another script is no registry's.
    if any(label.startswith("xn--") for label in host.removesuffix(suffix).split(".")):
        raise DiscoverError(Doubt.IDN, f"{what}: {_shown(host)} stands for another script")


def read_hint(service: str | None) -> Hint | None:
    """Return what an ACR service string says: ``registry.aliyuncs.com:<region>:china:<id>:<suffix>``.

    The personal edition writes ``registry.aliyuncs.com:<region>:<number>``. Seen with few
    instances, so it is a hint: what is built from it is judged like all else.
    """
    match = _SERVICE.fullmatch(service or "")
    return Hint(match["region"], match["instance"]) if match else None


def default_bucket(hint: Hint | None) -> str | None:
    """Return the canonical name of the bucket that an instance has unless it was given another one."""
    if hint is None or hint.instance is None:
        return None
    return f"{hint.instance}-registry.oss-{hint.region}-internal.aliyuncs.com."


def _shown(text: str) -> str:
    # Whatever it holds, one line of a log.
    return ascii(text if len(text) <= 100 else text[:97] + "...")
