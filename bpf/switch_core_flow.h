/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* One entry of the flow table: is it alive, who owns it, how does it end.
 *
 * The owner word changes by compare-and-swap only. Everything else in an entry is either a count (a
 * lost update loses a count), or belongs to one generation by its marks, so that it needs no reset
 * when the owner changes. */
#ifndef TCPMIG_SWITCH_CORE_FLOW_H
#define TCPMIG_SWITCH_CORE_FLOW_H

#include "lib/parse.h"
#include "lib/siphash.h"
#include "switch_core_maps.h"

/* how often a decision is made again when the word has changed under it */
enum { FLOW_ATTEMPTS = 4 };

static __always_inline union flow_owner flow_read(const struct flow_value *flow)
{
	union flow_owner owner = {.word = *(const volatile __u64 *)&flow->owner.word};

	return owner;
}

static __always_inline bool flow_swap(struct flow_value *flow, union flow_owner from,
				      union flow_owner to)
{
	return __sync_val_compare_and_swap(&flow->owner.word, from.word, to.word) == from.word;
}

/* The marks, or a clean sheet if those that are there belong to another generation. */
static __always_inline union flow_marks flow_marks_of(const struct flow_value *flow,
						      union flow_owner owner)
{
	union flow_marks marks = {.word = *(const volatile __u32 *)&flow->marks.word};

	if (marks.is.generation != owner.is.generation) {
		marks.word = 0;
		marks.is.generation = owner.is.generation;
	}
	return marks;
}

/* Dead entries are treated as absent; only their generation still counts. */
static __always_inline bool flow_is_dead(const struct switch_settings *settings,
					 const struct flow_value *flow, union flow_owner owner,
					 __u64 now)
{
	if (owner.is.owner == 0)
		return true;
	if (flow_marks_of(flow, owner).is.closing && flow->closing_ns + settings->closing_ns < now)
		return true;
	return flow->last_seen_ns + settings->idle_ns < now;
}

/* What forget() writes before it deletes: such an entry is neither revived nor read, it is
 * gone in a moment. */
static __always_inline bool flow_is_condemned(union flow_owner owner)
{
	return owner.is.owner == 0 && owner.is.spoke;
}

/* Sets marks, if the owner is still the one the caller has seen. True if that changed anything. */
static __always_inline bool flow_mark(struct flow_value *flow, union flow_owner owner,
				      union flow_marks bits)
{
	for (int i = 0; i < FLOW_ATTEMPTS; i++) {
		union flow_marks before = {.word = *(const volatile __u32 *)&flow->marks.word};
		union flow_marks after = flow_marks_of(flow, owner);

		after.word |= bits.word;
		if (after.word == before.word)
			return false;
		if (__sync_val_compare_and_swap(&flow->marks.word, before.word, after.word) ==
		    before.word)
			return true;
	}
	return false;
}

/* Starts the end of an entry. The time goes in first: with the mark but an old time the entry would
 * be dead at once. */
static __always_inline bool flow_close(struct flow_value *flow, union flow_owner owner, __u64 now)
{
	union flow_marks bits = {};

	if (flow_marks_of(flow, owner).is.closing)
		return false;
	flow->closing_ns = now;
	bits.is.closing = 1;
	return flow_mark(flow, owner, bits);
}

/* The owner is alive, so the client's RST was none of the client's, or came out of its window. */
static __always_inline void flow_unmark_rst(struct flow_value *flow, union flow_owner owner)
{
	union flow_marks before = {.word = *(const volatile __u32 *)&flow->marks.word};
	union flow_marks after = flow_marks_of(flow, owner);

	after.is.client_rst = 0;
	__sync_val_compare_and_swap(&flow->marks.word, before.word,
				    after.word); /* lost: the next RENEW does it */
}

/* a is at or after b (RFC 793 sequence numbers) */
static __always_inline bool seq_reached(__u32 a, __u32 b)
{
	return (__s32)(a - b) >= 0;
}

static __always_inline bool generation_newer(__u32 a, __u32 b)
{
	__u32 distance = (a - b) & GENERATION_MASK;

	return distance != 0 && distance < 1u << (GENERATION_BITS - 1);
}

/* The last packets of a connection, rare and so out of line. An entry closes when both FINs have
 * been acknowledged by the other side (the client's by the owner, so that a FIN somebody made up in
 * the client's name closes nothing), or by the owner's RST. */
