from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dnsproxy.core.challenge import (
    MAX_CHALLENGES,
    MAX_HEADER,
    Bearer,
    Challenge,
    Hint,
    default_bucket,
    judge_bearer,
    judge_redirect,
    parse_challenges,
    read_hint,
)
from dnsproxy.errors import DiscoverError, Doubt

REGISTRY = "corp-registry-vpc.cn-hangzhou.cr.aliyuncs.com."
AUTH = "dockerauth-vpc.cn-hangzhou.aliyuncs.com."
SUFFIXES = ("aliyuncs.com.",)
EE_SERVICE = "registry.aliyuncs.com:cn-hangzhou:china:cri-example123:2a"


# --- the header


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        # domain.md §2.1: the personal edition, its later error form, Enterprise Edition.
        (
            [
                (
                    'Bearer realm="https://dockerauth.aliyuncs.com/auth",'
                    'service="registry.aliyuncs.com:cn-hangzhou:26842"'
                )
            ],
            [
                Challenge(
                    "bearer",
                    {
                        "realm": "https://dockerauth.aliyuncs.com/auth",
                        "service": "registry.aliyuncs.com:cn-hangzhou:26842",
                    },
                )
            ],
        ),
        (
            [
                (
                    'Bearer realm="https://a.example/auth",service="s",'
                    'scope="repository:engigu/ark:push,pull",error="insufficient_scope"'
                )
            ],
            [
                Challenge(
                    "bearer",
                    {
                        "realm": "https://a.example/auth",
                        "service": "s",
                        "scope": "repository:engigu/ark:push,pull",
                        "error": "insufficient_scope",
                    },
                )
            ],
        ),
        ([], []),
        ([""], []),
        ([" , ,"], []),
        (["Basic"], [Challenge("basic")]),
        (["Negotiate, Basic"], [Challenge("negotiate"), Challenge("basic")]),
        (
            ['Basic realm="simple", Bearer realm=x , service="y"'],
            [Challenge("basic", {"realm": "simple"}), Challenge("bearer", {"realm": "x", "service": "y"})],
        ),
        # RFC 9110 §11.6.1, its own example.
        (
            ['Basic realm="simple", Newauth realm="apps", type=1, title="Login to \\"apps\\""'],
            [
                Challenge("basic", {"realm": "simple"}),
                Challenge("newauth", {"realm": "apps", "type": "1", "title": 'Login to "apps"'}),
            ],
        ),
        (['BEARER Realm = "X"'], [Challenge("bearer", {"realm": "X"})]),
        (["Negotiate YII+/_=="], [Challenge("negotiate", token68="YII+/_==")]),
        (
            ["Negotiate abc, Bearer realm=x"],
            [Challenge("negotiate", token68="abc"), Challenge("bearer", {"realm": "x"})],
        ),
        (["Bearer realm="], [Challenge("bearer", token68="realm=")]),
        (
            ["Basic realm=x", "Bearer realm=y"],
            [Challenge("basic", {"realm": "x"}), Challenge("bearer", {"realm": "y"})],
        ),
        # One list over several fields (§5.3).
        (["Bearer realm=x", "service=y"], [Challenge("bearer", {"realm": "x", "service": "y"})]),
        (['Bearer realm="a, Basic realm=b"'], [Challenge("bearer", {"realm": "a, Basic realm=b"})]),
        (["Bearer ,, realm=x,,"], [Challenge("bearer", {"realm": "x"})]),
        (['Bearer realm=""'], [Challenge("bearer", {"realm": ""})]),
    ],
)
def test_challenges(values: list[str], expected: list[Challenge]) -> None:
    assert parse_challenges(values) == expected


@pytest.mark.parametrize(
    "value",
    [
        'Bearer realm="open',
        'Bearer realm="x" service="y"',
        "Bearer realm=a b",
        'realm="x"',
        'Bearer realm="x\ny"',
        'Bearer realm="x\x00"',
        'Bearer realm="x\\',
        '"Bearer"',
        "Bearer =x",
        "Bearer realm=x, realm=y",
        "Bearer realm=x, REALM=x",
        "Negotiate abc, realm=x",
        "Bearer\x0brealm=x",
        "Bärer",
    ],
)
def test_a_malformed_header_is_refused_as_a_whole(value: str) -> None:
    with pytest.raises(DiscoverError) as caught:
        parse_challenges([value])
    assert caught.value.reason is Doubt.MALFORMED
    assert str(caught.value).isprintable()


