/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* Virtual private addresses: one for each (service, node), computed and never stored
 * (shared/switch_maps.h has the layout). Backend-independent; also compiled on the host by the
 * tests. */
#ifndef TCPMIG_LIB_VPA_H
#define TCPMIG_LIB_VPA_H

#include "lib/address.h"
#include "shared/switch_maps.h"

TCPMIG_ABI_BEGIN

/* What a VPA says. node 0 = inside the prefix, but no address that vpa_encode ever makes. */
struct vpa {
	__u32 node;
	__u32 service;
};

static inline __u32 vpa4_prefix_mask(const struct switch_settings *settings)
{
	__u32 length = settings->vpa4_prefix_length;

	return length ? ~0u << ((32 - length) & 31) : 0;
}

/* Inside the prefix from which all VPAs are made? */
static inline bool vpa_contains(const struct switch_settings *settings, __u8 family,
				const struct ip_address *address)
{
	if (family == FAMILY_IPV4) {
		__u32 prefix = __builtin_bswap32(*(const address_word *)settings->vpa4_prefix);
		__u32 v4 = __builtin_bswap32(address_v4(address));

		return ((prefix ^ v4) & vpa4_prefix_mask(settings)) == 0;
	}
	const address_word *prefix = (const address_word *)settings->vpa6_prefix;
	const address_word *word = (const address_word *)address;

	return word[0] == prefix[0] && word[1] == prefix[1];
}

/* Reads an address that vpa_contains() has accepted. */
static inline struct vpa vpa_decode(const struct switch_settings *settings, __u8 family,
				    const struct ip_address *address)
{
	const address_word *word = (const address_word *)address;
	__u32 low = __builtin_bswap32(word[3]);
	struct vpa vpa = {};

	if (family == FAMILY_IPV4) {
		low &= ~vpa4_prefix_mask(settings);
		vpa.node = low >> VPA4_SERVICE_BITS;
		vpa.service = low & ((1u << VPA4_SERVICE_BITS) - 1);
	} else if (word[2] == 0) {
		vpa.node = low >> 16;
		vpa.service = low & 0xffff;
	}
	if (vpa.node >= MAX_NODES || vpa.service == 0 || vpa.service >= MAX_SERVICES)
		vpa.node = 0;
	return vpa;
}

/* The address of (node, service). For IPv4 the node must fit into what the prefix leaves (8 bits of
 * a /10): the configuration sees to that. */
static inline void vpa_encode(const struct switch_settings *settings, __u8 family, __u32 node,
			      __u32 service, struct ip_address *address)
{
	if (family == FAMILY_IPV4) {
		__u32 prefix = __builtin_bswap32(*(const address_word *)settings->vpa4_prefix);

		address_from_v4(address,
				__builtin_bswap32(prefix | node << VPA4_SERVICE_BITS | service));
		return;
	}
	const address_word *prefix = (const address_word *)settings->vpa6_prefix;

	((address_half *)address)[0] = (__u64)prefix[1] << 32 | prefix[0];
	((address_half *)address)[1] = (__u64)__builtin_bswap32(node << 16 | service) << 32;
}

/* On a node: is this address one of the node's own block (struct node_settings: /18 or /112)? */
static inline bool vpa_block_contains(const struct ip_address *block, __u8 family,
				      const struct ip_address *address)
{
	const address_word *a = (const address_word *)block, *b = (const address_word *)address;
	__u32 difference = __builtin_bswap32(a[3] ^ b[3]);

	if (a[0] != b[0] || a[1] != b[1] || a[2] != b[2])
		return false;
	return difference >>
		   (family == FAMILY_IPV4 ? 32 - VPA4_BLOCK_LENGTH : 128 - VPA6_BLOCK_LENGTH) ==
	       0;
}

/* The service that an address inside a node's block belongs to. */
static inline __u32 vpa_block_service(__u8 family, const struct ip_address *address)
{
	__u32 low = __builtin_bswap32(((const address_word *)address)[3]);

	return low & (family == FAMILY_IPV4 ? (1u << VPA4_SERVICE_BITS) - 1 : 0xffff);
}

TCPMIG_ABI_END
#endif
