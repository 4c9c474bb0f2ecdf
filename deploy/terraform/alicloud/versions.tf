terraform {
  required_version = ">= 1.3"
  required_providers {
    alicloud = {
      source = "aliyun/alicloud"
      # security_group_name of alicloud_security_group.
      version = ">= 1.239.0"
    }
  }
}
