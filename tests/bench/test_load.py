from __future__ import annotations

from pathlib import Path

import pytest

from bench.load import Order, parse

UDP = """\
DNS Performance Testing Tool
Version 2.10.0

[Status] Sending queries (to 127.0.0.1:5399)
[Timeout] Query timed out: msg id 43811
> NOERROR a.example A 0.001644
> NOERROR b.example A 0.000434
> NXDOMAIN c.example A 0.000079
> T d.example A
[Status] Testing complete (time limit)

Statistics:

  Queries sent:         230785
  Queries completed:    230780 (100.00%)
  Queries lost:         5 (0.00%)

  Response codes:       NOERROR 230770 (99.99%), SERVFAIL 10 (0.01%)
  Average packet size:  request 49, response 65
  Run time (s):         2.000099
  Queries per second:   115384.288478

  Average Latency (s):  0.000873 (min 0.000019, max 0.036822)
  Latency StdDev (s):   0.001755
"""
CONNECTIONS = """
Connection Statistics:

  Reconnections:        3

  Average Latency (s):  0.002430 (min 0.000636, max 0.004255)
  Latency StdDev (s):   0.001428
"""


@pytest.mark.parametrize("report", [UDP, UDP + CONNECTIONS], ids=["udp", "tcp"])
def test_reads_counts_time_and_codes(report: str) -> None:
    seen = parse(report, cpu_seconds=1.5)

    assert (seen.sent, seen.completed, seen.lost) == (230785, 230780, 5)
    assert seen.seconds == pytest.approx(2.000099)
    assert seen.rate == pytest.approx(230780 / 2.000099)
    assert seen.codes == {"NOERROR": 230770, "SERVFAIL": 10}
    assert seen.cpu_seconds == 1.5


def test_reads_the_latency_of_each_answer_in_ascending_order() -> None:
    assert parse(UDP).latencies == [0.000079, 0.000434, 0.001644]


def test_says_what_is_missing_when_dnsperf_failed() -> None:
    with pytest.raises(ValueError, match="no 'Queries sent': Error: unable to open"):
        parse("Error: unable to open input file")


def test_an_order_names_every_bound() -> None:
    command = Order(
        5300, Path("q.wire"), 3, rate=1000, tcp=True, wire=True, once=True, latencies=True
    ).command()

    assert command[0] == "dnsperf"
    assert command[command.index("-s") + 1] == "127.0.0.1"
    assert command[command.index("-l") + 1] == "3"
    assert command[command.index("-Q") + 1] == "1000"
    assert {"-B", "-v"} < set(command)
    assert command[command.index("-m") + 1] == "tcp"


def test_an_order_without_a_rate_is_bounded_by_what_is_outstanding() -> None:
    command = Order(5300, Path("q.txt"), 3).command()

    assert "-Q" not in command
    assert command[command.index("-q") + 1] == "100"
