/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* The first moments of an owner. What the client had sent before its new owner spoke is on its way to it by several roads:
 * captured and sent on by the former owner, held by the agent, in the parts of the transfer. Meanwhile the client goes on, and
 * what it sends now comes out of order. The SACK (RFC 2018) that says so would make it send again what nobody has lost. So
 * such an acknowledgement stays here, as long as what it misses is in our custody, and data goes on without its SACK: the
 * next acknowledgement, when that has arrived, says all that they said. Where something of it was lost after all, the
 * client's timer finds out. */
#ifndef TCPMIG_SWITCH_CORE_SETTLE_H
#define TCPMIG_SWITCH_CORE_SETTLE_H

#include <linux/tcp.h>

#include "switch_core_forward.h"

enum {
	SETTLE_NS =
	    400000000, /* its own timer (Linux: 200 ms at least) has had it sent again by then */
	CUSTODY_GROWS_NS =
	    100000000, /* its agent has opened the way for the client's packets by then */
	CUSTODY_REACH =
	    1 << 24, /* no more than this can be missing: more than our share of any window */
	OPTION_NOP = 1,
	OPTION_SACK = 5,
	SACK_BLOCK = 8,
	MIN_SACK = 12, /* of one block, with the NOPs before it */
	MAX_SACK = 36, /* of four */
	FOUR_NOPS = 0x01010101,
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

/* Where NOP NOP SACK stands in the frame; 0: there is none, or it says only that something came twice (a single block below the
 * number acknowledged: D-SACK, RFC 2883), which the client shall know, for it takes back what it thought of the path. As
 * kernels write options: NOP NOP TIMESTAMPS first, where there are any. `length`: of the option and the NOPs. */
static __noinline int find_gap(frame_context *ctx, const struct packet *packet, __u32 *length)
{
	__u32 at = packet->l4 + sizeof(struct tcphdr), end = packet->l4 + packet->tcp_header;
	struct sack_option sack;

	if (!length || at + sizeof(sack) > end ||
	    frame_load(ctx, at & PACKET_OFFSET_MASK, &sack, sizeof(sack)))
		return 0;
	if (sack.kind == OPTION_TIMESTAMPS) {
		at += TIMESTAMPS_SIZE;
		if (at + sizeof(sack) > end ||
		    frame_load(ctx, at & PACKET_OFFSET_MASK, &sack, sizeof(sack)))
			return 0;
	}
	*length = 2 + sack.length;
	if (sack.nops[0] != OPTION_NOP || sack.nops[1] != OPTION_NOP || sack.kind != OPTION_SACK ||
	    *length % SACK_BLOCK != MIN_SACK % SACK_BLOCK || *length < MIN_SACK ||
	    *length > MAX_SACK || at + *length > end)
		return 0;
	if (*length == sizeof(sack) && (__s32)(__builtin_bswap32(sack.right) - packet->ack) <= 0)
		return 0;
	return at & PACKET_OFFSET_MASK;
}

/* Makes NOPs of the SACK that find_gap() has found. */
static __noinline int hide_sack(frame_context *ctx, const struct packet *packet, __u32 at,
				__u32 length)
{
	__u32 words[MAX_SACK / 4];
	__s64 change;

	/* as find_gap() says; so the verifier sees it, of whatever version */
	length = MIN_SACK + ((length - MIN_SACK) & (MAX_SACK - MIN_SACK));
	if (!packet || frame_load(ctx, at & PACKET_OFFSET_MASK, words, length))
		return -1;
	change = bpf_csum_diff(words, length, NULL, 0, 0);
	for (int i = 0; i < MAX_SACK / 4; i++)
		words[i] = FOUR_NOPS;
	change = bpf_csum_diff(NULL, 0, words, length, (__u32)change);
	if (frame_store(ctx, at & PACKET_OFFSET_MASK, words, length))
		return -1;
	return frame_csum(ctx, packet->family,
			  packet->l4 + __builtin_offsetof(struct tcphdr, check), (__u32)change,
			  CSUM_DATA);
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

/* The agent holds what comes before it has seen its new connection, and that may be after the connection's first word: what the
 * client has sent upon that word is in our custody, too. */
static __always_inline void grow_custody(struct flow_value *flow, __u64 now)
{
	if (now < flow->committed_ns + CUSTODY_GROWS_NS && flow->client_end &&
	    (__s32)(flow->client_end - flow->custody_end) > 0)
		flow->custody_end = flow->client_end;
}

/* 0, or the reason to drop. `now` may be of the coarse clock, and so before the COMMIT. */
static __always_inline __u32 keep_early_sack(frame_context *ctx, struct flow_value *flow,
					     const struct packet *packet, __u64 now)
{
	__u32 length = 0, at;

	if (now >= flow->committed_ns + SETTLE_NS || flow->custody_end == 0)
		return 0;
	grow_custody(flow, now);
	if (flow->custody_end - packet->ack - 1 >= CUSTODY_REACH || packet->tcp_flags & TCP_RST)
		return 0;
	at = find_gap(ctx, packet, &length);
	if (!at)
		return 0;
	if (packet->payload == 0 && packet->tcp_flags == TCP_ACK)
		return SW_DROP_EARLY_SACK;
	count(SW_HIDDEN_SACK);
	return hide_sack(ctx, packet, at, length) ? SW_DROP_MALFORMED : 0;
}

#endif
