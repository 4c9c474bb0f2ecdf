# Two ways to bring the hosts of a VPC to the proxies. DHCP reaches ECS instances; a forward rule also reaches what asks
# 100.100.2.136 whatever DHCP says, such as ECI and ACS, and needs no host to be touched.

resource "alicloud_vpc_dhcp_options_set" "proxies" {
  count                        = length(var.dhcp_vpc_ids) > 0 ? 1 : 0
  dhcp_options_set_name        = var.name
  dhcp_options_set_description = "Resolvers that know the registries of other regions"
  domain_name                  = var.dhcp_domain_name
  domain_name_servers          = join(",", var.proxy_addresses)
  tags                         = var.tags

  lifecycle {
    precondition {
      condition     = length(var.proxy_addresses) >= 1 && length(var.proxy_addresses) <= 4
      error_message = "A DHCP options set has 1 to 4 resolvers: give proxy_addresses."
    }
  }
}

resource "alicloud_vpc_dhcp_options_set_attachment" "proxies" {
  for_each            = var.dhcp_vpc_ids
  vpc_id              = each.value
  dhcp_options_set_id = alicloud_vpc_dhcp_options_set.proxies[0].id
}

# Of the endpoint, that is, of the queries that PrivateZone sends on to the proxies.
resource "alicloud_security_group" "endpoint" {
  count               = var.private_zone == null ? 0 : 1
  security_group_name = "${var.name}-endpoint"
  description         = "PrivateZone endpoint: queries to the proxies"
  vpc_id              = var.private_zone.vpc_id
  tags                = var.tags
}

resource "alicloud_security_group_rule" "queries" {
  for_each          = var.private_zone == null ? {} : { for pair in setproduct(["udp", "tcp"], var.proxy_addresses) : join("-", pair) => pair }
  security_group_id = alicloud_security_group.endpoint[0].id
  type              = "egress"
  ip_protocol       = each.value[0]
  nic_type          = "intranet"
  policy            = "accept"
  port_range        = "53/53"
  priority          = 1
  cidr_ip           = "${each.value[1]}/32"
}

resource "alicloud_pvtz_endpoint" "proxies" {
  count             = var.private_zone == null ? 0 : 1
  endpoint_name     = var.name
  security_group_id = alicloud_security_group.endpoint[0].id
  vpc_id            = var.private_zone.vpc_id
  vpc_region_id     = var.private_zone.region_id

  dynamic "ip_configs" {
    for_each = var.private_zone.sources
    content {
      zone_id    = ip_configs.value.zone_id
      cidr_block = ip_configs.value.cidr_block
      vswitch_id = ip_configs.value.vswitch_id
    }
  }
}

# A rule's zone cannot be changed: each zone has a rule of its own.
resource "alicloud_pvtz_rule" "proxies" {
  for_each    = var.private_zone == null ? toset([]) : var.private_zone.zones
  endpoint_id = alicloud_pvtz_endpoint.proxies[0].id
  rule_name   = "${var.name}-${replace(each.value, ".", "-")}"
  type        = "OUTBOUND"
  zone_name   = each.value

  dynamic "forward_ips" {
    for_each = var.proxy_addresses
    content {
      ip   = forward_ips.value
      port = 53
    }
  }

  lifecycle {
    precondition {
      condition     = length(var.proxy_addresses) >= 1 && length(var.proxy_addresses) <= 6
      error_message = "A forward rule has 1 to 6 targets: give proxy_addresses."
    }
  }
}

resource "alicloud_pvtz_rule_attachment" "proxies" {
  for_each = alicloud_pvtz_rule.proxies
  rule_id  = each.value.id

  # Of the endpoint's region only.
  dynamic "vpcs" {
    for_each = var.private_zone.bound_vpc_ids
    content {
      vpc_id    = vpcs.value
      region_id = var.private_zone.region_id
    }
  }
}
