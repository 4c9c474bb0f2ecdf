from __future__ import annotations

from dnsproxy.version import __version__
from docgen import man
from docgen.program import Command, Parameter

ASK = Command(
    ("ask",),
    "Ask. Then `tell`.\n\n.hidden lines\nare none.",
    (
        Parameter((), "NAME", 'A "name".', required=True, repeated=True),
        Parameter(("--to", "-t"), "WHOM", "Whom.", default="all", variable="TO"),
        Parameter(("--dry-run",), "", "Only look."),
    ),
)


def lines() -> list[str]:
    return man.page([ASK]).splitlines()


def test_the_title_has_date_and_version() -> None:
    assert lines()[1] == f'.TH DNSPROXY 1 {man.DATE} "dnsproxy {__version__}" "User Commands"'


def test_a_command_has_synopsis_text_and_tags() -> None:
    start = lines().index(".SS dnsproxy ask")
    assert lines()[start : start + 18] == [
        ".SS dnsproxy ask",
        r"\fBdnsproxy ask\fR \fINAME\fR ... [\fB\-\-to\fR \fIWHOM\fR] [\fB\-\-dry\-run\fR]",
        ".PP",
        "Ask.",
        "Then tell.",
        ".PP",
        # Not taken for a macro.
        r"\&.hidden lines are none.",
        ".TP",
        r"\fINAME\fR",
        r"A \(dqname\(dq.",
        ".TP",
        r"\fB\-\-to\fR \fIWHOM\fR, \fB\-t\fR \fIWHOM\fR",
        "Whom.",
        "Also from the environment: TO.",
        "Default: all.",
        ".TP",
        r"\fB\-\-dry\-run\fR",
        "Only look.",
    ]


def test_sections_are_those_of_man_pages() -> None:
    headings = [line.removeprefix(".SH ") for line in lines() if line.startswith(".SH ")]
    assert headings == [
        *("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "COMMANDS", "EXIT STATUS"),
        *("ENVIRONMENT", "FILES", "EXAMPLES", "SEE ALSO"),
    ]
