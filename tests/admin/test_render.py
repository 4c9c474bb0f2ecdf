from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given, settings
from hypothesis import strategies as st

from dnsproxy.admin.control import history_document
from dnsproxy.admin.render import MAX_CHANGES, MAX_CONCERNS, Page
from dnsproxy.admin.status import Facts, status_document
from dnsproxy.admin.wording import DASH
from dnsproxy.core.addresses.overrides import Overrides, Record
from dnsproxy.core.addresses.table import ServedTable
from dnsproxy.core.registry import Wanted
from tests.fakes.facts import bad_facts, facts_of, good_facts
from tests.strategies import learned, served_table, snapshot

PAGE = Page("build-1")


def held(name: str, *_: object) -> str | None:
    """One change is not answered."""
    return "frozen" if name == "moved.example." else None


def html(facts: Facts) -> str:
    return PAGE.render(status_document(facts), history_document(facts.overrides, held))


class Reader(HTMLParser):
    """Notes the tags with the names of their attributes, and the text between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data.split()

    @property
    def text(self) -> str:
        return " ".join(self.words)


def test_what_a_proxy_that_is_well_shows() -> None:
    text = Reader(html(good_facts())).text
    for expected in (
        *("Ready · idc-dns-1 · dnsproxy", "The one name has an address."),
        *("Nothing: every address in service, upstream and source is well.",),
        *("xxxxxx-registry-vpc.cn-hangzhou.cr.aliyuncs.com", "registry · hangzhou", "10.94.205.198"),
        *("5 s ago by helper-a TTL 30 s, 60 s at its source", "✓ routed", "✓ ok port 443, for 10 min"),
        *("Queries per second 12.3", "Cache hits, last hour 90.8 %", "Upstreams up 1 of 1"),
        *("10.200.0.2:53 ✓ up 4.0 ms 300",),
        *("http://10.94.0.10:8953/v1/snapshot helper helper-a, serial 5 ✓ ok 2 s ago",),
        *("up for 1 d", "answers on 10.200.0.10:53", "0 of 100,000"),
    ):
        assert expected in text, expected


def test_what_one_that_is_not_shows() -> None:
    text = Reader(html(bad_facts())).text
    for expected in (
        *("Draining · idc-dns-1", "The proxy is being stopped.", "✕ no address", "none known"),
        *("! failed, still answered port 443: Connection refused, for 30 s", "! no route", "✕ refused"),
        *("pinned by the configuration", "pin.example to 10.7.7.7 since", "rolled back to serial 5"),
        *("✕ down", "✕ loop", "timeout 7, network 2", "✕ fails", "no answer", "older 3", "loopback 1"),
        *("1 name keeps what it has since", "full 12, short 1", "does not answer", "moved.example"),
        *("given up", "first learned → to 10.0.0.9 ! held frozen"),
    ):
        assert expected in text, expected


def test_a_proxy_without_names_or_queries() -> None:
    text = Reader(html(facts_of(wanted=[], table=ServedTable()))).text
    assert "No names are configured; everything is forwarded." in text
    assert "None are configured: nothing is learned." in text
    assert f"Queries per second {DASH}" in text


def test_lists_end_somewhere() -> None:
    wanted = [Wanted(f"n{number}.example.", "other", "hangzhou") for number in range(50)]
    entries = [
        served_table(snapshot(learned("a.example.", (f"10.0.0.{number}",)))).sets for number in range(50)
    ]
    history = tuple(Record(number, "helper-a", 1000, held) for number, held in enumerate(entries))
    reader = Reader(html(facts_of(wanted=wanted, table=ServedTable(), overrides=Overrides(history=history))))
    assert f"and {50 - MAX_CONCERNS} more, in the sections below" in reader.text
    assert f"{50 - MAX_CHANGES} earlier ones:" in reader.text
    # Every name is shown all the same.
    assert all(f"n{number}.example" in reader.words for number in range(50))


@settings(max_examples=60)
@given(st.text(min_size=1))
def test_nothing_that_others_say_becomes_markup(text: str) -> None:
    shown = Reader(html(bad_facts(f"x{text}x")))
    assert shown.tags == Reader(html(bad_facts("xx"))).tags


def test_no_style_or_script_is_in_the_page_itself() -> None:
    tags = Reader(html(bad_facts())).tags
    assert [names for tag, names in tags if tag in {"script", "style"}] == [("src", "defer")]
    attributes = {name for _, names in tags for name in names}
    assert not [name for name in attributes if name == "style" or name.startswith("on")]
