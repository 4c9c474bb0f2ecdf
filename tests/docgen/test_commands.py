from __future__ import annotations

from docgen import commands
from docgen.program import Command, Parameter

PAINT = Command(
    ("paint",),
    "Paint.",
    (
        Parameter(("--colour", "-c"), "red|blue", "Which.", default="red"),
        Parameter((), "PLACE", "Where.", required=True, repeated=True),
        Parameter(("--brush",), "PATH", "With what.", variable="BRUSH"),
    ),
)


def test_a_section_has_usage_and_a_row_for_each_parameter() -> None:
    page = commands.page([PAINT])
    assert page.startswith("# Commands\n")
    assert page.endswith(
        "## dnsproxy paint\n\nPaint.\n\n"
        "```text\ndnsproxy paint PLACE ... [--colour red|blue] [--brush PATH]\n```\n\n"
        "| | | default |\n|---|---|---|\n"
        "| `PLACE` | Where. |  |\n"
        "| `--colour red\\|blue`, `-c red\\|blue` | Which. | `red` |\n"
        "| `--brush PATH` | With what. Also from the environment: `BRUSH`. |  |\n"
    )


def test_a_command_without_parameters_has_no_table() -> None:
    page = commands.page([Command(("rest",), "Rest.", ())])
    assert page.endswith("## dnsproxy rest\n\nRest.\n\n```text\ndnsproxy rest\n```\n")
