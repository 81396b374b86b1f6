/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* COMMIT: the one message that moves a flow, as a decision on the owner word and a
 * compare-and-swap. Who sends it, what the entry is, which generation it must have:
 *
 *   absent or dead   a dispatcher         newer than any known   create or revive
 *                    (of its transfer the first COMMIT that may have been applied)
 *   live             the owner            current + 1            move
 *   live             the previous owner,  current + 1            move, or take back
 *                    owner silent
 *   live             anyone else          -                      refuse
 *
 * A transfer that began before the switch lost its table is never applied without an entry: its COMMIT may have been
 * applied already, and its new owner have spoken. And while the switch recovers, a transfer without a boot, of a
 * connection that was not seen to begin, is not answered.
 *
 * And a repeat of the COMMIT that made the present word is answered like the first as long as the
 * new owner is silent. */
#ifndef TCPMIG_SWITCH_CORE_COMMIT_H
#define TCPMIG_SWITCH_CORE_COMMIT_H

#include "lib/generation.h"
#include "shared/wire.h"
#include "switch_core_flow.h"

/* What a COMMIT, DATA, GONE or RENEW asks for, in host order. */
struct request {
	__u32 generation;
	__u16 sender;
	__u16 target;
	__u16 port;
	__u16 service;
	__u8
	    further; /* that many generations above the first COMMIT of its transfer that may have been applied */
	bool client_fin;      /* the client's FIN came before the transfer .. */
	__u32 client_fin_end; /* .. and this is the sequence after it */
	__u32 snd_nxt;
	__u32
	    detail; /* COMMIT, DATA: the boot of the switch when the transfer began, 0 = not known;
		       * HEARTBEAT: the sender's instance, and in the answer the boot */
};

/* Outcomes. Refusals are negative: -enum wire_reason. */
enum verdict {
	VERDICT_CREATE = 1, /* no element in the table */
	VERDICT_REVIVE,     /* a dead one */
	VERDICT_MOVE,       /* a live one changes hands */
	VERDICT_TAKE_BACK,  /* ... back to its previous owner */
	VERDICT_REPEAT,     /* applied already */
	VERDICT_CONTENTION,
	VERDICT_UNKNOWN, /* the table was lost: whose flow it is will be announced */
};

static __always_inline __u32 next_generation(__u32 generation)
{
	return (generation + 1) & GENERATION_MASK;
}

/* A live entry. */
static __always_inline int judge_live(union flow_owner owner, const struct request *request)
{
	bool is_owner = owner.is.owner == request->sender,
	     is_previous = owner.is.previous == request->sender;

	if (!is_owner && !is_previous)
		return -REASON_NOT_ENTITLED;
	if (is_previous && owner.is.generation == request->generation &&
	    owner.is.owner == request->target && owner.is.port == request->port)
		/* a repeat of a taking back is answered in any case: its answer was lost */
		return owner.is.spoke && request->target != request->sender ? -REASON_ALREADY_SPOKE
									    : VERDICT_REPEAT;
	if (request->generation != next_generation(owner.is.generation))
		return -REASON_STALE_GENERATION;
	if (is_owner)
		return VERDICT_MOVE;
	if (owner.is.spoke)
		return -REASON_ALREADY_SPOKE;
	return request->target == request->sender ? VERDICT_TAKE_BACK : VERDICT_MOVE;
}

/* Judges a request by the entry as it is now. `*current` is the generation the switch knows, 0 if
 * none. */
static __always_inline int judge(const struct switch_settings *settings, const struct flow_key *key,
				 const struct flow_value *flow, union flow_owner owner,
				 const struct request *request, __u64 now)
{
	if (flow && !flow_is_dead(settings, flow, owner, now))
		return judge_live(owner, request);
	if (request->detail && request->detail != settings->boot)
		return -REASON_OTHER_BOOT; /* before all else: who is entitled, the table knew */
	if (!may_dispatch(key, request->sender))
		return -REASON_NOT_ENTITLED;
	if (is_unknown(settings, flow, key, now))
		return VERDICT_UNKNOWN;
	if (!flow)
		return VERDICT_CREATE;
	if (flow_is_condemned(owner))
		return VERDICT_CONTENTION;
	/* An entry that has ended in this transfer's own hands, or later, is not revived by it: its request would be
	 * executed once more. */
	return generation_newer((request->generation - request->further) & GENERATION_MASK,
				owner.is.generation)
		   ? VERDICT_REVIVE
		   : -REASON_STALE_GENERATION;
}

static __always_inline union flow_owner owner_of(const struct request *request)
{
	union flow_owner owner = {};

	owner.is.owner = request->target;
	owner.is.previous = request->sender;
	owner.is.port = request->port;
	owner.is.generation = request->generation;
	return owner;
}

