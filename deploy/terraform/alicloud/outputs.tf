output "helper_address" {
  value       = one(alicloud_instance.helper[*].primary_ip_address)
  description = "Private address of the helper; null without one."
}

output "snapshot_url" {
  value       = one([for address in alicloud_instance.helper[*].primary_ip_address : "http://${address}:8953/v1/snapshot"])
  description = "What the proxies' learn.sources name."
}

output "dhcp_options_set_id" {
  value       = one(alicloud_vpc_dhcp_options_set.proxies[*].id)
  description = "Id of the DHCP options set; null without one."
}

output "endpoint_id" {
  value       = one(alicloud_pvtz_endpoint.proxies[*].id)
  description = "Id of the PrivateZone endpoint; null without one."
}

output "forwarded_zones" {
  value       = { for zone, rule in alicloud_pvtz_rule.proxies : zone => rule.id }
  description = "Zones that are forwarded to the proxies, with the ids of their rules."
}

output "routes" {
  value = {
    vpc            = [for entry in alicloud_route_entry.dnsproxy : entry.destination_cidrblock]
    transit_router = [for entry in alicloud_cen_transit_router_route_entry.dnsproxy : entry.transit_router_route_entry_destination_cidr_block]
  }
  description = "Destinations that have an entry, by table."
}
