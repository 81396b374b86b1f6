/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* What a node says of its own flows: RENEW, its socket lives; GONE, it has ended. Both are judged by
 * (flow, generation), change nothing when they come twice, and are not answered.
 *
 * RENEW is also how a lost table comes back: every node renews all that lives on it when it sees
 * another boot of the switch. An entry made so is "announced": it has no previous owner, and its
 * owner has spoken (nobody knows better), so nobody can take it back. Of two that announce the same
 * flow the newer generation wins; the other one is a zombie and is told (REVOKED). */
#ifndef TCPMIG_SWITCH_CORE_LEASE_H
#define TCPMIG_SWITCH_CORE_LEASE_H

#include "switch_core_commit.h"
#include "switch_core_revoke.h"
#include "switch_core_settle.h"

static __always_inline union flow_owner announced_owner(const struct request *request)
{
	union flow_owner owner = {};

	owner.is.owner = request->sender;
	owner.is.port = request->port;
	owner.is.generation = request->generation;
	owner.is.spoke = 1;
	return owner;
}

static __always_inline bool is_announced(union flow_owner owner)
{
	return owner.is.owner && !owner.is.previous;
}

/* For how long after the recovery a node that comes late may still announce. Never later: who may make
 * entries could fill the table, or own the connections of clients to come. */
enum { ANNOUNCE_LATE_NS = 30000000000ULL };

static __always_inline bool may_announce(const struct switch_settings *settings,
					 const struct request *request, __u64 now)
{
	const struct node_entry *node = node_of(request->sender);

	return request->sender && node && node->role == NODE_SERVER && request->port &&
	       now < settings->recovering_until_ns + ANNOUNCE_LATE_NS;
}

/* Nobody knows the flow. While the switch recovers the announcement counts more than a SYN, which
 * anybody can send; later it must not take a connection that is at a dispatcher. What to count;
 * SW_DROP_CONTENTION: another CPU was first. */
static __noinline __u32 announce(const struct flow_key *key, const struct request *request,
				 __u64 now)
{
	const struct switch_settings *settings = switch_settings();
	int error;

	if (!settings || !key || !request)
		return SW_REFUSED_NOT_ENTITLED;
	if (!may_announce(settings, request, now) ||
	    (now >= settings->recovering_until_ns && affinity_dispatcher(key)))
		return SW_REFUSED_NOT_ENTITLED;
	error = flow_insert(key, request, announced_owner(request), now);
	if (error == 0)
		return SW_ANNOUNCED;
	return error == VERDICT_CONTENTION ? SW_DROP_CONTENTION : SW_REFUSED_TABLE_FULL;
}

/* Does the entry speak of the connection that its owner has? An announced one may be behind it: a node that was giving
 * the flow away when the table was lost announces it as it was, then takes it back with a newer generation, by COMMITs that
 * a switch without an entry refuses. */
static __always_inline bool is_same_connection(union flow_owner owner,
					       const struct request *request)
{
	return owner.is.generation == request->generation ||
	       (is_announced(owner) && generation_newer(request->generation, owner.is.generation));
}

/* The owner says so itself: it has the connection, and nobody may take it back. This may be its first
 * word (a node that announces all that it has confirms another one meanwhile). */
static __always_inline __u32 renew_own(struct flow_value *flow, const struct flow_key *key,
				       union flow_owner owner, const struct request *request,
				       __u64 now)
{
	union flow_owner spoken = owner;

	spoken.is.spoke = 1;
	spoken.is.generation = request->generation;
	if (spoken.word != owner.word && !flow_swap(flow, owner, spoken))
		return SW_DROP_CONTENTION;
	if (!owner.is.spoke)
		note_custody(flow, key);
	flow->last_seen_ns = now;
	flow_unmark_rst(flow, spoken);
	return SW_RENEWED;
}

/* Somebody else owns it. */
static __always_inline __u32 renew_foreign(const struct switch_settings *settings,
					   struct flow_value *flow, const struct flow_key *key,
					   union flow_owner owner, const struct request *request,
					   __u64 now)
{
	if (generation_newer(owner.is.generation, request->generation)) {
		revoke(key, owner.is.generation, request->sender, request->service, now);
		return SW_REFUSED_STALE;
	}
	if (!is_announced(owner) || owner.is.generation == request->generation ||
	    !may_announce(settings, request, now))
		return SW_REFUSED_NOT_ENTITLED;
	if (!flow_swap(flow, owner, announced_owner(request)))
		return SW_DROP_CONTENTION;
	flow->committed_ns = flow->last_seen_ns = now;
	return SW_ANNOUNCED;
}

/* RENEW. What to count. */
static __noinline __u32 lease_renew(const struct flow_key *key, const struct request *request,
				    __u64 now)
{
	const struct switch_settings *settings = switch_settings();

	if (!settings || !key || !request)
		return SW_REFUSED_NOT_ENTITLED;
	for (int i = 0; i < FLOW_ATTEMPTS; i++) {
		struct flow_value *flow = bpf_map_lookup_elem(&flows, key);
		union flow_owner owner = {};
		__u32 outcome;

		if (flow)
			owner = flow_read(flow);
		if (!flow)
			outcome = announce(key, request, now);
		else if (flow_is_dead(settings, flow, owner, now))
			return SW_REFUSED_NOT_ENTITLED;
		else if (owner.is.owner != request->sender)
			outcome = renew_foreign(settings, flow, key, owner, request, now);
		else if (!is_same_connection(owner, request))
			return SW_REFUSED_STALE;
		else
			outcome = renew_own(flow, key, owner, request, now);
		if (outcome != SW_DROP_CONTENTION)
			return outcome;
	}
	return SW_DROP_CONTENTION;
}

/* GONE. What to count. */
static __noinline __u32 lease_end(const struct flow_key *key, const struct request *request,
				  __u64 now)
{
	const struct switch_settings *settings = switch_settings();
	struct flow_value *flow;
	union flow_owner owner;

	if (!settings || !key || !request)
		return SW_REFUSED_NOT_ENTITLED;
	flow = bpf_map_lookup_elem(&flows, key);
	if (!flow) /* what it says is so already */
		return SW_GONE_LATE;
	owner = flow_read(flow);
	if (flow_is_dead(settings, flow, owner, now))
		return SW_GONE_LATE;
	if (owner.is.owner != request->sender) /* what it refused has gone on to another one */
		return generation_newer(owner.is.generation, request->generation)
			   ? SW_GONE_LATE
			   : SW_REFUSED_NOT_ENTITLED;
	if (owner.is.generation != request->generation)
		return SW_REFUSED_STALE;
	return flow_close(flow, owner, now) ? SW_GONE : SW_GONE_LATE;
}

#endif
