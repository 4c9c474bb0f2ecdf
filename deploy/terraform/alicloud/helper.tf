# The helper: one small instance in a VPC that is linked to the registry instance. It needs no public address: package
# and names come from inside the VPC, or through its NAT gateway.

resource "alicloud_security_group" "helper" {
  count               = var.helper == null ? 0 : 1
  security_group_name = "${var.name}-helper"
  description         = "dnsproxy helper: snapshots for proxies"
  vpc_id              = var.helper.vpc_id
  inner_access_policy = "Drop"
  tags                = var.tags
}

resource "alicloud_security_group_rule" "snapshots" {
  for_each          = var.helper == null ? toset([]) : toset(var.client_cidrs)
  security_group_id = alicloud_security_group.helper[0].id
  type              = "ingress"
  ip_protocol       = "tcp"
  nic_type          = "intranet"
  policy            = "accept"
  port_range        = "8953/8953"
  priority          = 1
  cidr_ip           = each.value
}

resource "alicloud_instance" "helper" {
  count                      = var.helper == null ? 0 : 1
  instance_name              = "${var.name}-helper"
  instance_type              = var.helper.instance_type
  image_id                   = var.helper.image_id
  vswitch_id                 = var.helper.vswitch_id
  private_ip                 = var.helper.private_ip
  key_name                   = var.helper.key_name
  security_groups            = [alicloud_security_group.helper[0].id]
  system_disk_category       = "cloud_essd"
  system_disk_size           = 20
  internet_max_bandwidth_out = 0
  http_tokens                = "required"
  tags                       = var.tags

  # The private key is made on the instance and never leaves it: neither the state nor the user data hold it. Its public
  # half is printed on the console and lies in /etc/dnsproxy/helper.pub.
  user_data = base64encode(templatefile("${path.module}/helper.cloud-init.yaml", {
    package  = var.helper_package == null ? "" : var.helper_package
    config   = var.helper_config
    service  = file("${path.module}/../../systemd/dnsproxy-helper.service")
    sysusers = file("${path.module}/../../systemd/sysusers.d/dnsproxy.conf")
    tmpfiles = file("${path.module}/../../systemd/tmpfiles.d/dnsproxy.conf")
  }))

  lifecycle {
    precondition {
      condition     = length(trimspace(var.helper_config)) > 0
      error_message = "helper_config is needed with helper."
    }
    precondition {
      condition     = var.helper_package != null
      error_message = "helper_package is needed with helper."
    }
    # An instance made anew has another key, which all proxies would have to be told.
    ignore_changes = [image_id]
  }
}
