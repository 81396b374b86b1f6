/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* The last step: a packet that was decided on, and whose next hop is known, is rewritten and sent.
 */
#ifndef TCPMIG_SWITCH_CORE_FORWARD_H
#define TCPMIG_SWITCH_CORE_FORWARD_H

#include "switch_core_maps.h"
#include "switch_core_route.h"

/* What becomes of a packet. `address` and `port` replace the source (outward) or the destination.
 */
struct steering {
	struct ip_address address;
	__u32 node; /* on the inside */
	__u32 service;
	__u32 counter; /* what is counted when the packet has gone */
	__be16 port;
	__u8 outward;
	__u8 pad;
} __attribute__((aligned(8)));

static __always_inline int drop(__u32 counter)
{
	count(counter);
	return FRAME_DROP;
}

static __always_inline int leave_to_kernel(__u32 counter)
{
	count(counter);
	return FRAME_TO_KERNEL;
}

static __always_inline enum route steering_route(frame_context *ctx, const struct packet *packet,
						 const struct steering *steering,
						 struct bpf_fib_lookup *fib)
{
	struct hop hop = {
	    .source = steering->outward ? &steering->address : &packet->source,
	    .destination = steering->outward ? &packet->destination : &steering->address,
	    .source_port = steering->outward ? steering->port : packet->source_port,
	    .destination_port = steering->outward ? packet->destination_port : steering->port,
	};

	return route_find(ctx, packet, hop, frame_segment(ctx, packet), fib);
}

/* The kernel makes the hop itself, and decrements the TTL. */
static __always_inline bool is_our_hop(enum route route)
{
	return route != ROUTE_KERNEL;
}

/* A packet that was rewritten goes out; where it is our hop, its TTL is decremented. */
static __always_inline int send_on(frame_context *ctx, enum route route,
				   const struct bpf_fib_lookup *fib)
{
	if (!is_our_hop(route))
		return leave_to_kernel(SW_SLOW_PATH);
	if (route == ROUTE_NEIGHBOUR) {
		count(SW_SLOW_PATH);
		return frame_send_unresolved(fib);
	}
	return frame_send(ctx, fib);
}

static __always_inline int send(frame_context *ctx, const struct packet *packet, enum route route,
				const struct bpf_fib_lookup *fib)
{
	if (is_our_hop(route) && frame_decrement_ttl(ctx, packet))
		return drop(SW_DROP_MALFORMED);
	return send_on(ctx, route, fib);
}

static __always_inline void count_forwarded(const struct packet *packet,
					    const struct steering *steering)
{
	count(steering->counter);
	count_traffic(steering->node, steering->service, packet->length, steering->outward);
}

static __always_inline int forward_tcp(frame_context *ctx, const struct packet *packet,
				       const struct steering *steering, enum route route,
				       const struct bpf_fib_lookup *fib)
{
	if (frame_rewrite_tcp(ctx, packet, steering->outward, &steering->address, steering->port,
			      is_our_hop(route)))
		return drop(SW_DROP_MALFORMED);
	count_forwarded(packet, steering);
	return send_on(ctx, route, fib);
}

#endif
