"""Set up structlog. Events are dotted names (``learned.swapped``); facts are keys, never part of the name."""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    import structlog
elif {"structlog", "rich"} & sys.modules.keys():
    structlog = import_module("structlog")
else:
    # structlog takes rich along where it is installed, for tracebacks that are not wanted here (see
    # `configure`): 3 MB and 25 ms of every start. None in its place reads as "not installed".
    sys.modules["rich"] = None
    try:
        structlog = import_module("structlog")
    finally:
        del sys.modules["rich"]

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure(level: str = "info", output_format: str = "auto", stream: TextIO | None = None) -> None:
    """Send events to ``stream`` (standard error by default).

    ``level`` is debug, info, warning or error; ``output_format`` is console, json, or auto:
    console on a terminal, JSON elsewhere.
    """
    target = stream or sys.stderr
    console = output_format == "console" or (output_format == "auto" and target.isatty())
    # Plain tracebacks: the pretty ones print local variables, tokens and keys among them.
    renderer: structlog.types.Processor = (
        structlog.dev.ConsoleRenderer(
            colors=target.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
        if console
        else structlog.processors.JSONRenderer(sort_keys=False)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=target),
        cache_logger_on_first_use=False,
    )
