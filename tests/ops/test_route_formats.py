from __future__ import annotations

import json
import re
import shlex
import subprocess
from typing import Any

import hcl2
import pytest

from dnsproxy.ops.route_formats import description, to_aliyun, to_json, to_terraform
from dnsproxy.ops.routes import Plan, plan_routes
from tests.ops.test_routes import AUTH, EXAMPLE, OSS, known, name, ranges

MISSING = ["100.98.170.0/24", "100.103.7.181/32", "100.114.102.0/24", "100.118.31.0/24"]


@pytest.fixture
def plan() -> Plan:
    return plan_routes(known(*EXAMPLE), {"hz": ranges("10.0.0.0/8", "100.118.28.0/24")})


@pytest.fixture
def whole() -> Plan:
    return plan_routes(known(*EXAMPLE), {"hz": ranges("10.0.0.0/8", "100.64.0.0/10")})


def parse(text: str) -> dict[str, Any]:
    """What HCL holds, with the quotes that python-hcl2 keeps around keys and values taken off."""

    def bare(value: Any) -> Any:
        if isinstance(value, dict):
            return {bare(key): bare(held) for key, held in value.items() if not key.startswith("__")}
        if isinstance(value, list):
            return [bare(held) for held in value]
        return value.strip('"') if isinstance(value, str) else value

    parsed: dict[str, Any] = bare(hcl2.loads(text))
    return parsed


def test_terraform_is_hcl_with_real_arguments_and_ids_as_variables(plan: Plan) -> None:
    document = parse(to_terraform(plan))
    assert {key for variable in document["variable"] for key in variable} == {
        *("vpc_route_table_id", "vpc_attachment_id"),
        *("transit_router_route_table_id", "transit_router_next_hop_id"),
    }
    (held,) = document["locals"]
    assert list(held["dnsproxy_routes"]) == MISSING
    vpc, transit = (next(iter(resource.items())) for resource in document["resource"])
    assert (vpc[0], transit[0]) == ("alicloud_route_entry", "alicloud_cen_transit_router_route_entry")
    assert vpc[1]["dnsproxy"] == {
        "for_each": "${local.dnsproxy_routes}",
        "route_table_id": "${var.vpc_route_table_id}",
        "destination_cidrblock": "${each.key}",
        "nexthop_type": "Attachment",
        "nexthop_id": "${var.vpc_attachment_id}",
    }
    assert transit[1]["dnsproxy"] == {
        "for_each": "${local.dnsproxy_routes}",
        "transit_router_route_table_id": "${var.transit_router_route_table_id}",
        "transit_router_route_entry_destination_cidr_block": "${each.key}",
        "transit_router_route_entry_next_hop_type": "Attachment",
        "transit_router_route_entry_next_hop_id": "${var.transit_router_next_hop_id}",
        "transit_router_route_entry_description": "${each.value}",
    }


def test_a_missing_brace_would_be_noticed(plan: Plan) -> None:
    with pytest.raises(Exception, match="Unexpected"):
        hcl2.loads(to_terraform(plan).rstrip().removesuffix("}"))


# Of the references of CreateRouteEntry (vpc 2016-04-28) and CreateTransitRouterRouteEntry (cbn 2017-09-12).
PARAMETERS = {
    ("vpc", "CreateRouteEntry"): {"RouteTableId", "DestinationCidrBlock", "NextHopType", "NextHopId"},
    ("cbn", "CreateTransitRouterRouteEntry"): {
        *("TransitRouterRouteTableId", "TransitRouterRouteEntryDestinationCidrBlock"),
        *("TransitRouterRouteEntryNextHopType", "TransitRouterRouteEntryNextHopId"),
    },
}


def test_aliyun_lines_name_parameters_of_the_api(plan: Plan) -> None:
    calls = [shlex.split(line) for line in to_aliyun(plan).splitlines() if line.startswith("aliyun ")]
    assert len(calls) == 2 * len(MISSING)
    for call in calls:
        keys, values = call[3::2], call[4::2]
        assert {key.removeprefix("--") for key in keys} == PARAMETERS[call[1], call[2]]
        assert values[1] in MISSING
        assert values[2] == "Attachment"


def test_the_script_runs_and_asks_for_its_variables(plan: Plan) -> None:
    script = 'aliyun() { printf "%s\\n" "$*"; }\n' + to_aliyun(plan)
    without = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False, env={})
    assert without.returncode != 0
    assert "VPC_ROUTE_TABLE_ID" in without.stderr
    given = dict.fromkeys(re.findall(r"^: \"\$\{(\w+):\?", script, re.MULTILINE), "id-1")
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, env=given)
    lines = done.stdout.splitlines()
    assert lines[0] == (
        "vpc CreateRouteEntry --RouteTableId id-1 --DestinationCidrBlock 100.98.170.0/24 "
        "--NextHopType Attachment --NextHopId id-1"
    )
    assert len(lines) == 2 * len(MISSING)


def test_when_nothing_is_missing_only_remarks_are_left(whole: Plan) -> None:
    assert parse(to_terraform(whole)) == {}
    for text in (to_terraform(whole), to_aliyun(whole)):
        assert all(line.startswith("# ") for line in text.splitlines())
        assert "Nothing is missing" in text


def test_json_holds_everything(plan: Plan) -> None:
    document = json.loads(json.dumps(to_json(plan)))
    assert document["missing"] == MISSING
    assert document["uncovered"] == [{"name": AUTH, "registry": "hz", "address": "100.103.7.181"}]
    assert document["routes"][4] == {
        "destination": "100.118.28.0/24",
        "roles": ["storage"],
        "names": [OSS, f"*.{OSS}"],
        "addresses": ["100.118.28.43"],
        "covered": True,
    }
    assert (document["origin"], document["serial"]) == ("test", 7)
    assert any("100.64.0.0/10" in note for note in document["notes"])


def test_a_description_holds_only_what_the_cloud_takes() -> None:
    odd = name('we"ird\\032${name}.example.', "10.0.0.1")
    (route,) = plan_routes(known(odd), {}).routes
    assert re.fullmatch(r"[A-Za-z0-9,.;/@_-]{2,256}", description(route))
    wild = plan_routes(known(name(f"*.{OSS}", "100.118.28.43", role="storage")), {}).routes[0]
    assert description(wild) == "dnsproxy/storage/oss-cn-hangzhou-internal.aliyuncs.com"
    pair = [name(text, "100.118.28.43", role="storage") for text in (OSS, f"*.{OSS}")]
    assert description(plan_routes(known(*pair), {}).routes[0]) == description(wild)
    many = plan_routes(known(*(name(f"n{i}.example.", "10.0.0.1") for i in range(60))), {}).routes[0]
    assert len(description(many)) == 256
