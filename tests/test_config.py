from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel

from dnsproxy import config
from dnsproxy.errors import ConfigError, Problem
from dnsproxy.settings import Settings
from dnsproxy.settings.values import Endpoint
from tests import strategies

EXAMPLE = Path(__file__).parents[1] / "config.example.yaml"


def problems(text: str) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        config.parse(text, "c.yaml")
    assert caught.value.problems
    assert all(problem.file == "c.yaml" for problem in caught.value.problems)
    return caught.value.problems


def places(text: str) -> list[tuple[int, str]]:
    return [(problem.line, problem.path) for problem in problems(text)]


def test_every_mistake_at_once_with_line_and_key_path() -> None:
    text = """\
registries:
  - name: hangzhou
    region: cn-hangzhou
helper:
  interval: soon
forward:
  upstreams: [10.0.0.2, nonsense]
  zones:
    corp.example: [10.0.0.53:99999]
log:
  level: loud
  colour: blue
"""
    with pytest.raises(ConfigError) as caught:
        config.parse(text, "c.yaml")
    lines = str(caught.value).splitlines()
    assert lines == [
        "c.yaml:2: registries[0]: provider acr needs region and instance",
        "c.yaml:5: helper.interval: not a duration; write for example 800ms, 30s, 5m, 1h or 1d",
        "c.yaml:7: forward.upstreams[1]: 'nonsense' is not an IP address",
        "c.yaml:9: forward.zones.corp.example[0]: '99999' is not a port (1 to 65535)",
        "c.yaml:11: log.level: Input should be 'debug', 'info', 'warning' or 'error'",
        "c.yaml:12: log.colour: unknown key",
    ]


def test_a_missing_key_is_named_at_its_section() -> None:
    assert [str(p) for p in problems("registries:\n  - provider: generic\n    names: [{role: other}]\n")] == [
        "c.yaml:2: registries[0].name: must be given",
        "c.yaml:3: registries[0].names[0].name: must be given",
    ]


def test_a_key_given_twice_is_told_with_both_lines() -> None:
    (problem,) = problems("log:\n  level: info\n  format: json\n  level: debug\n")
    assert str(problem) == "c.yaml:4: log.level: given twice (first in line 2)"


def test_duplicates_and_other_mistakes_come_together() -> None:
    assert places("log: {level: loud}\nlog: {}\ncache: {size: -1}\n") == [
        (1, "log.level"),
        (2, "log"),
        (3, "cache.size"),
    ]


def test_an_unknown_section() -> None:
    assert [str(p) for p in problems("serve: {}\nserver: {}\n")] == [
        "c.yaml:2: server: unknown key; did you mean serve?"
    ]
    assert [str(p) for p in problems("server:\n")] == ["c.yaml:1: server: unknown key; did you mean serve?"]


@pytest.mark.parametrize(
    ("text", "line", "complaint"),
    [
        ("log: [", 1, "not YAML"),
        ("log:\n\tlevel: info\n", 2, "cannot start any token"),
        ("log: {}\n---\nlog: {}\n", 2, "not YAML"),
        ("log: \x00", 0, "not YAML"),
        ("log: *nowhere", 1, "not YAML"),
        ("- log\n", 1, "must be a mapping"),
        ("just text", 1, "must be a mapping"),
        ("a: &a [*a]", 0, "not YAML"),
        ("[" * 5000, 0, "not YAML"),
        ("helper:\n  id: 2025-13-01\n", 2, "put it in quotes"),
        ("helper:\n  id: 0x_\n", 2, "put it in quotes"),
        ("helper:\n  id: !!bool maybe\n", 2, "put it in quotes"),
        ("helper:\n  id: !!timestamp maybe\n", 2, "put it in quotes"),
    ],
)
def test_what_is_no_yaml_mapping(text: str, line: int, complaint: str) -> None:
    (problem,) = problems(text)
    assert problem.line == line
    assert complaint in problem.message
    assert "\n" not in problem.message


def test_a_name_of_two_registries_is_told_with_both_places() -> None:
    text = """\
registries:
  - name: one
    provider: generic
    names:
      - {name: a.example, role: registry}
  - {name: two, provider: harbor, hostname: A.example}
  - name: three
    provider: generic
    auth: a.example
    names: [{name: b.example}]
"""
    with pytest.raises(ConfigError) as caught:
        config.parse(text, "c.yaml")
    told = "a.example is a name of registry one already (registries[0].names[0].name in line 5)"
    assert str(caught.value).splitlines() == [
        f"c.yaml:6: registries[1]: {told}",
        f"c.yaml:9: registries[2].auth: {told}",
    ]


