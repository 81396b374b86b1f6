/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* The next hop, asked for before anything is rewritten: so that a packet that cannot be forwarded
 * by us can still be given to the kernel as it came (it answers with "time exceeded" or
 * "fragmentation needed"), and so that no state changes for a packet that will not go out. */
#ifndef TCPMIG_SWITCH_CORE_ROUTE_H
#define TCPMIG_SWITCH_CORE_ROUTE_H

#include <linux/bpf.h>

#include "lib/parse.h"

enum route {
	ROUTE_SEND,      /* neighbour known: set the MACs, send */
	ROUTE_NEIGHBOUR, /* its MAC is not known yet: the kernel asks for it while it sends */
	ROUTE_KERNEL, /* rewrite, then the kernel forwards: it must resolve, fragment or encapsulate
		       */
	ROUTE_UNTOUCHED, /* the kernel gets it as it came, to tell the sender what is wrong */
	ROUTE_NONE,
};

/* What the packet will be once rewritten. */
struct hop {
	const struct ip_address *source;
	const struct ip_address *destination;
	__be16 source_port;
	__be16 destination_port;
};

/* libc's numbers (bits/socket.h has no BPF target) */
enum { FIB_AF_INET = 2, FIB_AF_INET6 = 10 };

static __always_inline void route_ask(struct bpf_fib_lookup *fib, const struct packet *packet,
				      struct hop hop, __u32 ifindex, __u32 segment)
{
	__builtin_memset(fib, 0, sizeof(*fib));
	fib->ifindex = ifindex;
	fib->l4_protocol = packet->protocol;
	fib->sport = hop.source_port;
	fib->dport = hop.destination_port;
	fib->tot_len = segment > 0xffff ? 0xffff : segment;
	if (packet->family == FAMILY_IPV4) {
		fib->family = FIB_AF_INET;
		fib->tos = packet->tos;
		fib->ipv4_src = address_v4(hop.source);
		fib->ipv4_dst = address_v4(hop.destination);
	} else {
		fib->family = FIB_AF_INET6;
		fib->flowinfo = __builtin_bswap32((__u32)packet->tos << 20);
		address_copy_words(fib->ipv6_src, hop.source);
		address_copy_words(fib->ipv6_dst, hop.destination);
	}
}

/* `segment`: IP bytes of the largest packet that will be on the wire (of a GSO packet: of one
 * segment), against the route's MTU. */
static __always_inline enum route route_find(frame_context *ctx, const struct packet *packet,
					     struct hop hop, __u32 segment,
					     struct bpf_fib_lookup *fib)
{
	if (packet->ttl <= 1)
		return ROUTE_UNTOUCHED;
	route_ask(fib, packet, hop, frame_ifindex(ctx), segment);
	switch (bpf_fib_lookup(ctx, fib, sizeof(*fib), 0)) {
	case BPF_FIB_LKUP_RET_SUCCESS:
		return ROUTE_SEND;
	case BPF_FIB_LKUP_RET_NO_NEIGH:
		return FRAME_CAN_RESOLVE ? ROUTE_NEIGHBOUR : ROUTE_KERNEL;
	case BPF_FIB_LKUP_RET_FRAG_NEEDED:
		return packet->state & PACKET_MAY_FRAGMENT ? ROUTE_KERNEL : ROUTE_UNTOUCHED;
	case BPF_FIB_LKUP_RET_UNSUPP_LWT:
		return ROUTE_KERNEL;
	default:
		return ROUTE_NONE;
	}
}

#endif
