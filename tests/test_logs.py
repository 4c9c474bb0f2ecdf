from __future__ import annotations

import asyncio
import io
import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from dnsproxy import logs
from dnsproxy.core.repeats import Repeats
from dnsproxy.http_listener import Limits
from tests.fakes.http_clients import world


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    kept, limiter = structlog.get_config(), logs._limiter
    structlog.contextvars.clear_contextvars()  # of a worker that ran in this process
    yield
    logs._limiter = limiter
    structlog.configure(**kept)
    structlog.contextvars.clear_contextvars()
    logging.getLogger().removeHandler(logs._library_handler)


def events(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_has_the_event_its_facts_level_and_utc_time() -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    structlog.get_logger().info("learned.swapped", serial=7, names=["a.example."])
    (event,) = events(stream)
    assert event.pop("timestamp").endswith("Z")
    assert event == {"event": "learned.swapped", "level": "info", "serial": 7, "names": ["a.example."]}


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_level(level: str, expected: list[str]) -> None:
    stream = io.StringIO()
    logs.configure(level, "json", stream)
    log = structlog.get_logger()
    for each in logs.LEVELS:
        getattr(log, each)("test.event")
    assert [event["level"] for event in events(stream)] == expected


def test_auto_is_json_off_a_terminal_and_readable_on_one() -> None:
    pipe, terminal = io.StringIO(), Terminal()
    logs.configure("info", "auto", pipe)
    structlog.get_logger().info("test.event", port=53)
    logs.configure("info", "auto", terminal)
    structlog.get_logger().info("test.event", port=53)
    assert events(pipe)[0]["port"] == 53
    assert "test.event" in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")
    assert "\x1b[" in terminal.getvalue()


def test_console_off_a_terminal_has_no_colour() -> None:
    stream = io.StringIO()
    logs.configure("info", "console", stream)
    structlog.get_logger().info("test.event", port=53)
    assert "test.event" in stream.getvalue()
    assert "port=53" in stream.getvalue()
    assert "\x1b[" not in stream.getvalue()


def test_bound_context_is_merged() -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    structlog.contextvars.bind_contextvars(worker=2)
    structlog.get_logger().info("test.event")
    assert events(stream)[0]["worker"] == 2


@pytest.mark.parametrize("output_format", ["json", "console"])
def test_an_exception_is_written_out_without_a_warning_or_local_variables(output_format: str) -> None:
    local_value = "hunter2"
    stream = io.StringIO()
    logs.configure("info", output_format, stream)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            raise OSError("no route")  # noqa: TRY301 - the traceback is the subject
        except OSError:
            structlog.get_logger().exception("test.failed")
    assert "Traceback" in stream.getvalue()
    assert "no route" in stream.getvalue()
    assert local_value not in stream.getvalue()


def test_a_logger_made_before_the_set_up_obeys_it() -> None:
    log = structlog.get_logger()
    stream = io.StringIO()
    logs.configure("error", "json", stream)
    log.info("test.event")
    assert stream.getvalue() == ""


def test_standard_error_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    structlog.get_logger().info("test.event")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err)["event"] == "test.event"


def test_a_server_does_not_carry_what_only_tables_need() -> None:
    code = "from dnsproxy import logs; import rich, sys; print('rich.text' in sys.modules, rich.__name__)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "rich"]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def reject(reason: str = "expired", serial: int = 1) -> None:
    structlog.get_logger().warning(
        "learned.rejected", source="http://h/", reason=reason, serial=serial, detail="x"
    )


def test_a_failure_that_repeats_is_logged_once_a_minute_and_counted() -> None:
    stream, clock = io.StringIO(), Clock()
    logs.configure("info", "json", stream, clock)
    for serial in (1, 2, 3):
        reject(serial=serial)
    reject("older")
    assert [(event["reason"], event["serial"]) for event in events(stream)] == [("expired", 1), ("older", 1)]
    clock.now += 60
    reject(serial=4)
    last = events(stream)[-1]
    assert (last["serial"], last["repeated"], last["level"]) == (4, 2, "warning")


def test_what_is_not_limited_is_logged_every_time() -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream, Clock())
    for _ in range(3):
        structlog.get_logger().info("upstream.up", upstream="10.0.0.2:53")
        structlog.get_logger().warning("test.unknown")
    assert len(events(stream)) == 6
    assert not any("repeated" in event for event in events(stream))


async def test_the_rest_is_told_when_the_program_ends() -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream, Clock())
    with logs.reporting():
        for serial in (1, 2, 3):
            reject(serial=serial)
    first, summary = events(stream)
    assert "repeated" not in first
    assert (summary["event"], summary["serial"], summary["repeated"]) == ("learned.rejected", 3, 2)


async def test_a_reload_that_changes_the_log_keeps_what_was_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "SUMMARY_SECONDS", 0.001)
    stream, clock = io.StringIO(), Clock()
    logs.configure("info", "json", stream, clock)
    with logs.reporting():
        reject(serial=1)
        reject(serial=2)
        logs.configure("warning", "json", stream)
        reject(serial=3)
        clock.now += 60
        async with asyncio.timeout(30):
            while len(events(stream)) < 2:
                await asyncio.sleep(0)
        reject(serial=4)
    assert [(event["serial"], event.get("repeated")) for event in events(stream)] == [
        (1, None),
        (3, 2),
        (4, 1),
    ]


