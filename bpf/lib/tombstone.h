/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* Tombstones: each transfer is opened once, whatever is repeated, replayed or killed.
 *
 * Who wants to open (flow, generation) first claims it: a new entry (BPF_NOEXIST), or one compare-and-swap on the word {generation,
 * state, reason, detail} of an old one. Exactly one claimant wins. Everything else that changes an entry is a compare-and-swap on the same
 * word. Sweeping marks the word first (state 0): a claimant that still holds the freed element then loses its swap and looks again. */
#ifndef TCPMIG_LIB_TOMBSTONE_H
#define TCPMIG_LIB_TOMBSTONE_H

#include <linux/errno.h>

#include "lib/generation.h"
#include "lib/node.h"
#include "shared/tombstone.h"

enum { TOMBSTONE_ATTEMPTS = 4 };

union tombstone_word {
	__u64 word;
	struct {
		__u32 generation;
		__u8 state;
		__u8 reason;
		__u16 detail;
	} is;
};

static inline volatile __u64 *tombstone_place(struct tombstone *tombstone)
{
	return (volatile __u64 *)&tombstone->generation;
}

static inline union tombstone_word tombstone_read(struct tombstone *tombstone)
{
	union tombstone_word now = {.word = *tombstone_place(tombstone)};

	return now;
}

static inline bool tombstone_swap(struct tombstone *tombstone, union tombstone_word before,
				  union tombstone_word after)
{
	if (__sync_val_compare_and_swap(tombstone_place(tombstone), before.word, after.word) !=
	    before.word)
		return false;
	tombstone->updated_ns = bpf_ktime_get_ns();
	return true;
}

/* A new entry. TOMBSTONE_OLD: somebody was quicker, look again. */
static inline enum tombstone_outcome tombstone_insert(const struct flow_key *flow,
						      struct tombstone *fresh)
{
	long error;

	fresh->updated_ns = bpf_ktime_get_ns();
	error = bpf_map_update_elem(&tombstones, flow, fresh, BPF_NOEXIST);
	if (error == 0)
		return TOMBSTONE_DONE;
	return error == -E2BIG || error == -ENOMEM ? TOMBSTONE_FULL : TOMBSTONE_OLD;
}

/* What may take the place of what: a newer generation, and of the same one, once, what the announcement was for. */
static inline bool tombstone_may_follow(union tombstone_word before, union tombstone_word after)
{
	if (before.is.generation == after.is.generation)
		return before.is.state == TOMB_ANNOUNCED && after.is.state != TOMB_ANNOUNCED;
	return generation_newer(after.is.generation, before.is.generation);
}

/* Puts `fresh` there if it may follow what is there. */
static inline enum tombstone_outcome tombstone_advance(const struct flow_key *flow,
						       struct tombstone *fresh)
{
	union tombstone_word after = tombstone_read(fresh);

	for (int i = 0; i < TOMBSTONE_ATTEMPTS; i++) {
		struct tombstone *tombstone = bpf_map_lookup_elem(&tombstones, flow);
		union tombstone_word before;
		enum tombstone_outcome outcome;

		if (!tombstone) {
			outcome = tombstone_insert(flow, fresh);
			if (outcome != TOMBSTONE_OLD)
				return outcome;
			continue;
		}
		before = tombstone_read(tombstone);
		if (!tombstone_may_follow(before, after))
			return TOMBSTONE_OLD;
		if (before.is.state != 0 && tombstone_swap(tombstone, before, after)) {
			tombstone->snd_nxt = fresh->snd_nxt;
			tombstone->target_port = fresh->target_port;
			tombstone->received = fresh->received;
			return TOMBSTONE_DONE;
		}
	}
	return TOMBSTONE_BUSY;
}

static inline enum tombstone_outcome tombstone_claim(const struct flow_key *flow, __u32 generation,
						     __u32 snd_nxt, __u16 target_port,
						     __u32 received)
{
	struct tombstone fresh = {
	    .generation = generation,
	    .state = TOMB_OPENING,
	    .snd_nxt = snd_nxt,
	    .target_port = target_port,
	    .received = received,
	};

	return tombstone_advance(flow, &fresh);
}

/* The agent will claim it. */
static inline enum tombstone_outcome
tombstone_announce(const struct flow_key *flow, __u32 generation, __u32 snd_nxt, __u16 target_port)
{
	struct tombstone fresh = {
	    .generation = generation,
	    .state = TOMB_ANNOUNCED,
	    .snd_nxt = snd_nxt,
	    .target_port = target_port,
	};

	return tombstone_advance(flow, &fresh);
}

/* This generation will not be opened here. */
static inline enum tombstone_outcome tombstone_forbid(const struct flow_key *flow, __u32 generation,
						      __u16 target_port)
{
	struct tombstone fresh = {
	    .generation = generation, .state = TOMB_ABORTED, .target_port = target_port};

	return tombstone_advance(flow, &fresh);
}

/* OPENING -> `after`, for the generation that is in `after`. */
static inline enum tombstone_outcome tombstone_settle(const struct flow_key *flow,
						      union tombstone_word after)
{
	struct tombstone *tombstone = bpf_map_lookup_elem(&tombstones, flow);
	union tombstone_word before = {
	    .is = {.generation = after.is.generation, .state = TOMB_OPENING}};

	if (!tombstone)
		return TOMBSTONE_ABSENT;
	return tombstone_swap(tombstone, before, after) ? TOMBSTONE_DONE : TOMBSTONE_OLD;
}

static inline void tombstone_refuse(const struct flow_key *flow, __u32 generation, __u8 reason,
				    __u16 detail)
{
	union tombstone_word after = {.is = {.generation = generation,
					     .state = TOMB_REFUSED,
					     .reason = reason,
					     .detail = detail}};

	tombstone_settle(flow, after);
}

static inline enum tombstone_outcome tombstone_sweep(const struct flow_key *flow, __u32 generation)
{
	struct tombstone *tombstone = bpf_map_lookup_elem(&tombstones, flow);
	union tombstone_word before, after = {.is = {.generation = generation}};

	if (!tombstone)
		return TOMBSTONE_ABSENT;
	before = tombstone_read(tombstone);
	if (before.is.generation != generation || !tombstone_swap(tombstone, before, after))
		return TOMBSTONE_OLD;
	return bpf_map_delete_elem(&tombstones, flow) == 0 ? TOMBSTONE_DONE : TOMBSTONE_BUSY;
}

#endif