static __noinline int flow_note_ending_in(struct flow_value *flow, const struct packet *packet,
					  __u64 word, __u64 now)
{
	union flow_owner owner = {.word = word};
	union flow_marks marks, bits = {};

	if (!flow || !packet)
		return 0;
	marks = flow_marks_of(flow, owner);
	if (packet->tcp_flags & TCP_RST)
		bits.is.client_rst = 1;
	if (packet->tcp_flags & TCP_FIN) {
		flow->client_fin_end = packet->seq + packet->payload + 1;
		bits.is.client_fin = 1;
	}
	if (marks.is.owner_fin && (packet->tcp_flags & TCP_ACK) &&
	    seq_reached(packet->ack, flow->owner_fin_end))
		bits.is.owner_fin_acked = 1;
	flow_mark(flow, owner, bits);
	if ((marks.is.owner_fin_acked || bits.is.owner_fin_acked) &&
	    flow->client_fin_acked == FLOW_SHEET(owner.is.generation) &&
	    flow_close(flow, owner, now))
		count(SW_CLOSED);
	return 0;
}

static __noinline int flow_note_ending_out(struct flow_value *flow, const struct packet *packet,
					   __u64 word, __u64 now)
{
	union flow_owner owner = {.word = word};
	union flow_marks marks, bits = {};
	bool closed = false;

	if (!flow || !packet)
		return 0;
	marks = flow_marks_of(flow, owner);
	if (packet->tcp_flags & TCP_FIN) {
		flow->owner_fin_end = packet->seq + packet->payload + 1;
		bits.is.owner_fin = 1;
		flow_mark(flow, owner, bits);
	}
	if (marks.is.client_fin && (packet->tcp_flags & TCP_ACK) &&
	    seq_reached(packet->ack, flow->client_fin_end)) {
		flow->client_fin_acked = FLOW_SHEET(owner.is.generation);
		closed = marks.is.owner_fin_acked;
	}
	if (packet->tcp_flags & TCP_RST)
		closed = true;
	if (closed && flow_close(flow, owner, now))
		count(SW_CLOSED);
	return 0;
}

/* A packet of the client goes to the owner. */
static __always_inline void flow_note_in(struct flow_value *flow, const struct packet *packet,
					 union flow_owner owner, __u64 now)
{
	flow->last_seen_ns = now;
	flow->packets_in++;
	flow->bytes_in += packet->length;
	if ((packet->tcp_flags & (TCP_FIN | TCP_RST)) || flow->marks.is.owner_fin)
		flow_note_ending_in(flow, packet, owner.word, now);
}

/* A packet of the owner goes to the client. */
static __always_inline void flow_note_out(struct flow_value *flow, const struct packet *packet,
					  union flow_owner owner, __u64 now)
{
	flow->last_seen_ns = now;
	flow->packets_out++;
	flow->bytes_out += packet->length;
	if ((packet->tcp_flags & (TCP_FIN | TCP_RST)) || flow->marks.is.client_fin)
		flow_note_ending_out(flow, packet, owner.word, now);
}

/* Which dispatcher a connection without an entry is bound to, if that is known and it still is one;
 * else 0. */
static __always_inline __u32 affinity_dispatcher(const struct flow_key *key)
{
	const struct affinity_value *bound = bpf_map_lookup_elem(&affinity, key);

	return bound && is_dispatcher(bound->dispatcher) ? bound->dispatcher : 0;
}

/* While a connection has no entry only the dispatcher that it is bound to may speak for it or
 * transfer it; any dispatcher, when the binding has been evicted. */
static __always_inline bool may_dispatch(const struct flow_key *key, __u32 node)
{
	__u32 bound;

	if (!is_dispatcher(node))
		return false;
	bound = affinity_dispatcher(key);
	return bound == 0 || bound == node;
}

/* The dispatcher of a connection without an entry: the one it is bound to, else Maglev's choice
 * (Eisenbud et al., NSDI 2016). 0 = there is none. `bind` remembers the choice, so that connections
 * stay where they are when the set of dispatchers changes. */
static __noinline __u32 pick_dispatcher(const struct flow_key *key, __u32 service, __u64 now,
					bool bind)
{
	const struct switch_settings *settings = switch_settings();
	struct affinity_value chosen = {.last_seen_ns = now, .service = service};
	struct affinity_value *bound;
	__u32 slot, *node;

	if (!settings || !key)
		return 0;
	bound = bpf_map_lookup_elem(&affinity, key);
	if (bound && is_dispatcher(bound->dispatcher)) {
		if (now - bound->last_seen_ns >
		    1000000000) /* not on every packet: other CPUs read this line */
			bound->last_seen_ns = now;
		return bound->dispatcher;
	}
	slot = siphash_words(&settings->hash, key, sizeof(*key) / 8) % MAGLEV_SIZE;
	node = bpf_map_lookup_elem(&maglev, &slot);
	if (!node || !is_dispatcher(*node))
		return 0;
	chosen.dispatcher = *node;
	if (bind)
		bpf_map_update_elem(&affinity, key, &chosen, BPF_ANY);
	return chosen.dispatcher;
}

#endif