async def test_a_summary_comes_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "SUMMARY_SECONDS", 0.001)
    stream, clock = io.StringIO(), Clock()
    logs.configure("info", "json", stream, clock)
    with logs.reporting():
        reject()
        reject()
        clock.now += 60
        async with asyncio.timeout(30):
            while len(events(stream)) < 2:
                await asyncio.sleep(0)
        assert events(stream)[-1]["repeated"] == 1


def test_a_summary_has_no_traceback() -> None:
    stream, clock = io.StringIO(), Clock()
    logs.configure("info", "json", stream, clock)
    for _ in range(2):
        try:
            int("a mistake")
        except ValueError:
            structlog.get_logger().exception("learned.source_crashed", source="http://h/")
    asyncio.run(summarised())
    first, summary = events(stream)
    assert "a mistake" in first["exception"]
    assert summary["repeated"] == 1
    assert "exception" not in summary


async def summarised() -> None:
    with logs.reporting():
        pass


async def test_a_mistake_in_a_callback_is_an_event_and_a_repeated_one_is_counted() -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream, Clock())
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    with logs.reporting():
        for _ in range(3):
            loop.call_soon(int, "a mistake")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    first, summary = events(stream)
    assert (first["event"], first["level"], first["reason"]) == (
        "program.callback_failed",
        "error",
        "ValueError",
    )
    assert "invalid literal for int()" in first["exception"]
    assert summary["repeated"] == 2
    assert loop.get_exception_handler() is before


async def test_requests_that_are_not_http_are_one_event(capfd: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream, Clock())
    with logs.reporting():
        async with world(Limits(10, 10)) as made:
            for _ in range(20):
                sock = await made.connect(b"GET /\x1b[31m" + b"x" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n")
                assert (await made.read(sock)).startswith(b"HTTP/1.0 400")
    first, summary = events(stream)
    assert (first["event"], first["library"]) == ("program.library_message", "aiohttp.server")
    assert len(first["exception"]) < 10_000
    assert summary["repeated"] == 19
    assert capfd.readouterr().err == ""


def test_a_library_that_cannot_say_what_it_means_does_not_fail() -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    said = {"name": "a.library", "levelno": logging.ERROR, "msg": "%d of %d", "args": ("x",)}
    logs._library_handler.handle(logging.makeLogRecord(said))
    (event,) = events(stream)
    assert (event["library"], event["detail"]) == ("a.library", "%d of %d")


@pytest.mark.parametrize("output_format", ["json", "console"])
def test_facts_that_cannot_be_shown_do_not_fail_the_caller(output_format: str) -> None:
    class Hostile:
        def __repr__(self) -> str:
            raise ZeroDivisionError

    stream = io.StringIO()
    logs.configure("info", output_format, stream)
    structlog.get_logger().warning("test.event", value=Hostile())
    (event,) = events(stream)
    assert (event["event"], event["level"]) == ("test.event", "warning")
    assert event["detail"] == "the facts cannot be shown: ZeroDivisionError"


async def test_summaries_continue_after_one_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "SUMMARY_SECONDS", 0.001)
    stream, clock = io.StringIO(), Clock()
    logs.configure("info", "json", stream, clock)
    failed = asyncio.Event()
    really = logs._Limiter.summarise

    def summarise(limiter: logs._Limiter, *, everything: bool) -> None:
        if not failed.is_set():
            failed.set()
            raise OSError("Broken pipe")
        really(limiter, everything=everything)

    monkeypatch.setattr(logs._Limiter, "summarise", summarise)
    with logs.reporting():
        reject()
        reject()
        await failed.wait()
        clock.now += 60
        async with asyncio.timeout(30):
            while not any(event.get("repeated") for event in events(stream)):
                await asyncio.sleep(0)


def test_an_event_of_a_finaliser_within_another_event_does_not_wait_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream, Clock())
    really = Repeats.take

    def take(repeats: Any, key: Any, entry: Any, now: float) -> int | None:
        if "older" not in key:
            reject("older")
        left_out: int | None = really(repeats, key, entry, now)
        return left_out

    monkeypatch.setattr(Repeats, "take", take)
    reject("expired")
    assert [event["reason"] for event in events(stream)] == ["older", "expired"]


def test_lost_lines_are_an_event() -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    logs.report_lost(7)
    (event,) = events(stream)
    assert (event["event"], event["log"], event["count"]) == ("log.records_lost", "program", 7)


def test_a_failure_without_an_exception_is_told_as_well() -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream, Clock())
    loop = asyncio.new_event_loop()
    logs.report_failure(loop, {"message": "Task was destroyed but it is pending!"})
    loop.close()
    (event,) = events(stream)
    assert (event["detail"], event["reason"]) == ("Task was destroyed but it is pending!", "")
    assert "exception" not in event