@pytest.mark.parametrize("text", ["{}", "--- {}\n", "log:\nregistries:\nhelper:\n"])
def test_empty_sections_give_the_defaults(text: str) -> None:
    assert config.parse(text) == Settings()


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n", "null\n"])
def test_an_empty_file_is_a_mistake(text: str) -> None:
    # Cut off, or being written: taken for one without registries it would forward every owned name.
    (problem,) = problems(text)
    assert str(problem) == "c.yaml: the file is empty; {} means all defaults"


def test_values_are_read() -> None:
    settings = config.parse("admin: {listen: null}\nforward:\n  upstreams: ['[fd00::2]', tcp://10.0.0.2]\n")
    assert settings.admin.listen is None
    assert settings.forward.upstreams == [Endpoint("fd00::2", 53), Endpoint("10.0.0.2", 53, "tcp")]


def test_load_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("log: {level: loud}\n")
    with pytest.raises(ConfigError, match=f"^{path}:1: log.level: "):
        config.load(path)


def test_load_says_why_a_file_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: No such file or directory$"):
        config.load(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="Is a directory"):
        config.load(tmp_path)
    path = tmp_path / "latin1.yaml"
    path.write_bytes("log: {} # Höhe\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin1\.yaml: not UTF-8 text"):
        config.load(path)


def test_load_passes_over_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\xef\xbb\xbflog: {level: debug}\n")
    assert config.load(path).log.level == "debug"


def accepts_or_explains(text: str) -> None:
    try:
        assert isinstance(config.parse(text), Settings)
    except ConfigError as exc:
        lines = len(text.splitlines()) + 1
        assert exc.problems  # noqa: PT017 - both outcomes are allowed
        assert all(0 <= problem.line <= lines for problem in exc.problems)  # noqa: PT017 - the same


yaml_bits = st.sampled_from(
    [
        *("log:", "forward:", "registries:", "names:", "zones:", "interval: ", "- ", "  ", "\n", ": ", "\t"),
        *("[", "]", "{", "}", ", ", "'", '"', "# ", "---", "|", ">", "%", "? ", "<<: ", "&a ", "*a", "*."),
        *("!!int ", "!!set ", "null", "~", "=", "-1", "1e9", ".nan", "0x_", "2025-02-30", "10.0.0.1"),
        *("forever", "é"),
    ]
)


@given(st.text())
@example("cache: {max_ttl: " + "9" * 400 + "}")
@example("cache: {max_ttl: " + "9" * 5000 + "}")
@example("cache: {max_ttl: .nan}")
@example("registries: [{name: a, region: 'x y', instance: '..'}]")
@example("? [a]\n: b\n")
@example("<<: {log: {}}")
@example("forward: {zones: {1: [system], a..b: []}}")
@example("log: !!set {a, b}")
@example('registries: [{name: "\\ud800", provider: generic}]')
def test_any_text_gives_settings_or_config_error(text: str) -> None:
    accepts_or_explains(text)


@given(st.lists(yaml_bits, max_size=30).map("".join))
def test_any_heap_of_yaml_gives_settings_or_config_error(text: str) -> None:
    accepts_or_explains(text)


@given(st.sampled_from(sorted(Settings.model_fields)), strategies.json_values)
def test_any_value_of_a_section_gives_settings_or_config_error(section: str, value: object) -> None:
    accepts_or_explains(yaml.safe_dump({section: value}))


def fields_of(model: type[BaseModel]) -> Iterator[tuple[str, Any]]:
    for name, info in model.model_fields.items():
        yield name, info.annotation


LEAVES = [
    (section, key)
    for section, annotation in fields_of(Settings)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel)
    for key, _ in fields_of(annotation)
]


@given(st.sampled_from(LEAVES), strategies.json_values)
def test_any_value_of_a_key_gives_settings_or_config_error(leaf: tuple[str, str], value: object) -> None:
    section, key = leaf
    accepts_or_explains(yaml.safe_dump({section: {key: value}}))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("forward", "upstreams", 0), "forward.upstreams[0]"),
        (("registries", 1, "names", 2, "name"), "registries[1].names[2].name"),
    ],
)
def test_key_path(path: config.KeyPath, text: str) -> None:
    assert config.key_path(path) == text