def test_an_endless_header_is_refused() -> None:
    with pytest.raises(DiscoverError) as caught:
        parse_challenges(["Basic, "] * (MAX_HEADER // 8))
    assert caught.value.reason is Doubt.TOO_LONG


def test_p29_a_header_of_more_challenges_than_have_a_use_is_refused() -> None:
    assert len(parse_challenges(["a, " * MAX_CHALLENGES])) == MAX_CHALLENGES
    with pytest.raises(DiscoverError) as caught:
        parse_challenges(["a, " * (MAX_CHALLENGES + 1)])
    assert caught.value.reason is Doubt.TOO_LONG


tokens = st.text("abcXYZ019-._~!#", min_size=1, max_size=8)
quotable = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E) | st.just("\t"), max_size=12)
challenges = st.builds(
    Challenge,
    tokens.map(str.lower),
    st.dictionaries(tokens.map(str.lower), quotable, min_size=1, max_size=3),
)


def written(challenge: Challenge) -> str:
    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    return f"{challenge.scheme} " + ", ".join(f"{k}={quoted(v)}" for k, v in challenge.parameters.items())


@given(st.lists(challenges, max_size=4), st.booleans())
def test_what_is_written_is_read_back(listed: list[Challenge], apart: bool) -> None:
    values = [written(challenge) for challenge in listed]
    assert parse_challenges(values if apart else [", ".join(values)]) == listed


pieces = st.sampled_from(
    [
        "Bearer ",
        "Basic",
        "realm=",
        '"',
        "\\",
        ",",
        " ",
        "=",
        "https://a.aliyuncs.com/auth",
        "service",
        "\t",
        "é",
        "\x00",
    ]
)


@given(st.lists(st.text() | st.lists(pieces, max_size=20).map("".join), max_size=3))
@example(['Bearer realm="' + "\\" * 4000])
@example(["Bearer realm=" + "=" * 8000])
@example([", " * 4000])
def test_any_header_is_read_or_refused(values: list[str]) -> None:
    try:
        judge_bearer(parse_challenges(values), REGISTRY, 443, SUFFIXES)
    except DiscoverError as exc:
        assert str(exc).isprintable()  # noqa: PT017 - both outcomes are allowed


# --- the realm


def judged(realm: str, *, port: int = 443, suffixes: tuple[str, ...] = SUFFIXES) -> Bearer:
    bearer = judge_bearer([Challenge("bearer", {"realm": realm})], REGISTRY, port, suffixes)
    assert bearer is not None
    return bearer


@pytest.mark.parametrize(
    ("realm", "host"),
    [
        ("https://dockerauth-vpc.cn-hangzhou.aliyuncs.com/auth", AUTH),
        ("https://dockerauth.cn-hangzhou.aliyuncs.com/auth?x=1", "dockerauth.cn-hangzhou.aliyuncs.com."),
        ("HTTPS://DockerAuth-VPC.cn-hangzhou.aliyuncs.com", AUTH),
        ("https://dockerauth-vpc.cn-hangzhou.aliyuncs.com:443/auth", AUTH),
        ("https://dockerauth-cn-zhangjiakou.aliyuncs.com/auth", "dockerauth-cn-zhangjiakou.aliyuncs.com."),
    ],
)
def test_a_realm_below_an_allowed_domain(realm: str, host: str) -> None:
    bearer = judged(realm)
    assert (bearer.realm, bearer.host, bearer.taken_over) == (realm, host, False)


def test_auth_that_the_instance_has_taken_over_needs_no_allowed_domain() -> None:
    bearer = judged(f"https://{REGISTRY.rstrip('.')}/auth", suffixes=())
    assert (bearer.host, bearer.taken_over) == (REGISTRY, True)


def test_a_port_is_allowed_where_the_registry_has_it_too() -> None:
    assert judged("https://auth.aliyuncs.com:5000/auth", port=5000).host == "auth.aliyuncs.com."
    assert judged("https://auth.aliyuncs.com/auth", port=5000).host == "auth.aliyuncs.com."


def test_another_script_is_allowed_where_it_was_configured() -> None:
    realm = "https://auth.xn--fiqs8s.example/token"
    assert judged(realm, suffixes=("xn--fiqs8s.example.",)).host == "auth.xn--fiqs8s.example."


