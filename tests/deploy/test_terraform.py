"""The Terraform module: read by python-hcl2 and, where there is one, by terraform itself.

No provider can be had where the tests run, so nothing is planned against one. What of it can be known
without: that names and references hold together, that arguments are those of the provider's documents, that
values are checked.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from dnsproxy.config import load
from dnsproxy.ops.route_formats import to_terraform
from dnsproxy.ops.routes import plan_routes
from tests.deploy.conftest import PLACES
from tests.deploy.files import DEPLOY, run
from tests.ops.test_route_formats import parse
from tests.ops.test_routes import EXAMPLE, known, ranges

pytestmark = pytest.mark.deploy

MODULE = DEPLOY / "terraform" / "alicloud"
TEXTS = {path.name: path.read_text() for path in sorted(MODULE.glob("*.tf"))}

# Arguments and blocks that the module uses, as the provider's documents name them
# (aliyun/terraform-provider-alicloud, website/docs/r/<name>.html.markdown, and for the transit router's entry
# the schema in alicloud/resource_alicloud_cen_transit_router_route_entry.go). True: required.
PROVIDER: dict[str, dict[str, bool]] = {
    "alicloud_security_group": dict.fromkeys(
        ("security_group_name", "description", "vpc_id", "inner_access_policy", "tags"), False
    ),
    "alicloud_security_group_rule": {
        **dict.fromkeys(("type", "ip_protocol", "security_group_id"), True),
        **dict.fromkeys(("port_range", "nic_type", "policy", "priority", "cidr_ip"), False),
    },
    "alicloud_instance": {
        **dict.fromkeys(("image_id", "instance_type", "security_groups"), True),
        **dict.fromkeys(
            ("instance_name", "vswitch_id", "private_ip", "key_name", "system_disk_category"), False
        ),
        **dict.fromkeys(
            ("system_disk_size", "internet_max_bandwidth_out", "http_tokens", "tags", "user_data"), False
        ),
    },
    "alicloud_vpc_dhcp_options_set": dict.fromkeys(
        (
            *("dhcp_options_set_name", "dhcp_options_set_description", "domain_name"),
            *("domain_name_servers", "tags"),
        ),
        False,
    ),
    "alicloud_vpc_dhcp_options_set_attachment": {"vpc_id": True, "dhcp_options_set_id": True},
    "alicloud_pvtz_endpoint": dict.fromkeys(
        ("endpoint_name", "security_group_id", "vpc_id", "vpc_region_id", "ip_configs"), True
    ),
    "alicloud_pvtz_endpoint.ip_configs": dict.fromkeys(("zone_id", "cidr_block", "vswitch_id"), True),
    "alicloud_pvtz_rule": {
        **dict.fromkeys(("endpoint_id", "rule_name", "zone_name", "forward_ips"), True),
        "type": False,
    },
    "alicloud_pvtz_rule.forward_ips": {"ip": True, "port": True},
    "alicloud_pvtz_rule_attachment": {"rule_id": True, "vpcs": True},
    "alicloud_pvtz_rule_attachment.vpcs": {"vpc_id": True, "region_id": True},
    "alicloud_route_entry": {
        "route_table_id": True,
        **dict.fromkeys(("destination_cidrblock", "nexthop_type", "nexthop_id"), False),
    },
    "alicloud_cen_transit_router_route_entry": {
        **dict.fromkeys(
            (
                *("transit_router_route_table_id", "transit_router_route_entry_destination_cidr_block"),
                "transit_router_route_entry_next_hop_type",
            ),
            True,
        ),
        **dict.fromkeys(
            ("transit_router_route_entry_next_hop_id", "transit_router_route_entry_description"), False
        ),
    },
}
META = frozenset({"count", "for_each", "lifecycle", "depends_on"})


@cache
def parsed() -> list[dict[str, Any]]:
    """Each file once: the parser takes seconds for them all."""
    return [parse(text) for text in TEXTS.values()]


def blocks(kind: str) -> Iterator[dict[str, Any]]:
    for document in parsed():
        yield from document.get(kind, [])


def resources() -> dict[str, dict[str, Any]]:
    return {
        f"{kind}.{name}": body
        for block in blocks("resource")
        for kind, named in block.items()
        for name, body in named.items()
    }


def arguments(kind: str, body: dict[str, Any]) -> Iterator[tuple[str, set[str]]]:
    """What a resource and each of its blocks are given; a dynamic block is the block that it makes."""
    given = {key for key in body if key not in META and key != "dynamic"}
    for dynamic in body.get("dynamic", []):
        for name, made in dynamic.items():
            given.add(name)
            content = made["content"]
            yield f"{kind}.{name}", set(content[0] if isinstance(content, list) else content)
    yield kind, given


def test_every_file_is_hcl() -> None:
    assert set(TEXTS) == {
        "helper.tf",
        "outputs.tf",
        "resolvers.tf",
        "routes.tf",
        "variables.tf",
        "versions.tf",
    }
    assert len(parsed()) == len(TEXTS)


def test_arguments_are_those_of_the_provider() -> None:
    seen = set()
    for name, body in resources().items():
        for place, given in arguments(name.partition(".")[0], body):
            seen.add(place)
            known = PROVIDER[place]
            assert given <= set(known), place
            assert {key for key, required in known.items() if required} <= given, place
    assert seen == set(PROVIDER)


def test_variables_are_declared_described_and_used() -> None:
    declared = {name: body for block in blocks("variable") for name, body in block.items()}
    elsewhere = "\n".join(text for name, text in TEXTS.items() if name != "variables.tf")
    assert set(re.findall(r"\bvar\.(\w+)", elsewhere)) == set(declared)
    assert [name for name, body in declared.items() if not {"type", "description"} <= set(body)] == []


def test_references_lead_to_resources() -> None:
    text = "\n".join(TEXTS.values())
    used = set(re.findall(r"(?<![\w\"])(alicloud_\w+\.\w+)", text))
    assert used
    assert used <= set(resources())
    for path in re.findall(r"path\.module\}/([^\"]+)", text):
        assert (MODULE / path).is_file(), path


def test_what_the_helper_needs_is_required_with_it() -> None:
    """Both have a default, because they are not needed without a helper."""
    required = re.findall(r'error_message = "(\w+) is needed with helper\."', TEXTS["helper.tf"])
    assert required == ["helper_config", "helper_package"]


def test_outputs_are_described() -> None:
    outputs = {name: body for block in blocks("output") for name, body in block.items()}
    assert len(outputs) >= 5
    assert all({"value", "description"} <= set(body) for body in outputs.values())


def test_routes_are_made_as_the_program_prints_them() -> None:
    """What `dnsproxy routes --format terraform` makes of a destination, this module makes too."""
    printed = parse(to_terraform(plan_routes(known(*EXAMPLE), {"hz": ranges("10.0.0.0/8")})))
    for block in printed["resource"]:
        for kind, named in block.items():
            ours = resources()[f"{kind}.dnsproxy"]
            theirs = named["dnsproxy"]
            assert set(theirs) == set(ours) - {"lifecycle"}
            assert {key: ours[key] for key in ours if key not in META} == {
                key: value for key, value in theirs.items() if key not in META
            }


def test_the_readme_names_every_variable_and_output() -> None:
    readme = (MODULE / "README.md").read_text()
    names = [name for kind in ("variable", "output") for block in blocks(kind) for name in block]
    assert [name for name in names if f"`{name}`" not in readme] == []


# --- with terraform itself, which no registry within reach has


@pytest.fixture(scope="module")
def terraform(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[int, str]]:
    """Run terraform in a folder that holds what of the module needs no provider."""
    program = shutil.which("terraform", path=PLACES)
    if program is None:
        pytest.skip("TERRAFORM ITSELF NOT ASKED: there is none here, and no package registry has it")
    folder = tmp_path_factory.mktemp("terraform")
    (folder / "rc").write_text("disable_checkpoint = true\n")
    module = folder / "terraform" / "alicloud"
    module.mkdir(parents=True)
    shutil.copytree(DEPLOY / "systemd", folder / "systemd")
    for name in ("variables.tf", "helper.cloud-init.yaml"):
        shutil.copy(MODULE / name, module)
    template = re.search(r"templatefile\(.*?\n  \}\)", TEXTS["helper.tf"], re.DOTALL)
    assert template
    (module / "rendered.tf").write_text(f'output "rendered" {{\n  value = {template[0]}\n}}\n')

    def call(*words: str | Path) -> tuple[int, str]:
        done = run("env", f"TF_CLI_CONFIG_FILE={folder / 'rc'}", program, f"-chdir={module}", *words)
        return done.returncode, done.stdout + done.stderr

    code, said = call("init", "-backend=false", "-no-color", "-input=false")
    assert code == 0, said
    return call


def test_terraform_has_nothing_to_format(terraform: Callable[..., tuple[int, str]]) -> None:
    assert terraform("fmt", "-check", "-recursive", MODULE) == (0, "")


HELPER = {"vpc_id": "vpc-1", "vswitch_id": "vsw-1", "image_id": "debian"}
SOURCES = [
    {"zone_id": zone, "cidr_block": "10.0.1.0/24", "vswitch_id": "vsw-1"} for zone in ("cn-a", "cn-b", "cn-b")
]
ZONE = {
    "vpc_id": "vpc-1",
    "region_id": "cn-beijing",
    "zones": ["oss-cn-hangzhou-internal.aliyuncs.com"],
    "sources": SOURCES[:2],
    "bound_vpc_ids": ["vpc-2"],
}
GOOD: dict[str, Any] = {
    "helper": HELPER,
    "helper_config": "registries: []\n",
    "helper_package": "dnsproxy @ https://bucket.example/dnsproxy-1-py3-none-any.whl#sha256=00",
    "client_cidrs": ["10.0.0.0/8", "172.16.0.0/12"],
    "proxy_addresses": ["10.0.1.53", "10.0.2.53"],
    "dhcp_vpc_ids": ["vpc-1"],
    "private_zone": ZONE,
    "routes": {"100.118.28.0/24": "dnsproxy/storage/oss-cn-hangzhou-internal.aliyuncs.com"},
}


def planned(
    terraform: Callable[..., tuple[int, str]], folder: Path, values: dict[str, Any]
) -> tuple[int, str]:
    file = folder / "values.tfvars.json"
    file.write_text(json.dumps(values))
    return terraform("plan", "-no-color", "-input=false", "-lock=false", f"-var-file={file}")


def test_good_values_are_taken(terraform: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    code, said = planned(terraform, tmp_path, GOOD)
    assert code == 0, said


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"name": "1"}, "name is a letter"),
        ({"helper": {**HELPER, "vpc_id": "v"}}, "helper.vpc_id begins with vpc-"),
        ({"helper_package": "dnsproxy"}, "helper_package is a wheel by its URL"),
        ({"client_cidrs": ["10.0.0.0/40"]}, "client_cidrs is a list"),
        ({"client_cidrs": ["0.0.0.0/0"]}, "must not be the whole world"),
        ({"proxy_addresses": ["proxy.example"]}, "are IPv4 addresses"),
        ({"proxy_addresses": ["100.100.2.138"]}, "not the cloud's resolvers"),
        ({"proxy_addresses": ["10.0.1.53", "100.100.2.117"]}, "not the cloud's resolvers"),
        ({"dhcp_vpc_ids": ["1"]}, "dhcp_vpc_ids begin"),
        ({"private_zone": {**ZONE, "sources": SOURCES[:1]}}, "2 to 6 vSwitches"),
        ({"private_zone": {**ZONE, "sources": SOURCES[1:]}}, "at least two zones"),
        ({"private_zone": {**ZONE, "zones": ["a.example."]}}, "without a final dot"),
        ({"routes": {"100.118.28.1": "x"}}, "keys of routes"),
        ({"routes": {"100.118.28.0/24": "a b"}}, "values of routes"),
    ],
)
def test_wrong_values_are_refused(
    wrong: dict[str, Any], text: str, terraform: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    code, said = planned(terraform, tmp_path, {**GOOD, **wrong})
    assert code != 0
    assert text in " ".join(said.replace("│", " ").split())


def test_the_helper_installs_itself(terraform: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    """The user data as an instance gets it: cloud-config with units and a good configuration."""
    text = (DEPLOY / "kubernetes" / "helper" / "config.yaml").read_text()
    config = text.replace("/run/dnsproxy/helper.key", "/etc/dnsproxy/helper.key")
    values = {**GOOD, "helper_config": config, "helper_package": 'dnsproxy @ https://b.example/d "x".whl'}
    plan = tmp_path / "plan"
    file = tmp_path / "values.tfvars.json"
    file.write_text(json.dumps(values))
    code, said = terraform("plan", "-no-color", "-lock=false", f"-var-file={file}", f"-out={plan}")
    assert code == 0, said
    code, said = terraform("show", "-json", plan)
    assert code == 0, said
    rendered = json.loads(said)["planned_values"]["outputs"]["rendered"]["value"]
    assert rendered.startswith("#cloud-config\n")
    document = yaml.safe_load(rendered)
    files = {entry["path"]: base64.b64decode(entry["content"]).decode() for entry in document["write_files"]}
    systemd = DEPLOY / "systemd"
    assert (
        files["/etc/systemd/system/dnsproxy-helper.service"]
        == (systemd / "dnsproxy-helper.service").read_text()
    )
    assert files["/etc/sysusers.d/dnsproxy.conf"] == (systemd / "sysusers.d" / "dnsproxy.conf").read_text()
    path = tmp_path / "config.yaml"
    path.write_text(files["/etc/dnsproxy/config.yaml"])
    assert str(load(path).helper.signing_key_file) == "/etc/dnsproxy/helper.key"
    commands = [" ".join(words) for words in document["runcmd"]]
    order = [next(at for at, line in enumerate(commands) if word in line) for word in ORDER]
    assert order == sorted(order)
    assert all(isinstance(word, str) for words in document["runcmd"] for word in words)
    assert document["runcmd"][2][-1] == values["helper_package"]
    assert "BEGIN PRIVATE KEY" not in rendered


# The user is there before the key is given to it, and the key before the service.
ORDER = (
    "systemd-sysusers",
    "pip install",
    "keygen",
    "systemd-tmpfiles",
    "check /etc/dnsproxy",
    "systemctl enable",
)