# --- config.example.yaml


def uncommented() -> str:
    """The example with its optional keys in force: they stand behind a bare ``#``."""
    lines = []
    for line in EXAMPLE.read_text(encoding="utf-8").splitlines():
        body = line.lstrip(" ")
        indent = line[: len(line) - len(body)]
        optional = body.startswith("#") and body[1:2] not in {"", " "}
        lines.append(indent + body[1:] if optional else line)
    return "\n".join(lines) + "\n"


def models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in models_in(part)]


def keys_of(model: type[BaseModel], path: str = "") -> Iterator[str]:
    for name, annotation in fields_of(model):
        yield f"{path}{name}"
        for inner in models_in(annotation):
            yield from keys_of(inner, f"{path}{name}.")


def keys_in(value: object, path: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for name, held in value.items():
            yield f"{path}{name}"
            yield from keys_in(held, f"{path}{name}.")
    elif isinstance(value, list):
        for item in value:
            yield from keys_in(item, path)


def test_the_example_loads() -> None:
    settings = config.load(EXAMPLE)
    assert [(r.name, r.provider, r.region) for r in settings.registries] == [
        ("hangzhou", "acr", "cn-hangzhou")
    ]
    # Both `helper` and `serve` have something to do.
    assert settings.wanted()
    assert settings.learn.sources


def test_the_example_mentions_every_key() -> None:
    mentioned = set(keys_in(yaml.safe_load(uncommented())))
    assert sorted(set(keys_of(Settings)) - mentioned) == []


def test_what_the_example_shows_behind_a_hash_is_valid_and_the_default() -> None:
    plain, full = config.load(EXAMPLE), config.parse(uncommented())
    assert full.helper.publish  # said to be examples
    assert full.learn.canary  # so is this, and all sources and keys but the first
    assert len(full.learn.sources) > 1
    first = {"sources": full.learn.sources[:1], "trusted_keys": full.learn.trusted_keys[:1]}
    learn = full.learn.model_copy(update={**first, "canary": None})
    assert full.forward.zones  # said to be examples, as are the names of the registry
    assert {bool(n.addresses) + 2 * bool(n.cname) for n in full.registries[0].names} == {0, 1, 2}
    registry = full.registries[0].model_copy(update={"names": []})
    forward = full.forward.model_copy(update={"zones": {}})
    helper = full.helper.model_copy(update={"publish": []})
    back = {"registries": [registry], "forward": forward, "helper": helper, "learn": learn}
    assert full.model_copy(update=back) == plain


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # The same in two spellings.
        (
            "forward:\n  zones:\n    corp.example: [10.0.0.1]\n    Corp.Example.: [10.0.0.2]\n",
            ["4: forward.zones.Corp.Example.: the same zone as corp.example"],
        ),
        (
            (
                "registries:\n  - name: a\n    provider: generic\n    names:\n"
                "      - name: a.example\n      - name: A.Example.\n"
            ),
            ["6: registries[0].names[1].name: a.example is names[0] already"],
        ),
        # Names that are no zones.
        (
            "forward:\n  zones:\n    .: [10.0.0.1]\n    '*.corp.example': [10.0.0.2]\n",
            [
                "3: forward.zones..: not a zone: the servers for all names are forward.upstreams",
                "4: forward.zones.*.corp.example: write corp.example: a zone holds every name below it",
            ],
        ),
        # Ranges that match no client.
        (
            (
                "serve:\n  allow:\n    - ::ffff:10.0.0.0/104\n    - ::/0\n    - 224.0.0.0/4\n"
                "  rate_limit:\n    exempt: ['::ffff:0:0/96']\n"
            ),
            [
                "3: serve.allow[0]: matches no client: IPv4 clients are compared as IPv4; write 10.0.0.0/8",
                "5: serve.allow[2]: matches no client: a multicast address is never a source",
                (
                    "7: serve.rate_limit.exempt[0]: matches no client: IPv4 clients are compared as IPv4; "
                    "write 0.0.0.0/0"
                ),
            ],
        ),
        # Addresses of which one holds the other; IPv6 sockets take no IPv4.
        (
            (
                "serve:\n  listen:\n    - 0.0.0.0:53\n    - '[::]:53'\n    - 127.0.0.1:53\n    - '[::1]:53'\n"
                "    - '[::]:53'\n    - 127.0.0.1:5353\n"
            ),
            [
                "5: serve.listen[2]: 127.0.0.1:53: overlaps 0.0.0.0:53 (serve.listen[0] in line 3)",
                "6: serve.listen[3]: [::1]:53: overlaps [::]:53 (serve.listen[1] in line 4)",
                "7: serve.listen[4]: [::]:53: given already (serve.listen[1] in line 4)",
            ],
        ),
        (
            (
                "serve:\n  listen: [127.0.0.1:443]\n  tls:\n    listen: [0.0.0.0:443]\n    cert_file: a\n"
                "    key_file: b\nadmin: {listen: '127.0.0.2:443'}\n"
            ),
            [
                "4: serve.tls.listen[0]: 0.0.0.0:443: overlaps 127.0.0.1:443 (serve.listen[0] in line 2)",
                "7: admin.listen: 127.0.0.2:443: overlaps 0.0.0.0:443 (serve.tls.listen[0] in line 4)",
            ],
        ),
        (
            "serve: {listen: ['[::ffff:127.0.0.1]:53']}\n",
            ["1: serve.listen[0]: an IPv4 address in IPv6 form; write 127.0.0.1:53"],
        ),
        (
            "cache:\n  size: 5\n  min_ttl: 2m\n  max_ttl: 30s\n",
            ["3: cache.min_ttl: 120s is above max_ttl, which is 30s"],
        ),
        ("cache:\n  min_ttl: 1h\n  max_ttl: 59m\n", ["2: cache.min_ttl: 1h is above max_ttl, which is 59m"]),
        # Numbers that YAML reads in another base.
        (
            "learn: {ttl: 010}\ncache: {size: 0755}\nserve:\n  lameduck: 1:30\nhelper: {interval: 1:30.5}\n",
            [
                "1: learn.ttl: YAML reads 010 in base 8, as 8; write 10 or 8, or put it in quotes",
                "2: cache.size: YAML reads 0755 in base 8, as 493; write 755 or 493, or put it in quotes",
                "4: serve.lameduck: YAML reads 1:30 in base 60, as 90; write 90, or put it in quotes",
                "5: helper.interval: YAML reads 1:30.5 in base 60, as 90.5; write 90.5, or put it in quotes",
            ],
        ),
        # Ports that are usual for the key.
        (
            "serve:\n  listen: ['::', 127.0.0.1, 53]\nhelper: {listen: 10.0.0.1}\nadmin: {listen: '::1'}\n",
            [
                "2: serve.listen[0]: '::' has no port; write for example [::]:53",
                "2: serve.listen[1]: '127.0.0.1' has no port; write for example 127.0.0.1:53",
                "2: serve.listen[2]: not an address; write for example 0.0.0.0:53",
                "3: helper.listen: '10.0.0.1' has no port; write for example 10.0.0.1:8953",
                "4: admin.listen: '::1' has no port; write for example [::1]:9153",
            ],
        ),
        # Keys that are nearly those of their place.
        (
            (
                "registries:\n  - {name: a, provider: generic, names: [{name: a.example, adresses: []}]}\n"
                "learn:\n  trusted_key: []\n  sources:\n    - {type: etcd, endpoint: [], key: a}\n"
                "forward:\n  timeouts: {}\n  timeout: {all: 1s}\nserve:\n  rate-limit: {}\n"
            ),
            [
                "2: registries[0].names[0].adresses: unknown key; did you mean addresses?",
                "4: learn.trusted_key: unknown key; did you mean trusted_keys?",
                "6: learn.sources[0].endpoint: unknown key; did you mean endpoints?",
                "6: learn.sources[0].endpoints: must be given",
                "8: forward.timeouts: unknown key; did you mean timeout?",
                "9: forward.timeout.all: unknown key",
                "11: serve.rate-limit: unknown key; did you mean rate_limit?",
            ],
        ),
        # What holds between sections is checked beside mistakes in others.
        (
            "learn: {ttl: 0}\nserve:\n  listen: [0.0.0.0:9153]\nadmin:\n  listen: 127.0.0.1:9153\n",
            [
                "1: learn.ttl: Input should be greater than or equal to 1",
                "5: admin.listen: 127.0.0.1:9153: overlaps 0.0.0.0:9153 (serve.listen[0] in line 3)",
            ],
        ),
    ],
)
def test_what_could_not_work_as_it_is_meant(text: str, expected: list[str]) -> None:
    assert [str(problem).removeprefix("c.yaml:") for problem in problems(text)] == expected


