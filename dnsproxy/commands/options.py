"""Options that several commands share, and the way to a running proxy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from dnsproxy.core import names
from dnsproxy.core.learned import canonical_addresses
from dnsproxy.output import print_error

if TYPE_CHECKING:
    from dnsproxy.ops.client import AdminFiles

DEFAULT_CONFIG = Path("/etc/dnsproxy/config.yaml")
ConfigOption = Annotated[
    Path,
    typer.Option("--config", "-c", metavar="FILE", envvar="DNSPROXY_CONFIG", help="Configuration file."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a machine to read.")]


def _admin_url(value: str | None) -> str | None:
    if value is not None and re.match(r"https?://[^/]", value) is None:
        raise typer.BadParameter(f"{value!r} is not a URL; write for example http://127.0.0.1:9153")
    return value


def domain_name(value: str | None) -> str | None:
    """Return ``value`` if it is a domain name or missing; for the callback of an argument."""
    try:
        if value is not None:
            names.to_key(value)
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from exc
    return value


def ip_addresses(values: list[str]) -> list[str]:
    """Return ``values`` if all are IP addresses; for the callback of an argument."""
    try:
        canonical_addresses(values)
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from exc
    return values


AdminOption = Annotated[
    str | None,
    typer.Option(
        "--admin",
        metavar="URL",
        callback=_admin_url,
        help="Admin endpoint, as http://127.0.0.1:9153; else the one of --config.",
    ),
]


AdminCaOption = Annotated[
    Path | None,
    typer.Option(
        "--admin-ca-file",
        metavar="FILE",
        envvar="DNSPROXY_ADMIN_CA_FILE",
        help="Authorities (PEM) of an https admin endpoint; else admin.tls.cert_file, or the system's.",
    ),
]
AdminTokenOption = Annotated[
    Path | None,
    typer.Option(
        "--admin-token-file",
        metavar="FILE",
        envvar="DNSPROXY_ADMIN_TOKEN_FILE",
        help="Bearer token for the admin endpoint; without --admin, else admin.token_file.",
    ),
]


class _Given:
    """What stands in front of the command."""

    token: Path | None = None
    ca: Path | None = None


def set_admin_files(token: Path | None, ca: Path | None) -> None:
    """Take the options that stand in front of the command."""
    _Given.token, _Given.ca = token, ca


def admin_files() -> AdminFiles:
    """Return the files that the options in front of the command name."""
    from dnsproxy.ops.client import AdminFiles  # noqa: PLC0415

    return AdminFiles(_Given.token, _Given.ca)


def is_config_given(context: typer.Context) -> bool:
    """Return whether ``--config`` or its variable is given, so that the file is wanted beside ``--admin``."""
    source = context.get_parameter_source("config")
    return source is not None and source.name in {"COMMANDLINE", "ENVIRONMENT"}


def fail(reason: str, *more: str) -> NoReturn:
    """Print why the command fails, a line for each reason, to standard error; end it with exit code 1.

    The only way for a command to exit with 1 without an exception, so that no such exit is without a reason.
    """
    for line in (reason, *more):
        print_error(line)
    raise typer.Exit(1)


def ask(
    config: Path,
    admin: str | None,
    method: str,
    path: str,
    body: dict[str, Any] | None = None,
    **options: float,
) -> dict[str, Any]:
    """Return what the running proxy answers; ``admin`` is used in place of the configuration's endpoint.

    ``options`` are those of `AdminClient.call`.

    Raises:
        AdminError: no usable answer.
        ConfigError: the configuration is needed and cannot be used.
    """
    from dnsproxy.config import load  # noqa: PLC0415 - `check` and `--version` start faster without these
    from dnsproxy.ops.client import AdminClient  # noqa: PLC0415

    files = admin_files()
    client = AdminClient(admin, files) if admin else AdminClient.from_settings(load(config).admin, files)
    return client.call(method, path, body, **options)
