"""The query log, written by the real program for queries that dig sends."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes import dnsproxy_argv, environment, run_command, wait_for
from tests.e2e.world import OTHER, REGISTRY, World

pytestmark = pytest.mark.e2e


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def logged(file: Path, count: int) -> list[dict[str, Any]]:
    """The lines once there are so many."""
    wait_for(lambda: len(lines(file)) >= count, f"{count} lines in {file}")
    return lines(file)


def start(world: World, file: Path | None = None, **keys: object) -> None:
    queries = ({"file": str(file)} if file else {}) | keys
    world.configure(log={"queries": queries})
    world.start()


def brief(line: dict[str, Any]) -> tuple[object, ...]:
    return tuple(line.get(key) for key in ("protocol", "name", "type", "rcode", "source"))


def test_every_way_a_query_can_go_over_udp_and_tcp(world: World) -> None:
    file = world.folder / "queries.jsonl"
    start(world, file)
    for way in ("+notcp", "+tcp"):
        other = f"{'a' if way == '+tcp' else 'b'}.example"
        for arguments in (
            (REGISTRY,),
            (OTHER,),
            (OTHER,),
            (other,),
            ("localhost",),
            (OTHER, "+norecurse", "NS"),
        ):
            world.server.dig(way, "+nocookie", *arguments)
    found = logged(file, 12)
    for protocol, seen in (("udp", found[:6]), ("tcp", found[6:])):
        first = "forward" if protocol == "udp" else "cache"
        other = "b.example." if protocol == "udp" else "a.example."
        assert [brief(line) for line in seen] == [
            (protocol, f"{REGISTRY}.", "A", "NOERROR", "learned"),
            (protocol, f"{OTHER}.", "A", "NOERROR", first),
            (protocol, f"{OTHER}.", "A", "NOERROR", "cache"),
            (protocol, other, "A", "NXDOMAIN", "forward"),
            (protocol, "localhost.", "A", "NOERROR", "local"),
            (protocol, f"{OTHER}.", "NS", "REFUSED", "error"),
        ]
        for line in seen:
            assert line["client"] == "127.0.0.1"
            assert line["size"] > 12
            assert 0 <= line["duration"] < 5
            assert line["time"].endswith("Z")
            assert line.get("upstream") == (world.upstream.endpoint if line["source"] == "forward" else None)
        # Not Authoritative (RFC 8914 §4.21).
        assert seen[-1]["ede"] == [20]
    assert world.metric('dnsproxy_log_records_total{log="queries"}') == 12
    assert world.metric('dnsproxy_log_records_lost_total{log="queries"}') == 0


def test_a_repeated_packet_is_logged_with_what_its_answer_was_made_from(world: World) -> None:
    file = world.folder / "queries.jsonl"
    start(world, file)
    for name in (REGISTRY, OTHER, "localhost"):
        for _ in range(3):
            world.server.dig("+nocookie", "+qid=7", name)
    assert [line["source"] for line in logged(file, 9)] == [
        *("learned", "learned", "learned"),
        *("forward", "cache", "cache"),
        *("local", "local", "local"),
    ]


def test_a_stranger_is_logged_as_refused(world: World) -> None:
    file = world.folder / "queries.jsonl"
    world.configure(serve={"allow": ["10.0.0.0/8"]})
    start(world, file)
    world.server.dig(REGISTRY)
    (line,) = logged(file, 1)
    assert brief(line) == ("udp", f"{REGISTRY}.", "A", "REFUSED", "error")


def test_clients_and_names_may_be_left_out(world: World) -> None:
    file = world.folder / "queries.jsonl"
    start(world, file, clients="prefix", names="omit", fields=["client", "name", "type", "source"])
    world.server.dig(REGISTRY, "AAAA")
    assert logged(file, 1) == [{"client": "127.0.0.0/24", "type": "AAAA", "source": "learned"}]


def test_one_in_ten(world: World) -> None:
    file = world.folder / "queries.jsonl"
    start(world, file, sample=10)
    questions = "".join(f"{REGISTRY} {kind}\n" for kind in ("A", "AAAA")) * 100
    batch = world.folder / "questions"
    batch.write_text(questions)
    world.server.dig("-f", str(batch))
    # Between the queries of two lines are at most 19; what is still in the buffer is written within a second.
    found = logged(file, 200 // 20)
    world.proxy.stop()
    found = lines(file)
    assert len(found) < 60
    assert set(Counter(line["type"] for line in found)) == {"A", "AAAA"}


def test_a_file_that_is_rotated_goes_on_as_a_new_one(world: World) -> None:
    file, old = world.folder / "queries.jsonl", world.folder / "queries.jsonl.1"
    start(world, file)
    world.server.dig(REGISTRY)
    logged(file, 1)
    file.rename(old)
    world.server.dig(OTHER)
    assert [line["name"] for line in logged(file, 1)] == [f"{OTHER}."]
    assert [line["name"] for line in lines(old)] == [f"{REGISTRY}."]
    file.unlink()
    world.server.dig(REGISTRY, "TXT")
    assert [line["type"] for line in logged(file, 1)] == ["TXT"]


def test_standard_output_has_queries_and_standard_error_events(world: World) -> None:
    world.configure(log={"queries": True}, learn={"sources": []})
    world.upstream.start()
    with subprocess.Popen(
        dnsproxy_argv("serve", "--config", world.config),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        text=True,
    ) as proxy:
        try:
            wait_for(lambda: world.server.dig(OTHER, "A").rcode == "NOERROR", "it answers")
        finally:
            proxy.terminate()
        out, err = proxy.communicate(timeout=30)
    assert [json.loads(line)["name"] for line in out.splitlines()][-1] == f"{OTHER}."
    assert "proxy.stopped" in err
    assert "proxy.stopped" not in out


def test_a_reader_that_has_stopped_costs_records_and_no_answers(world: World) -> None:
    world.configure(log={"queries": True}, learn={"sources": []})
    world.upstream.start()
    with subprocess.Popen(
        dnsproxy_argv("serve", "--config", world.config),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
    ) as proxy:
        try:
            wait_for(lambda: world.server.dig(OTHER, "A").rcode == "NOERROR", "it answers")
            batch = world.folder / "questions"
            batch.write_text(f"{OTHER} A\n" * 2000)
            # Nobody reads: the pipe is full after 64 kB. Queries go on being answered.
            reply = run_command(
                *("dig", "-r", "@127.0.0.1", "-p", str(world.dns_port), "+noall", "+answer", "-f", batch)
            )
            assert reply.stdout.count("192.0.2.1") == 2000
            proxy.terminate()
            # Nor does it hold up the end.
            assert proxy.wait(timeout=30) == 0
        finally:
            proxy.kill()


def test_several_workers_write_whole_lines_to_one_file(world: World) -> None:
    file = world.folder / "queries.jsonl"
    world.configure(serve={"workers": 2})
    start(world, file)
    for number in range(40):
        world.server.dig(f"n{number}.example", "+tries=3")
    found = logged(file, 40)
    names = {line["name"] for line in found}
    assert {f"n{number}.example." for number in range(40)} <= names
    wait_for(
        lambda: world.metric('dnsproxy_log_records_total{log="queries"}') >= 40, "the counts of both workers"
    )


def test_a_file_that_cannot_be_written_fails_the_start(world: World) -> None:
    missing = world.folder / "missing" / "queries.jsonl"
    world.configure(log={"queries": {"file": str(missing)}}, learn={"sources": []})
    for workers in (1, 2):
        world.configure(serve={"workers": workers})
        failed = run_command(*dnsproxy_argv("serve", "--config", world.config))
        assert failed.returncode == 1
        assert f"log.queries.file: cannot write {missing}: No such file or directory" in failed.stderr
