/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* What every header in bpf/shared stands on. These headers are included by the BPF programs (C) and by the
 * C++ side alike: they are the only definition of what both sides read and write. Fixed-width fields, the
 * byte order is in the type (__be16/__be32/__be64 = network order, __u16.. = host order), sizes asserted. */
#ifndef TCPMIG_SHARED_BASE_H
#define TCPMIG_SHARED_BASE_H

#include <linux/types.h>

#ifdef __cplusplus
#define TCPMIG_ABI_BEGIN namespace tcpmig::abi {
#define TCPMIG_ABI_END }
#define TCPMIG_ASSERT_SIZE(type, size) static_assert(sizeof(type) == (size), #type)
#else
#define TCPMIG_ABI_BEGIN
#define TCPMIG_ABI_END
#define TCPMIG_ASSERT_SIZE(type, size) _Static_assert(sizeof(type) == (size), #type)
#endif

TCPMIG_ABI_BEGIN

/* An address of either family in network order; IPv4 as ::ffff:a.b.c.d (RFC 4291, 2.5.5.2). */
struct ip_address {
	__u8 bytes[16];
};
TCPMIG_ASSERT_SIZE(struct ip_address, 16);

/* Families as they stand in keys and on the wire: the IP version, not AF_*. */
enum ip_family { FAMILY_IPV4 = 4, FAMILY_IPV6 = 6 };

/* Numbers of things. Node 0 is the switch itself; node ids of the configuration are 1..1023, service ids
 * 1..16383; with the default IPv4 prefix a node id is at most 255. */
enum limits {
	MAX_NODES = 1024,
	MAX_SERVICES = 16384,
	MAX_LANES = 16, /* sending event loops of one node, each with its own message numbers */
	CONTROL_PORT_DEFAULT = 7420,
	CONTROL_PATH_MTU = 1500,
};

TCPMIG_ABI_END
#endif
