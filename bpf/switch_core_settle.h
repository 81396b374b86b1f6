/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* The first moments of an owner. What the client had sent before its new owner spoke is on its way to it by several roads:
 * captured and sent on by the former owner, held by the agent, in the parts of the transfer. Meanwhile the client goes on, and
 * what it sends now comes out of order. The SACK (RFC 2018) that says so would make it send again what nobody has lost. So
 * such an acknowledgement stays here, as long as what it misses is in our custody: the next one, when that has arrived, says
 * all that it said. Where something of it was lost after all, the client's timer finds out. (With data it passes: that is not ours to hold up.) */
#ifndef TCPMIG_SWITCH_CORE_SETTLE_H
#define TCPMIG_SWITCH_CORE_SETTLE_H

#include <linux/tcp.h>

#include "switch_core_forward.h"

enum {
	SETTLE_NS = 400000000, /* its own timer (Linux: 200 ms at least) has had it sent again by then */
	CUSTODY_REACH = 1 << 24, /* no more than this can be missing: more than our share of any window */
	OPTION_NOP = 1,
	OPTION_SACK = 5,
	ONE_BLOCK = 10, /* length of a SACK with one block */
	OPTION_TIMESTAMPS = 8,
	TIMESTAMPS_SIZE = 12, /* with the NOPs before it: RFC 7323, appendix A */
};

/* NOP NOP SACK, with its first block (network order). */
struct sack_option {
	__u8 nops[2];
	__u8 kind;
	__u8 length;
	__be32 left;
	__be32 right;
};

/* Does the acknowledgement say that something is missing? As kernels write options: NOP NOP TIMESTAMPS first, where there are
 * any, then NOP NOP SACK. A single block below the number acknowledged says only that something came twice (D-SACK, RFC 2883):
 * the client shall know, for it takes back what it thought of the path. */
static __noinline bool reports_gap(frame_context *ctx, const struct packet *packet)
{
	__u32 at = packet->l4 + sizeof(struct tcphdr), room = packet->tcp_header;
	struct sack_option sack;

	if (room < sizeof(struct tcphdr) + sizeof(sack) ||
	    frame_load(ctx, at & PACKET_OFFSET_MASK, &sack, sizeof(sack)))
		return false;
	if (sack.kind == OPTION_TIMESTAMPS) {
		at += TIMESTAMPS_SIZE;
		if (room < sizeof(struct tcphdr) + TIMESTAMPS_SIZE + sizeof(sack) ||
		    frame_load(ctx, at & PACKET_OFFSET_MASK, &sack, sizeof(sack)))
			return false;
	}
	if (sack.nops[0] != OPTION_NOP || sack.nops[1] != OPTION_NOP || sack.kind != OPTION_SACK)
		return false;
	return sack.length != ONE_BLOCK ||
	       (__s32)(__builtin_bswap32(sack.right) - packet->ack) > 0;
}

/* Once in a transfer: when an owner has spoken first. */
static __noinline int note_custody(struct flow_value *flow, const struct flow_key *key)
{
	const struct affinity_value *bound;

	if (!flow || !key)
		return 0;
	flow->custody_end = flow->client_end;
	bound = bpf_map_lookup_elem(&affinity, key);
	if (bound && bound->moved && !flow->client_end) /* it has sent nothing since the COMMIT */
		flow->custody_end = bound->client_end;
	return 0;
}

/* `now` may be of the coarse clock, and so before the COMMIT. */
static __always_inline bool is_early_sack(frame_context *ctx, const struct flow_value *flow,
					  const struct packet *packet, __u64 now)
{
	return now < flow->committed_ns + SETTLE_NS && packet->payload == 0 &&
	       packet->tcp_flags == TCP_ACK && flow->custody_end != 0 &&
	       flow->custody_end - packet->ack - 1 < CUSTODY_REACH && reports_gap(ctx, packet);
}

#endif
