variable "name" {
  type        = string
  default     = "dnsproxy"
  description = "Prefix of the names of all resources."
  validation {
    condition     = can(regex("^[A-Za-z][A-Za-z0-9-]{1,40}$", var.name))
    error_message = "name is a letter and 1 to 40 letters, digits or hyphens."
  }
}

variable "tags" {
  type        = map(string)
  default     = {}
  description = "Tags of all resources that take them."
}

# --- the helper, in the source region -----------------------------------------------------------

variable "helper" {
  type = object({
    vpc_id        = string
    vswitch_id    = string
    image_id      = string
    instance_type = optional(string, "ecs.t6-c1m1.large")
    private_ip    = optional(string)
    key_name      = optional(string)
  })
  default     = null
  description = "Where the helper's ECS instance goes: a VPC that is linked to the registry instance. null for none."
  validation {
    condition     = var.helper == null ? true : can(regex("^vpc-", var.helper.vpc_id)) && can(regex("^vsw-", var.helper.vswitch_id))
    error_message = "helper.vpc_id begins with vpc-, helper.vswitch_id with vsw-."
  }
}

variable "helper_config" {
  type        = string
  default     = ""
  description = "Text of /etc/dnsproxy/config.yaml of the helper; check it with `dnsproxy check`. helper.signing_key_file stays at its default."
}

variable "helper_package" {
  type        = string
  default     = null
  description = "The wheel that pip installs on the helper, as `dnsproxy @ https://...whl#sha256=...`, in a bucket of the region for example. The package of that name on PyPI is another program."
  validation {
    condition     = var.helper_package == null || can(regex("^[a-z-]+ @ https://", var.helper_package))
    error_message = "helper_package is a wheel by its URL: dnsproxy @ https://...whl#sha256=..."
  }
}

variable "client_cidrs" {
  type        = list(string)
  default     = ["10.0.0.0/8"]
  description = "Where proxies are, as the helper sees them; they may reach port 8953."
  validation {
    condition     = length(var.client_cidrs) > 0 && alltrue([for range in var.client_cidrs : can(cidrhost(range, 0))])
    error_message = "client_cidrs is a list of CIDR blocks, at least one."
  }
  validation {
    condition     = !contains(var.client_cidrs, "0.0.0.0/0")
    error_message = "client_cidrs must not be the whole world: names and addresses are open to all who reach the port."
  }
}

# --- the remote side ----------------------------------------------------------------------------

variable "proxy_addresses" {
  type        = list(string)
  default     = []
  description = "Addresses of the proxies that answer, at least two for production: for the DHCP options set and the forward rules."
  validation {
    condition     = alltrue([for address in var.proxy_addresses : can(cidrhost("${address}/32", 0))])
    error_message = "proxy_addresses are IPv4 addresses."
  }
  validation {
    # PrivateZone refuses its own anycast addresses as targets of a rule, and as resolvers they know nothing of us.
    condition     = length(setintersection(var.proxy_addresses, ["100.100.2.116", "100.100.2.117", "100.100.2.118", "100.100.2.136", "100.100.2.137", "100.100.2.138"])) == 0
    error_message = "proxy_addresses are those of proxies, not the cloud's resolvers (100.100.2.116-118, 100.100.2.136-138)."
  }
}

variable "dhcp_vpc_ids" {
  type        = set(string)
  default     = []
  description = "VPCs whose hosts get the proxies as their resolvers by DHCP: new instances at once, others when they renew or restart."
  validation {
    condition     = alltrue([for id in var.dhcp_vpc_ids : can(regex("^vpc-", id))])
    error_message = "dhcp_vpc_ids begin with vpc-."
  }
}

variable "dhcp_domain_name" {
  type        = string
  default     = null
  description = "Search domain of the options set. null for none."
}

variable "private_zone" {
  type = object({
    vpc_id    = string
    region_id = string
    zones     = set(string)
    sources = list(object({
      zone_id    = string
      cidr_block = string
      vswitch_id = string
    }))
    bound_vpc_ids = set(string)
  })
  default     = null
  description = "Forward rules: who asks 100.100.2.136 in bound_vpc_ids for a name in zones is answered by the proxies. null for none."
  validation {
    condition     = var.private_zone == null ? true : length(var.private_zone.sources) >= 2 && length(var.private_zone.sources) <= 6
    error_message = "private_zone.sources are 2 to 6 vSwitches, in different zones: the endpoint asks from there."
  }
  validation {
    condition     = var.private_zone == null ? true : length(distinct([for source in var.private_zone.sources : source.zone_id])) >= 2
    error_message = "private_zone.sources lie in at least two zones."
  }
  validation {
    condition     = var.private_zone == null ? true : length(var.private_zone.zones) > 0 && alltrue([for zone in var.private_zone.zones : can(regex("^([a-z0-9-]+\\.)+[a-z]+$", zone))])
    error_message = "private_zone.zones are domain names in lower case, without a final dot."
  }
}

# --- routes: what `dnsproxy routes --format terraform` lists as local.dnsproxy_routes -----------

variable "routes" {
  type        = map(string)
  default     = {}
  description = "Destination to description, as in local.dnsproxy_routes of `dnsproxy routes --format terraform`."
  validation {
    condition     = alltrue([for range in keys(var.routes) : can(cidrhost(range, 0))])
    error_message = "The keys of routes are CIDR blocks."
  }
  validation {
    condition     = alltrue([for text in values(var.routes) : can(regex("^[A-Za-z0-9,.;/@_-]{0,256}$", text))])
    error_message = "The values of routes are at most 256 of the characters A-Z a-z 0-9 , . ; / @ _ -."
  }
}

variable "vpc_route_table_id" {
  type        = string
  default     = null
  description = "Route table of the VPC whose hosts use the names (vtb-...). null: no entries there."
}

variable "vpc_attachment_id" {
  type        = string
  default     = null
  description = "Attachment of that VPC to the transit router of its region (tr-attach-...)."
}

variable "transit_router_route_table_id" {
  type        = string
  default     = null
  description = "Route table of that transit router (vtb-...). null: no entries there."
}

variable "transit_router_next_hop_id" {
  type        = string
  default     = null
  description = "Attachment that leads to the registry's region (tr-attach-...)."
}
