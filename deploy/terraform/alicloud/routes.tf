# A right address is not a route. Both tables need each destination: that of the VPC leads to the transit router, that of
# the transit router to the registry's region. `dnsproxy routes` knows the destinations; the ids are the account's.

resource "alicloud_route_entry" "dnsproxy" {
  for_each              = var.vpc_route_table_id == null ? {} : var.routes
  route_table_id        = var.vpc_route_table_id
  destination_cidrblock = each.key
  nexthop_type          = "Attachment"
  nexthop_id            = var.vpc_attachment_id

  lifecycle {
    precondition {
      condition     = var.vpc_attachment_id != null
      error_message = "vpc_attachment_id is needed with vpc_route_table_id."
    }
  }
}

resource "alicloud_cen_transit_router_route_entry" "dnsproxy" {
  for_each                                          = var.transit_router_route_table_id == null ? {} : var.routes
  transit_router_route_table_id                     = var.transit_router_route_table_id
  transit_router_route_entry_destination_cidr_block = each.key
  transit_router_route_entry_next_hop_type          = "Attachment"
  transit_router_route_entry_next_hop_id            = var.transit_router_next_hop_id
  transit_router_route_entry_description            = each.value

  lifecycle {
    precondition {
      condition     = var.transit_router_next_hop_id != null
      error_message = "transit_router_next_hop_id is needed with transit_router_route_table_id."
    }
  }
}
