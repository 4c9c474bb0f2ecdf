"""A route plan as JSON, Terraform or lines for the aliyun command; the table is in `tables`.

Terraform and aliyun get what is missing only. Ids are left to variables: the program
knows addresses, not accounts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from dnsproxy.ops.routes import Plan, Route

# What the description of a transit router's entry may hold, and its length
# (CreateTransitRouterRouteEntry, cbn 2017-09-12).
_NOT_IN_DESCRIPTION = re.compile(r"[^A-Za-z0-9,.;/@_-]")
_MAX_DESCRIPTION = 256

_VARIABLES = (
    ("vpc_route_table_id", "Route table of the VPC whose hosts use the names (vtb-...)."),
    ("vpc_attachment_id", "Attachment of that VPC to the transit router of its region (tr-attach-...)."),
    ("transit_router_route_table_id", "Route table of that transit router (vtb-...)."),
    ("transit_router_next_hop_id", "Attachment that leads to the registry's region (tr-attach-...)."),
)


def to_json(plan: Plan) -> dict[str, Any]:
    """Return the plan as an object for machines."""
    return {
        "origin": plan.origin,
        "serial": plan.serial,
        "routes": [
            {
                "destination": str(route.destination),
                "roles": list(route.roles),
                "names": list(route.names),
                "addresses": list(route.addresses),
                "covered": route.covered,
            }
            for route in plan.routes
        ],
        "missing": [str(route.destination) for route in plan.missing],
        "uncovered": [
            {"name": entry.name, "registry": entry.registry, "address": entry.address}
            for entry in plan.uncovered
        ],
        "unknown": list(plan.unknown),
        "unprobed": list(plan.unprobed),
        "notes": list(plan.notes),
    }


def to_terraform(plan: Plan) -> str:
    """Return the missing entries for the alicloud provider, with ids as variables."""
    lines = list(_head(plan))
    if not plan.missing:
        return "\n".join(lines) + "\n"
    for name, text in _VARIABLES:
        lines += [
            f'variable "{name}" {{',
            "  type        = string",
            f"  description = {json.dumps(text)}",
            "}",
            "",
        ]
    lines += ["locals {", "  dnsproxy_routes = {"]
    lines += [f'    "{route.destination}" = "{description(route)}"' for route in plan.missing]
    lines += ["  }", "}", ""]
    lines += _resource(
        "alicloud_route_entry",
        route_table_id="var.vpc_route_table_id",
        destination_cidrblock="each.key",
        nexthop_type='"Attachment"',
        nexthop_id="var.vpc_attachment_id",
    )
    lines += _resource(
        "alicloud_cen_transit_router_route_entry",
        transit_router_route_table_id="var.transit_router_route_table_id",
        transit_router_route_entry_destination_cidr_block="each.key",
        transit_router_route_entry_next_hop_type='"Attachment"',
        transit_router_route_entry_next_hop_id="var.transit_router_next_hop_id",
        transit_router_route_entry_description="each.value",
    )
    return "\n".join(lines[:-1]) + "\n"


def _resource(kind: str, **arguments: str) -> Iterator[str]:
    width = max(map(len, arguments))
    yield f'resource "{kind}" "dnsproxy" {{'
    yield "  for_each = local.dnsproxy_routes"
    yield ""
    yield from (f"  {key:<{width}} = {value}" for key, value in arguments.items())
    yield "}"
    yield ""


def to_aliyun(plan: Plan) -> str:
    """Return the missing entries as a shell script of calls of the aliyun command."""
    lines = list(_head(plan))
    if not plan.missing:
        return "\n".join(lines) + "\n"
    lines.append("# Both calls are asynchronous. When one returns TaskConflict, run its line again.")
    lines += [f': "${{{name.upper()}:?{text}}}"' for name, text in _VARIABLES]
    for route in plan.missing:
        lines.append(f"# {description(route)}")
        lines.append(
            'aliyun vpc CreateRouteEntry --RouteTableId "$VPC_ROUTE_TABLE_ID" '
            f"--DestinationCidrBlock {route.destination} "
            '--NextHopType Attachment --NextHopId "$VPC_ATTACHMENT_ID"'
        )
        lines.append(
            "aliyun cbn CreateTransitRouterRouteEntry "
            '--TransitRouterRouteTableId "$TRANSIT_ROUTER_ROUTE_TABLE_ID" '
            f"--TransitRouterRouteEntryDestinationCidrBlock {route.destination} "
            "--TransitRouterRouteEntryNextHopType Attachment "
            '--TransitRouterRouteEntryNextHopId "$TRANSIT_ROUTER_NEXT_HOP_ID"'
        )
    return "\n".join(lines) + "\n"


def _head(plan: Plan) -> Iterator[str]:
    yield f"# Made by dnsproxy routes from {_one_line(plan.origin)}, serial {plan.serial}."
    if not plan.missing:
        yield "# Nothing is missing: network.routed holds every entry that is needed."
    yield from (f"# Note: {_one_line(note)}" for note in plan.notes)


def description(route: Route) -> str:
    """Return what an entry is for, in the characters that the cloud takes in a description."""
    # A wildcard and its parent are one name here, since `*` may not stand in a description.
    names = dict.fromkeys(name.removeprefix("*.").removesuffix(".") for name in route.names)
    text = "/".join(("dnsproxy", *route.roles, *names))
    return _NOT_IN_DESCRIPTION.sub("_", text)[:_MAX_DESCRIPTION]


def _one_line(text: str) -> str:
    return " ".join(text.split())
