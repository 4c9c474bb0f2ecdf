"""Set up structlog. Events are dotted names (``learned.swapped``); facts are keys, never part of the name."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from math import inf
from threading import RLock
from time import monotonic
from typing import TYPE_CHECKING, Any, TextIO

from dnsproxy.core.repeats import Repeats
from dnsproxy.core.text import printable, printable_lines
from dnsproxy.errors import Problem
from dnsproxy.events import EVENTS

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
# Seconds between two looks for summaries: a summary is so much late at the most.
SUMMARY_SECONDS = 5.0
# Characters of one fact, and items of a list.
MAX_FACT = 2000
MAX_ITEMS = 500


class _Limiter:
    """The processor that leaves out repetitions of the events that `events.EVENTS` has a ``per`` for."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._repeats: Repeats[tuple[str, dict[str, Any]]] = Repeats()
        # State files are written, and failures logged, in threads. Reentrant: a finaliser that runs in here
        # may log, as that of a task whose exception was not retrieved does.
        self._lock = RLock()

    def __call__(
        self, _logger: object, method: str, facts: structlog.types.EventDict
    ) -> structlog.types.EventDict:
        name = facts["event"]
        event = EVENTS.get(name)
        if event is None or event.per is None or "repeated" in facts:
            return facts
        # Not the traceback: the first one had it, and it would keep frames alive.
        kept = {key: value for key, value in facts.items() if key != "exc_info"}
        key = (name, *(str(facts.get(field)) for field in event.per))
        with self._lock:
            left_out = self._repeats.take(key, (method, kept), self._clock())
        if left_out is None:
            raise structlog.DropEvent
        if left_out:
            facts["repeated"] = left_out
        return facts

    def summarise(self, *, everything: bool) -> None:
        with self._lock:
            summaries = self._repeats.due(inf if everything else self._clock())
        for (method, facts), left_out in summaries:
            getattr(structlog.get_logger(), method)(**facts, repeated=left_out)


def _clean(_logger: object, _method: str, facts: structlog.types.EventDict) -> structlog.types.EventDict:
    """Make every fact printable and bound its length; the last defence, after that of `core.text`."""
    for key, value in facts.items():
        facts[key] = printable_lines(value, MAX_FACT) if key == "exception" else _fact(value)
    return facts


def _fact(value: Any) -> Any:  # noqa: ANN401 - whatever is logged
    if isinstance(value, str):
        return printable(value, MAX_FACT)
    if isinstance(value, list | tuple):
        items = [_fact(item) for item in value[:MAX_ITEMS]]
        return items if len(value) <= MAX_ITEMS else [*items, f"... and {len(value) - MAX_ITEMS} more"]
    if isinstance(value, dict):
        return {_fact(key): _fact(item) for key, item in value.items()}
    return value


_limiter = _Limiter(monotonic)


class _LibraryHandler(logging.Handler):
    """Log what libraries say by `logging`, which would go to standard error as it is."""

    def emit(self, record: logging.LogRecord) -> None:
        failure = record.exc_info[1] if record.exc_info else None
        try:
            detail = record.getMessage()
        except Exception:  # noqa: BLE001 - the arguments' own methods run here
            detail = str(record.msg)
        log = structlog.get_logger()
        log.warning(
            "program.library_message",
            library=record.name,
            detail=detail,
            reason=type(failure).__name__ if failure is not None else "",
            exc_info=failure,
        )


_library_handler = _LibraryHandler(logging.WARNING)


def report_failure(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what nobody expected in a callback or a task (see `asyncio.loop.set_exception_handler`)."""
    log = structlog.get_logger()
    failure = context.get("exception")
    kind = type(failure).__name__ if isinstance(failure, BaseException) else ""
    log.error("program.callback_failed", detail=str(context["message"]), reason=kind, exc_info=failure)


def report_lost(count: int) -> None:
    """Log that ``count`` lines of this log were lost, now that it can be written again."""
    log = structlog.get_logger()
    log.warning("log.records_lost", log="program", count=count)


def report_warnings(problems: Iterable[Problem]) -> None:
    """Log what a configuration says and may not mean."""
    log = structlog.get_logger()
    for problem in problems:
        log.warning("config.doubtful", problem=str(problem))


def _safely(processor: structlog.types.Processor) -> structlog.types.Processor:
    """Have an event whose facts cannot be shown logged without them: its caller must not fail for that."""

    def process(logger: object, method: str, facts: structlog.types.EventDict) -> str:
        try:
            return str(processor(logger, method, dict(facts)))
        except Exception as exc:  # noqa: BLE001 - the facts' own methods run here
            shown = {key: str(facts.get(key)) for key in ("event", "level", "timestamp")}
            return json.dumps({**shown, "detail": f"the facts cannot be shown: {type(exc).__name__}"})

    return process


@contextmanager
def reporting() -> Iterator[None]:
    """Within this, have the running loop tell of failures and, as each minute ends, of what was left out.

    At the end it tells of the rest.
    """
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle

    def look() -> None:
        nonlocal timer
        timer = loop.call_later(SUMMARY_SECONDS, look)
        _limiter.summarise(everything=False)

    timer = loop.call_later(SUMMARY_SECONDS, look)
    before = loop.get_exception_handler()
    loop.set_exception_handler(report_failure)
    try:
        yield
    finally:
        loop.set_exception_handler(before)
        timer.cancel()
        _limiter.summarise(everything=True)


def configure(
    level: str = "info",
    output_format: str = "auto",
    stream: TextIO | None = None,
    clock: Callable[[], float] | None = None,
) -> None:
    """Send events to ``stream`` (standard error by default).

    ``level`` is debug, info, warning or error; ``output_format`` is console, json, or auto:
    console on a terminal, JSON elsewhere. ``clock`` gives the monotonic seconds of `core.repeats`, which
    starts again; without one it continues to count what was left out, as after a reload.
    """
    global _limiter  # noqa: PLW0603 - structlog's configuration is of the whole process, and this is part of it
    logging.getLogger().addHandler(_library_handler)
    if clock is not None:
        _limiter = _Limiter(clock)
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

    def _rendered(logger: object, method: str, facts: structlog.types.EventDict) -> str:
        shown = _clean(logger, method, structlog.processors.format_exc_info(logger, method, facts))
        return str(renderer(logger, method, shown))

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _limiter,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _safely(_rendered),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=target),
        cache_logger_on_first_use=False,
    )
