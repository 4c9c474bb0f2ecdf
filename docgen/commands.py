"""docs/reference/commands.md, from the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator

from docgen.program import Command, Parameter

HEAD = """\
# Commands

Generated from the program by `make pages`; `dnsproxy COMMAND --help` tells the same. The manual page
`dnsproxy(1)` comes with the package.

| exit code | meaning |
|---|---|
| 0 | all is well |
| 1 | a check failed, or the program could not start or reach what it needs: one line on standard error |
| 2 | wrong usage, or mistakes in the configuration: a line for each, with file, line and key path |
| 3 | the host refuses a system call that nothing replaces (a seccomp profile); standard error names it |
| 130 | ended by the keyboard (SIGINT) while a command ran |

`dnsproxy --version` prints the version. Commands that ask a running proxy take two options in front of the
command, as in `dnsproxy --admin-ca-file ca.pem status --admin https://10.0.0.1:9153`: `--admin-ca-file` (or
`DNSPROXY_ADMIN_CA_FILE`), the authorities of its certificate, and `--admin-token-file` (or
`DNSPROXY_ADMIN_TOKEN_FILE`), a bearer token. Without them, `admin.tls.cert_file` and `admin.token_file` of
`--config` are used where that names the endpoint.

Completion for bash, zsh and fish comes with the package;
`dnsproxy --show-completion` prints the script for the shell that it is run from.
"""


def page(commands: list[Command]) -> str:
    """Return the page."""
    return HEAD + "".join("\n" + "".join(_section(command)) for command in commands)


def _section(command: Command) -> Iterator[str]:
    yield f"## dnsproxy {' '.join(command.words)}\n\n"
    yield f"{command.help}\n\n"
    yield f"```text\n{command.usage}\n```\n"
    if command.parameters:
        yield "\n| | | default |\n|---|---|---|\n"
    for parameter in (*command.arguments, *command.options):
        yield f"| {_names(parameter)} | {_meaning(parameter)} | {_code(parameter.default)} |\n"


def _names(parameter: Parameter) -> str:
    value = f" {parameter.value}" if parameter.value else ""
    return ", ".join(_code(f"{name}{value}") for name in parameter.names) or _code(parameter.value)


def _meaning(parameter: Parameter) -> str:
    variable = f" Also from the environment: {_code(parameter.variable)}." if parameter.variable else ""
    return parameter.help.replace("|", "\\|") + variable


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|") if text else ""
