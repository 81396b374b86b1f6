/* SPDX-License-Identifier: MIT */
/* Constants of the kernel's user API that are newer than Debian 12's headers (Linux 6.1). The only place for them. */
#pragma once
#include <linux/bpf.h>
#include <stdint.h>

/* Linux 6.6, include/uapi/linux/bpf.h: enum bpf_attach_type */
enum { TCPMIG_BPF_TCX_INGRESS = 46, TCPMIG_BPF_TCX_EGRESS = 47 };

/* Linux 6.4: a congestion control (struct_ops) that is registered by a link, and so goes with the last descriptor: flag of its map, attach type of the link */
enum { TCPMIG_BPF_F_LINK = 1 << 13, TCPMIG_BPF_STRUCT_OPS = 44 };

/* Linux 6.6: the part of union bpf_attr that BPF_LINK_CREATE reads for TCX */
struct tcpmig_bpf_link_create_tcx {
  uint32_t prog_fd;
  uint32_t target_ifindex;
  uint32_t attach_type;
  uint32_t flags;
  uint32_t relative_fd;
  uint32_t reserved;
  uint64_t expected_revision;
};

/* Linux 6.6: enum bpf_link_type, and struct bpf_link_info as far as TCX fills it (XDP: up to ifindex) */
enum { TCPMIG_BPF_LINK_TYPE_TCX = 11 };
struct tcpmig_bpf_link_info_tcx {
  uint32_t type;
  uint32_t id;
  uint32_t prog_id;
  uint32_t reserved;
  uint32_t ifindex;
  uint32_t attach_type;
};
