/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* Ending a connection whose node is dead, on behalf of user space (struct reap_request), which then
 * sends the RST. Here, because only a program can look and change in one step: an owner that speaks
 * at the last moment keeps its flow. */
#ifndef TCPMIG_SWITCH_CORE_REAP_H
#define TCPMIG_SWITCH_CORE_REAP_H

#include "switch_core_commit.h"
#include "switch_core_tcp.h"

/* The flow becomes nobody's, with the next generation: should the owner wake up and speak after all,
 * it is told (REVOKED) that its connection is out of date, and ends it. */
static __always_inline bool reap_flow(struct reap_request *request, const struct flow_key *key)
{
	struct flow_value *flow = bpf_map_lookup_elem(&flows, key);
	union flow_owner nobody = {};

	if (!flow || flow_is_condemned(request->owner) ||
	    flow_read(flow).word != request->owner.word)
		return false;
	request->client_ack = flow->client_ack;
	nobody.is.generation = next_generation(request->owner.is.generation);
	flow->last_seen_ns = bpf_ktime_get_ns(); /* what has ended is remembered from here on */
	return flow_swap(flow, request->owner, nobody);
}

/* The client is not bound any more: what it still sends goes to a dispatcher that lives. */
static __always_inline bool reap_binding(struct reap_request *request, const struct flow_key *key,
					 const struct switch_settings *settings)
{
	struct affinity_value *bound = bpf_map_lookup_elem(&affinity, key);
	union flow_owner owner = {};

	if (!bound || bound->dispatcher != request->owner.is.owner || bound->moved ||
	    !bound->acked || bound->last_seen_ns >= request->before_ns)
		return false;
	if (flow_find(settings, key, bpf_ktime_get_ns(), &owner))
		return false;
	request->client_ack = bound->client_ack;
	return bpf_map_delete_elem(&affinity, key) == 0;
}

static __always_inline int reap(struct reap_request *request)
{
	const struct switch_settings *settings = switch_settings();
	struct flow_key key KEY_ALIGNED = request->key;

	request->reaped = 0;
	if (!settings)
		return 0;
	request->reaped =
	    request->before_ns ? reap_binding(request, &key, settings) : reap_flow(request, &key);
	if (request->reaped)
		count(request->counter);
	return 0;
}

#endif
