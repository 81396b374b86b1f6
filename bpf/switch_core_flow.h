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

/* Sets marks, if the generation is still the one the caller has seen: its clean sheet must not take
 * the place of a later one's marks. (The marks are read before the word: a generation that comes
 * after the look at the word has none yet, or the swap fails.) True if that changed anything. */
static __always_inline bool flow_mark(struct flow_value *flow, union flow_owner owner,
				      union flow_marks bits)
{
	for (int i = 0; i < FLOW_ATTEMPTS; i++) {
		union flow_marks before = {.word = *(const volatile __u32 *)&flow->marks.word};
		union flow_marks after = before;

		if (flow_read(flow).is.generation != owner.is.generation)
			return false;
		if (before.is.generation != owner.is.generation) {
			after.word = 0;
			after.is.generation = owner.is.generation;
		}
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

/* The last packets of a connection, rare and so out of line. An entry closes when both FINs have
 * been acknowledged by the other side (the client's by the owner, so that a FIN somebody made up in
 * the client's name closes nothing), or by the owner's RST. Nothing comes after a FIN, so an ACK
 * that covers one is exactly the number after it; a FIN with an old number has no such ACK. */
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
	    packet->ack == flow->owner_fin_end)
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
	    packet->ack == flow->client_fin_end) {
		flow->client_fin_acked = FLOW_SHEET(owner.is.generation);
		/* The client's last ACK may be seen on another CPU now: it sets its mark, then looks
		 * at what was stored here. This is a full barrier and a look at that mark: one of
		 * the two sees both. */
		marks.word = __sync_fetch_and_or(&flow->marks.word, 0);
		closed = marks.is.owner_fin_acked && marks.is.generation == owner.is.generation;
	}
	if (packet->tcp_flags & TCP_RST)
		closed = true;
	if (closed && flow_close(flow, owner, now))
		count(SW_CLOSED);
	return 0;
}

/* The sequence number after a segment. */
static __always_inline __u32 segment_end(const struct packet *packet)
{
	return packet->seq + packet->payload + !!(packet->tcp_flags & (TCP_SYN | TCP_FIN));
}

/* A packet of the client goes to the owner. */
static __always_inline void flow_note_in(struct flow_value *flow, const struct packet *packet,
					 union flow_owner owner, __u64 now)
{
	flow->last_seen_ns = now;
	flow->packets_in++;
	flow->bytes_in += packet->length;
	if ((packet->tcp_flags & (TCP_ACK | TCP_SYN | TCP_RST)) == TCP_ACK) {
		flow->client_ack = packet->ack;
		flow->client_end = segment_end(packet);
	}
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

/* A switch that has lost its table knows nothing of the flows that live: until the nodes have
 * announced them (RENEW), what has no entry and was not seen to begin belongs to somebody, and not
 * to a dispatcher, who would answer it with RST. */
static __always_inline bool is_unknown(const struct switch_settings *settings,
				       const struct flow_value *flow, const struct flow_key *key,
				       __u64 now)
{
	return !flow && now < settings->recovering_until_ns && !bpf_map_lookup_elem(&affinity, key);
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

static __always_inline bool is_first_syn(const struct packet *packet)
{
	return (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* A SYN where a connection of the same name has been, and not that one's: which its client may have sent twice, and of which the
 * second may come when the handshake is over. */
static __always_inline bool is_another(const struct affinity_value *bound,
				       const struct packet *packet)
{
	return is_first_syn(packet) && (bound->acked || bound->moved) &&
	       bound->syn_low != (__u16)packet->seq;
}

/* What a packet of the client tells of the connection: the number of a RST, should its dispatcher
 * die. The latest packet counts, whatever its numbers: one that somebody made up is corrected by the
 * next. Only what changes is written: other CPUs read this line. */
static __always_inline void affinity_learn(struct affinity_value *bound,
					   const struct packet *packet, __u64 now)
{
	if (is_another(bound, packet))
		bound->acked = bound->moved = 0;
	if (is_first_syn(packet) && bound->syn_low != (__u16)packet->seq)
		bound->syn_low = packet->seq;
	if ((packet->tcp_flags & TCP_SYN) || (__s64)(now - bound->last_seen_ns) > 1000000000)
		bound->last_seen_ns = now;
	if ((packet->tcp_flags & (TCP_ACK | TCP_SYN | TCP_RST)) != TCP_ACK)
		return;
	if (bound->client_ack != packet->ack)
		bound->client_ack = packet->ack;
	if (bound->client_end != segment_end(packet))
		bound->client_end = segment_end(packet);
	if (!bound->acked)
		bound->acked = 1;
}

/* It belongs to `flows` from now on, so nobody ends it when its former dispatcher dies. */
static __always_inline void affinity_moved(const struct flow_key *key)
{
	struct affinity_value *bound = bpf_map_lookup_elem(&affinity, key);

	if (bound)
		bound->moved = 1;
}

/* One that is down keeps what it has, should it come back and speak; but nothing goes to it. */
static __always_inline bool takes_clients(__u32 id)
{
	const struct node_entry *node = node_of(id);

	return is_dispatcher(id) && node && !node->down;
}

/* A new connection, which a dispatcher that drains shall not get. */
static __always_inline bool is_new_to_draining(const struct affinity_value *bound,
					       const struct packet *packet)
{
	const struct node_liveness *node;
	__u32 id = bound->dispatcher;

	if (!packet || !is_another(bound, packet))
		return false;
	node = bpf_map_lookup_elem(&liveness, &id);
	return node && node->draining;
}

/* The dispatcher of a connection without an entry: the one it is bound to, else Maglev's choice
 * (Eisenbud et al., NSDI 2016). 0 = there is none. `packet`, one of the client's, binds it: so that
 * connections stay where they are when the set of dispatchers changes; NULL only asks. */
static __noinline __u32 pick_dispatcher(const struct flow_key *key, __u32 service, __u64 now,
					const struct packet *packet)
{
	const struct switch_settings *settings = switch_settings();
	struct affinity_value chosen = {.last_seen_ns = now, .service = service};
	struct affinity_value *bound;
	__u32 slot, *node;

	if (!settings || !key)
		return 0;
	bound = bpf_map_lookup_elem(&affinity, key);
	if (bound && takes_clients(bound->dispatcher) && !is_new_to_draining(bound, packet)) {
		if (packet)
			affinity_learn(bound, packet, now);
		return bound->dispatcher;
	}
	slot = siphash_words(&settings->hash, key, sizeof(*key) / 8) % MAGLEV_SIZE;
	node = bpf_map_lookup_elem(&maglev, &slot);
	if (!node || !takes_clients(*node))
		return 0;
	chosen.dispatcher = *node;
	if (packet) {
		affinity_learn(&chosen, packet, now);
		bpf_map_update_elem(&affinity, key, &chosen, BPF_ANY);
	}
	return chosen.dispatcher;
}

#endif