ZONED = "has an IPv6 zone id, which is not supported"


@pytest.mark.parametrize(
    "text",
    [
        "serve: {listen: ['[fe80::1%eth0]:53']}\n",
        "serve: {tls: {listen: ['[fe80::1%eth0]:853'], cert_file: a, key_file: b}}\n",
        "admin: {listen: '[fe80::1%2]:9153'}\n",
        "helper: {listen: '[fe80::1%2]:8953'}\n",
        "helper: {resolvers: ['fe80::1%eth0']}\n",
        "helper: {canary: {proxies: ['http://[fe80::1%25eth0]:9153']}}\n",
        "forward: {upstreams: ['fe80::1%eth0']}\n",
        "forward: {upstreams: ['tcp://[fe80::1%eth0]:53']}\n",
        "forward: {upstreams: ['tls://[fe80::1%eth0]#dns.example']}\n",
        "forward: {zones: {corp.example: ['fe80::1%eth0']}}\n",
        "forward: {bootstrap: ['fe80::1%eth0']}\n",
        "learn: {sources: [{url: 'dns://[fe80::1%eth0]'}]}\n",
        "learn: {trusted_keys: [a], sources: [{url: 'http://[fe80::1%eth0]:8953/v1/snapshot'}]}\n",
    ],
)
def test_an_ipv6_zone_id_is_named(text: str) -> None:
    (problem,) = problems(text)
    assert ZONED in problem.message


