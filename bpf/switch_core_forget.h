/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* Removing what is long dead, on behalf of user space (struct forget_request). First the word is
 * swapped to "condemned", which no packet and no message revives, then the entry is deleted: so an
 * entry that a COMMIT revives meanwhile is never deleted. */
#ifndef TCPMIG_SWITCH_CORE_FORGET_H
#define TCPMIG_SWITCH_CORE_FORGET_H

#include "switch_core_flow.h"

static __always_inline int forget(struct forget_request *request)
{
	const struct switch_settings *settings = switch_settings();
	struct flow_key key KEY_ALIGNED = request->key;
	union flow_owner owner, condemned = {};
	struct flow_value *flow;
	__u64 now = bpf_ktime_get_ns(), then = now - request->dead_ns;

	request->removed = 0;
	flow = bpf_map_lookup_elem(&flows, &key);
	if (!settings || !flow || request->dead_ns > now)
		return 0;
	owner = flow_read(flow);
	if (!flow_is_dead(settings, flow, owner, then) ||
	    (owner.is.owner == 0 && flow->last_seen_ns > then))
		return 0;
	condemned.is.spoke = 1;
	if (flow_is_condemned(owner) || flow_swap(flow, owner, condemned))
		request->removed = bpf_map_delete_elem(&flows, &key) == 0;
	return 0;
}

#endif
