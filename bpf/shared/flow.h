/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* A flow, who owns it, and what the switch knows of it. */
#ifndef TCPMIG_SHARED_FLOW_H
#define TCPMIG_SHARED_FLOW_H

#include "shared/base.h"

TCPMIG_ABI_BEGIN

/* The name of a connection, as the client sees it. The VIP belongs in the key: one client port may talk to two VIPs. */
struct flow_key {
	struct ip_address client;
	struct ip_address vip;
	__be16 client_port;
	__be16 vip_port;
	__u8 family; /* enum ip_family */
	__u8 pad[3]; /* zero */
};
TCPMIG_ASSERT_SIZE(struct flow_key, 40);

/* Generations are numbers modulo 2^27 compared serially (RFC 1982): the first of a flow is taken from the wall
 * clock in units of 16 ms (so it wraps after 24.8 days and half of that, 12.4 days, can be told apart), each
 * transfer adds one. */
enum { GENERATION_BITS = 27, GENERATION_MASK = (1 << 27) - 1, GENERATION_CLOCK_MS = 16 };

/* Who owns a flow: ONE word, changed only by compare-and-swap and always before the packet that causes the change
 * is forwarded. owner 0 = nobody (the flow has ended; the generation stays, to refuse stale messages).
 * The port is in the word because a reader must never see the port of one owner with the node of another.
 * spoke = the switch has forwarded a packet of this owner (the point of no return). */
union flow_owner {
	__u64 word;
	struct {
		__u64 owner : 10;       /* node id */
		__u64 previous : 10;    /* node id that may take the flow back while spoke = 0; 0 = none */
		__u64 port : 16;        /* the owner's TCP port, host order */
		__u64 generation : 27;
		__u64 spoke : 1;
	} is;
};
TCPMIG_ASSERT_SIZE(union flow_owner, 8);

/* What has been seen of the end of a flow. Valid only while `generation` equals the owner word's: so a new
 * generation starts with a clean sheet and nothing needs to be reset. */
union flow_marks {
	__u32 word;
	struct {
		__u32 generation : 27;
		__u32 owner_fin : 1;       /* the owner sent FIN; flow_value.owner_fin_end is the sequence after it */
		__u32 owner_fin_acked : 1; /* ... and the client has acknowledged it */
		__u32 client_fin : 1;      /* the client sent FIN (a mark only: a client's claim closes nothing) */
		__u32 client_rst : 1;      /* the client sent RST (a mark only) */
		__u32 closing : 1;         /* by the owner's word (both FINs, RST, GONE): dead after timeout closing */
	} is;
};
TCPMIG_ASSERT_SIZE(union flow_marks, 4);

/* Value of the map `flows` (key flow_key): one transferred connection. Times are CLOCK_MONOTONIC of the switch, ns.
 * An entry is dead, and treated as absent, when closing and closing_ns + timeout < now, or last_seen_ns + idle lease < now. */
struct flow_value {
	union flow_owner owner;
	__u64 committed_ns; /* when the present generation was committed */
	__u64 last_seen_ns; /* last packet of either side, or lease renewed */
	__u64 closing_ns;   /* when marks.closing was set */
	__u64 packets_in;   /* client -> owner, this flow, all generations */
	__u64 bytes_in;     /* IP bytes */
	__u64 packets_out;
	__u64 bytes_out;
	__u32 owner_fin_end; /* host order; see marks.owner_fin */
	union flow_marks marks;
	__u16 service;
	__u16 client_fin_acked; /* FLOW_SHEET(generation) when the owner has acknowledged the client's FIN in that generation */
	__u32 client_fin_end;   /* host order; the sequence after the client's FIN, valid with marks.client_fin */
	__u32 snd_nxt;          /* host order; of the COMMIT: where the present owner's first word to the client begins */
	__u32 client_ack;       /* host order; what the client expects next, by its latest packet (first: snd_nxt): the number of a RST to it */
	__u32 client_end;       /* host order; the sequence after the client's latest packet; 0 = none since the entry was made */
	__u32 custody_end;      /* host order; the same when the present owner spoke first: what is below may still be on its way to it; 0 = nothing */
};
TCPMIG_ASSERT_SIZE(struct flow_value, 96);
/* A generation in 16 bits, never 0 (marks.word has no bit left). */
#define FLOW_SHEET(generation) ((__u16)((generation) << 1 | 1))

/* Value of the LRU map `affinity` (key flow_key): which dispatcher a not yet transferred connection belongs to, so that a
 * change of the set of dispatchers does not move connections that are open. Evictable at any time. */
struct affinity_value {
	__u64 last_seen_ns; /* to a second; a SYN is noted exactly */
	__u32 client_ack;   /* host order; what the client expects next of us, by its latest packet: the number of a RST to it */
	__u16 dispatcher;   /* node id */
	__u16 service;
	__u8 acked;         /* the number is there: the client has said more than SYN */
	__u8 moved;         /* the connection was transferred: `flows` has it, or had it */
	__u16 syn_low;      /* host order; the low half of the SYN's number: by it the same SYN, come again or late, is told from a new one */
	__u32 client_end;   /* host order; the sequence after the client's latest packet */
};
TCPMIG_ASSERT_SIZE(struct affinity_value, 24);

TCPMIG_ABI_END
#endif
