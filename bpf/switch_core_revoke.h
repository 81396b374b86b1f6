/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* Telling a node that a flow is not its own (any more). Programs cannot make packets, so they say it
 * to `switch run`, which sends the REVOKED; while nobody runs, what the node says is dropped all the
 * same. */
#ifndef TCPMIG_SWITCH_CORE_REVOKE_H
#define TCPMIG_SWITCH_CORE_REVOKE_H

#include "switch_core_maps.h"

/* how often a node is told of a flow that has no entry, so no generation to count by */
enum { REVOKE_AGAIN_NS = 1000000000 };

static __always_inline void revoked_key_of(struct revoked_key *who, const struct flow_key *flow,
					   __u32 node)
{
	__builtin_memset(who, 0, sizeof(*who));
	address_copy(&who->flow.client, &flow->client);
	address_copy(&who->flow.vip, &flow->vip);
	who->flow.client_port = flow->client_port;
	who->flow.vip_port = flow->vip_port;
	who->flow.family = flow->family;
	who->node = node;
}

/* `node` has sent data, FIN or RST on a flow of `generation` that it does not own. */
static __noinline int revoke(const struct flow_key *flow, __u32 generation, __u32 node,
			     __u32 service, __u64 now)
{
	struct revoked_value mark = {.seen_ns = now, .generation = generation};
	struct revoked_key who KEY_ALIGNED;
	const struct revoked_value *told;
	struct revocation *event;

	if (!flow)
		return 0;
	revoked_key_of(&who, flow, node);
	told = bpf_map_lookup_elem(&revoked, &who);
	if (told && told->generation == generation &&
	    (generation || (__s64)(now - told->seen_ns) < REVOKE_AGAIN_NS))
		return 0;
	event = bpf_ringbuf_reserve(&revocations, sizeof(*event), 0);
	if (!event) /* nobody reads: the next one tries again */
		return 0;
	if (bpf_map_update_elem(&revoked, &who, &mark, BPF_ANY)) {
		bpf_ringbuf_discard(event, 0);
		return 0;
	}
	address_copy(&event->flow.client, &flow->client);
	address_copy(&event->flow.vip, &flow->vip);
	event->flow.client_port = flow->client_port;
	event->flow.vip_port = flow->vip_port;
	event->flow.family = flow->family;
	event->flow.pad[0] = event->flow.pad[1] = event->flow.pad[2] = 0;
	event->seen_ns = now;
	event->generation = generation;
	event->node = node;
	event->service = service;
	bpf_ringbuf_submit(event, 0);
	count(SW_REVOKED);
	return 0;
}

#endif