@pytest.mark.parametrize(
    ("realm", "reason"),
    [
        ("http://dockerauth.aliyuncs.com/auth", Doubt.NOT_HTTPS),
        ("ftp://dockerauth.aliyuncs.com/auth", Doubt.NOT_HTTPS),
        ("javascript://dockerauth.aliyuncs.com/%0aalert(1)", Doubt.NOT_HTTPS),
        ("https://dockerauth.aliyuncs.com.attacker.example/auth", Doubt.FOREIGN),
        ("https://aliyuncs.com/auth", Doubt.FOREIGN),
        ("https://attackeraliyuncs.com/auth", Doubt.FOREIGN),
        ("https://dockerauth.aliyuncs.co/auth", Doubt.FOREIGN),
        ("https://dockerauth.aliyuncs.com.:443/auth", Doubt.BAD_HOST),
        ("https://dockerauth.aliyuncs.com@attacker.example/auth", Doubt.USERINFO),
        ("https://user:pw@dockerauth.aliyuncs.com/auth", Doubt.USERINFO),
        ("https://attacker.example#.aliyuncs.com/auth", Doubt.FOREIGN),
        ("https://attacker.example?.aliyuncs.com/auth", Doubt.FOREIGN),
        ("https://attacker.example\\.aliyuncs.com/auth", Doubt.NOT_A_URL),
        ("https://attacker.example%2f.aliyuncs.com/auth", Doubt.BAD_HOST),
        ("https://attacker_example.aliyuncs.com/auth", Doubt.BAD_HOST),
        ("https://*.aliyuncs.com/auth", Doubt.BAD_HOST),
        ("https://-.aliyuncs.com/auth", Doubt.BAD_HOST),
        ("https://a..aliyuncs.com/auth", Doubt.BAD_HOST),
        (f"https://{'a' * 64}.aliyuncs.com/auth", Doubt.BAD_HOST),
        (f"https://{'a.' * 130}aliyuncs.com/auth", Doubt.BAD_HOST),
        ("https://localhost/auth", Doubt.BAD_HOST),
        ("https:///auth", Doubt.BAD_HOST),
        ("https://100.103.7.181/auth", Doubt.IP_LITERAL),
        ("https://127.1/auth", Doubt.IP_LITERAL),
        ("https://2130706433/auth", Doubt.IP_LITERAL),
        ("https://0x7f000001/auth", Doubt.IP_LITERAL),
        ("https://[::1]/auth", Doubt.IP_LITERAL),
        ("https://[::1].aliyuncs.com/auth", Doubt.IP_LITERAL),
        ("https://dockerauth.aliyuncs.com:8443/auth", Doubt.PORT),
        ("https://dockerauth.aliyuncs.com:80/auth", Doubt.PORT),
        ("https://dockerauth.aliyuncs.com:/auth", Doubt.PORT),
        ("https://dockerauth.aliyuncs.com:443x/auth", Doubt.PORT),
        ("https://dockerauth.aliyuncs.com:65536/auth", Doubt.PORT),
        ("https://dockerauth.aliyuncs.com:443:443/auth", Doubt.PORT),
        ("https://döckerauth.aliyuncs.com/auth", Doubt.IDN),
        ("https://dockerauth.aliyuncs。com/auth", Doubt.IDN),
        ("https://xn--dckerauth-07a.aliyuncs.com/auth", Doubt.IDN),
        ("https://dockerauth.aliyuncs.com/a b", Doubt.NOT_A_URL),
        ("https://docker\tauth.aliyuncs.com/auth", Doubt.NOT_A_URL),
        ("https://docker\x7fauth.aliyuncs.com/auth", Doubt.NOT_A_URL),
        ("//dockerauth.aliyuncs.com/auth", Doubt.NOT_A_URL),
        ("dockerauth.aliyuncs.com/auth", Doubt.NOT_A_URL),
        ("https:dockerauth.aliyuncs.com/auth", Doubt.NOT_A_URL),
        ("https://dockerauth.aliyuncs.com/" + "a" * 5000, Doubt.TOO_LONG),
        ("", Doubt.NO_REALM),
    ],
)
def test_a_hostile_realm_is_refused_by_name(realm: str, reason: Doubt) -> None:
    with pytest.raises(DiscoverError) as caught:
        judged(realm)
    assert caught.value.reason is reason
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200
    assert "pw" not in str(caught.value)


@given(st.text())
@example("https://" + "a" * 4000)
@example("https://" + "1." * 2000)
@example("https://" + "0x" * 2000)
def test_any_realm_is_judged(realm: str) -> None:
    try:
        assert judged(realm).host.endswith(".aliyuncs.com.")
    except DiscoverError as exc:
        assert str(exc).isprintable()  # noqa: PT017 - both outcomes are allowed


def test_only_the_first_bearer_challenge_counts() -> None:
    listed = [Challenge("basic", {"realm": "x"}), Challenge("bearer", {"realm": "http://a.example"})]
    with pytest.raises(DiscoverError):
        judge_bearer(
            [*listed, Challenge("bearer", {"realm": "https://a.aliyuncs.com"})], REGISTRY, 443, SUFFIXES
        )
    assert judge_bearer(listed[:1], REGISTRY, 443, SUFFIXES) is None
    with pytest.raises(DiscoverError) as caught:
        judge_bearer([Challenge("bearer", {"service": "x"})], REGISTRY, 443, SUFFIXES)
    assert caught.value.reason is Doubt.NO_REALM


# --- the service