def test_a_default_address_that_is_given_too_is_named() -> None:
    text = REGISTRIES + "serve:\n  tls: {listen: ['127.0.0.1:9153'], cert_file: a, key_file: b}\n"
    (problem,) = problems(text)
    assert problem.path == "serve.tls.listen[0]"
    assert problem.message == "127.0.0.1:9153: given already (admin.listen by default)"


def test_an_upstream_that_is_this_proxy_is_a_warning() -> None:
    text = REGISTRIES + (
        "serve: {listen: ['0.0.0.0:53', '[::1]:53', '10.0.0.9:5300']}\nforward:\n"
        "  upstreams: [127.0.0.53, 10.0.0.9, 'tcp://10.0.0.9:5300', 'tls://127.0.0.1:53#a.example', system]\n"
        "  zones: {corp.example: ['10.0.0.1', '[::1]:53']}\n"
    )
    found = config.examine_text(text, "c.yaml").warnings
    assert [(warning.path, warning.message.partition(" is ")[0]) for warning in found] == [
        ("forward.upstreams[0]", "127.0.0.53:53"),
        ("forward.upstreams[2]", "tcp://10.0.0.9:5300"),
        ("forward.zones.corp.example.[1]", "[::1]:53"),
    ]


def test_an_alias_of_itself_is_refused() -> None:
    (problem,) = problems(REGISTRIES + "    names: [{name: A.example, cname: a.example.}]\n")
    assert problem.message == "an alias of itself"


REGISTRIES = "registries:\n  - name: h\n    region: cn-hangzhou\n    instance: x\n"


def test_an_unknown_region_is_a_warning_with_a_suggestion() -> None:
    text = """\
registries:
  - {name: a, instance: x, region: cn-hangzou}
  - name: b
    provider: ecr
    region: eu-central-9
    account: '123456789012'
  - {name: c, provider: swr, region: cn-north-4, storage: none}
  - {name: d, provider: tcr, instance: x, region: nowhere-else, storage: none}
"""
    checked = config.examine_text(text, "c.yaml")
    assert [str(warning) for warning in checked.warnings] == [
        "c.yaml:2: registries[0].region: no region of acr that is known here; did you mean cn-hangzhou?",
        "c.yaml:5: registries[1].region: no region of ecr that is known here; did you mean eu-central-2?",
        "c.yaml:8: registries[3].region: no region of tcr that is known here",
    ]


@pytest.mark.parametrize("text", ["0", "7", "10", "1_000", "'010'", "0x10", "0.5", "-1"])
def test_numbers_that_mean_what_they_look_like(text: str) -> None:
    try:
        config.parse(f"cache: {{size: {text}}}\n")
    except ConfigError as exc:
        assert "base" not in str(exc)  # noqa: PT017 - both outcomes are allowed