/* A new entry, complete before anyone can see it. 0, -REASON_TABLE_FULL, or VERDICT_CONTENTION:
 * another CPU was first. */
static __always_inline int flow_insert(const struct flow_key *key, const struct request *request,
				       union flow_owner owner, __u64 now)
{
	__u32 zero = 0;
	struct flow_value *value = bpf_map_lookup_elem(&new_flow, &zero);
	long error;

	if (!value)
		return -REASON_TABLE_FULL;
	__builtin_memset(value, 0, sizeof(*value));
	value->committed_ns = value->last_seen_ns = now;
	value->service = request->service;
	value->snd_nxt = value->client_ack = request->snd_nxt;
	value->owner = owner;
	if (request->client_fin) {
		value->client_fin_end = request->client_fin_end;
		value->marks.is.generation = request->generation;
		value->marks.is.client_fin = 1;
	}
	error = bpf_map_update_elem(&flows, key, value, BPF_NOEXIST);
	if (error == 0)
		return 0;
	/* EEXIST, or EBUSY when this CPU was interrupted inside the same bucket; all else says that
	 * there is no room */
	return error == -17 || error == -16 ? VERDICT_CONTENTION : -REASON_TABLE_FULL;
}

static __noinline int flow_create(const struct flow_key *key, const struct request *request,
				  __u64 now)
{
	if (!key || !request)
		return -REASON_TABLE_FULL;
	return flow_insert(key, request, owner_of(request), now);
}

/* A dead element gets a new life. It is first made nobody's (an expired one still carries its
 * owner, and a new time would bring that one back to life), then cleaned, then given away. */
static __always_inline bool flow_revive(struct flow_value *flow, union flow_owner before,
					union flow_owner after, __u16 service, __u64 now)
{
	union flow_owner nobody = {};

	nobody.is.generation = before.is.generation;
	if (before.word != nobody.word && !flow_swap(flow, before, nobody))
		return false;
	flow->last_seen_ns = now;
	flow->packets_in = flow->bytes_in = 0;
	flow->packets_out = flow->bytes_out = 0;
	flow->client_end = flow->custody_end = 0;
	flow->service = service;
	return flow_swap(flow, nobody, after);
}

/* Does what was judged. 0, a refusal, or VERDICT_CONTENTION: judge again. */
static __always_inline int apply(struct flow_value *flow, const struct flow_key *key,
				 union flow_owner before, const struct request *request,
				 int verdict, __u64 now)
{
	union flow_owner after = owner_of(request);
	union flow_marks fin = {};
	bool swapped;

	if (verdict == VERDICT_REPEAT)
		return 0;
	if (verdict == VERDICT_CREATE || !flow)
		return flow_create(key, request, now);
	if (verdict == VERDICT_REVIVE)
		swapped = flow_revive(flow, before, after, request->service, now);
	else
		swapped = flow_swap(flow, before, after);
	if (!swapped)
		return VERDICT_CONTENTION;
	flow->committed_ns = now;
	flow->last_seen_ns = now;
	/* else it is known, and perhaps newer than what the owner had heard */
	if (verdict == VERDICT_REVIVE)
		flow->client_ack = request->snd_nxt;
	flow->snd_nxt = request->snd_nxt; /* before the COMMIT goes on: nobody acts on it yet */
	if (request->client_fin) {
		flow->client_fin_end = request->client_fin_end;
		fin.is.client_fin = 1;
		flow_mark(flow, after, fin);
	}
	return 0;
}

/* Judges and, with `change`, applies. Returns the verdict (> 0), or a refusal (< 0); *current is
 * the generation that the switch knows, 0 if none. */
static __noinline int commit(const struct flow_key *key, const struct request *asked, __u64 now,
			     bool change, __u32 *current)
{
	const struct switch_settings *settings = switch_settings();

	if (!settings || !key || !asked || !current)
		return VERDICT_CONTENTION;
	for (int i = 0; i < FLOW_ATTEMPTS; i++) {
		struct flow_value *flow = bpf_map_lookup_elem(&flows, key);
		union flow_owner owner = {};
		int verdict, error;

		if (flow)
			owner = flow_read(flow);
		*current = owner.is.generation;
		verdict = judge(settings, key, flow, owner, asked, now);
		if (verdict == VERDICT_CONTENTION)
			continue;
		if (verdict < 0 || verdict == VERDICT_UNKNOWN || !change)
			return verdict;
		error = apply(flow, key, owner, asked, verdict, now);
		if (error == 0)
			return verdict;
		if (error < 0)
			return error;
	}
	return VERDICT_CONTENTION;
}

#endif