@pytest.mark.parametrize(
    ("service", "hint"),
    [
        (EE_SERVICE, Hint("cn-hangzhou", "cri-example123")),
        ("registry.aliyuncs.com:ap-southeast-1:intl:cri-abc:x:y", Hint("ap-southeast-1", "cri-abc")),
        ("registry.aliyuncs.com:cn-hangzhou:26842", Hint("cn-hangzhou", None)),
        ("registry.aliyuncs.com:cn-hangzhou", None),
        ("registry.aliyuncs.com:cn-hangzhou:china:cri-../x:2a", None),
        ("registry.aliyuncs.com:cn hangzhou:china:cri-a:2a", None),
        ("registry.aliyuncs.com:CN-hangzhou:china:cri-a:2a", None),
        ("registry.aliyuncs.com:.:china:cri-a:2a", None),
        (f"registry.aliyuncs.com:cn-hangzhou:china:cri-{'a' * 60}:2a", None),
        ("harbor-registry", None),
        ("", None),
        (None, None),
    ],
)
def test_the_service_is_a_hint(service: str | None, hint: Hint | None) -> None:
    assert read_hint(service) == hint


def test_the_hint_comes_with_the_challenge() -> None:
    parameters = {"realm": f"https://{AUTH.rstrip('.')}/auth", "service": EE_SERVICE}
    bearer = judge_bearer([Challenge("bearer", parameters)], REGISTRY, 443, SUFFIXES)
    assert bearer is not None
    assert (bearer.service, bearer.hint) == (EE_SERVICE, Hint("cn-hangzhou", "cri-example123"))


def test_the_default_bucket_is_named_after_the_instance() -> None:
    assert default_bucket(Hint("cn-hangzhou", "cri-example123")) == (
        "cri-example123-registry.oss-cn-hangzhou-internal.aliyuncs.com."
    )
    assert default_bucket(Hint("cn-hangzhou", None)) is None
    assert default_bucket(None) is None


# --- the redirect

SIGNED = "Expires=1&OSSAccessKeyId=AKID&Signature=s3cret"


@pytest.mark.parametrize(
    ("location", "host"),
    [
        # domain.md §2.1: plain http in the personal edition, https elsewhere.
        (
            f"http://aliregistry.oss-cn-hangzhou.aliyuncs.com/docker/registry/v2/blobs/data?{SIGNED}",
            "aliregistry.oss-cn-hangzhou.aliyuncs.com.",
        ),
        (
            f"https://cri-x-registry.oss-cn-hangzhou-internal.aliyuncs.com/data?{SIGNED}",
            "cri-x-registry.oss-cn-hangzhou-internal.aliyuncs.com.",
        ),
        ("https://bucket.aliyuncs.com:9000/data", "bucket.aliyuncs.com."),
        (f"https://{REGISTRY.rstrip('.')}/v2/blob?{SIGNED}", None),
        (f"/v2/blob?{SIGNED}", None),
    ],
)
def test_a_redirect_names_the_storage_host(location: str, host: str | None) -> None:
    assert judge_redirect(location, REGISTRY, SUFFIXES) == host


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        (f"https://bucket.aliyuncs.com.attacker.example/x?{SIGNED}", Doubt.FOREIGN),
        (f"https://bucket.aliyuncs.com@attacker.example/x?{SIGNED}", Doubt.USERINFO),
        (f"http://100.118.28.43/x?{SIGNED}", Doubt.IP_LITERAL),
        (f"ftp://bucket.aliyuncs.com/x?{SIGNED}", Doubt.NOT_A_URL),
        (f"//attacker.example/x?{SIGNED}", Doubt.NOT_A_URL),
        (f"data?{SIGNED}", Doubt.NOT_A_URL),
        (f"/a b?{SIGNED}", Doubt.NOT_A_URL),
        (f"https://bücket.aliyuncs.com/x?{SIGNED}", Doubt.IDN),
        (f"https://bucket.aliyuncs.com:x/x?{SIGNED}", Doubt.PORT),
        (f"https://bucket.aliyuncs.com/{'x' * 5000}?{SIGNED}", Doubt.TOO_LONG),
    ],
)
def test_a_hostile_redirect_is_refused_without_its_signature(location: str, reason: Doubt) -> None:
    with pytest.raises(DiscoverError) as caught:
        judge_redirect(location, REGISTRY, SUFFIXES)
    assert caught.value.reason is reason
    assert "s3cret" not in str(caught.value)


@given(st.text() | st.text("/:?#@[].abc19%\\", max_size=30).map("http://".__add__))
def test_any_redirect_is_judged(location: str) -> None:
    try:
        host = judge_redirect(location, REGISTRY, SUFFIXES)
        assert host is None or host.endswith(".aliyuncs.com.")
    except DiscoverError as exc:
        assert str(exc).isprintable()  # noqa: PT017 - both outcomes are allowed
