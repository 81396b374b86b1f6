/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* Keys and values of the maps on a node (server or dispatcher): resume and guard programs, lock and dump programs.
 * Pinned below <pins>/agent/ (or <pins>/dispatcher/) under their map name. */
#ifndef TCPMIG_SHARED_NODE_MAPS_H
#define TCPMIG_SHARED_NODE_MAPS_H

#include "shared/flow.h"
#include "shared/switch_maps.h"
#include "shared/wire.h"

TCPMIG_ABI_BEGIN

/* On a node the flow_key of every map and event names the flow as the node sees it: `vip` holds the node's own VPA (which
 * names node and service) and vip_port is 0. */

/* map `node_settings`: array [1] */
struct node_settings {
	struct ip_address vpa4_block; /* v4-mapped; this node's block, /18 */
	struct ip_address vpa6_block; /* /112 */
	__u32 tun_ifindex;            /* stray packets are redirected here; 0 = drop them */
	__u16 node;                   /* own id */
	__be16 control_port;
	__u8 role;                    /* enum node_role */
	__u8 no_resume;               /* the kernel would answer transfers with RST now: all of them to the agent, which refuses */
	__u8 pad[6];
};
TCPMIG_ASSERT_SIZE(struct node_settings, 48);

/* map `pair_keys`: array [MAX_NODES] of struct key_ring by the other node's id */

/* map `user_ports`: hash __u32 TCP port (host order) -> __u32 1: transfers to this port are opened by the agent (handed over
 * by descriptor), not by the tc program. */

/* The life of a tombstone. It is written before anything is opened and outlives agent and connection (invariant 3). */
enum tombstone_state {
	TOMB_OPENING = 1,   /* a resume is under way: packets without a socket are held */
	TOMB_CONFIRMED = 2, /* the child has been seen: a packet without a socket is the kernel's to answer (RST) */
	TOMB_ABORTED = 3,   /* never opened, and never will be: this generation or an older one is refused */
	TOMB_REFUSED = 4,   /* tried and failed; the reason is in `reason` */
	TOMB_ANNOUNCED = 5, /* its COMMIT has come, and the agent has still to open it: whatever is left of an earlier connection
	                     * (a tombstone, TIME_WAIT) must not answer in its place */
};

enum { CHILD_SEEN = 1 << 30 }; /* above every generation */

/* map `tombstones`: hash flow_key -> the highest generation that was ever seen here. generation, state, reason and detail are one
 * word of 8 bytes, changed in place by compare-and-swap only, and only by BPF programs (lib/tombstone.h): an update by a system call
 * would replace the element under the hands of a program that is just claiming it. */
struct tombstone {
	__u64 updated_ns; /* CLOCK_MONOTONIC */
	__u32 generation;
	__u8 state;       /* enum tombstone_state; 0 = being swept */
	__u8 reason;      /* enum wire_reason */
	__u16 detail;     /* errno of a refusal */
	__u32 snd_nxt;     /* of the COMMIT: the child's first sequence number */
	__u16 target_port; /* host order: with the key, the child's four-tuple */
	__u16 pad;
	__u32 received; /* bytes that a paced delivery brings to the child: with less it is not whole. 0 = opened in one piece */
	__u32 child_seen; /* CHILD_SEEN | the generation whose child was there when it began to end: it may be gone before
	                   * the agent looks */
	__u32 last_seq;   /* with child_seen: the next sequence number that its client had then, and what it acknowledged */
	__u32 last_ack;
};
TCPMIG_ASSERT_SIZE(struct tombstone, 40);

/* map `pending`: hash flow_key -> what the next segment of this flow on the TUN is to be resumed with. Written by the agent
 * before it writes that segment, taken out by the program that resumes. */
struct pending_resume {
	__u32 generation;
	__u32 tsval_now;
	__u32 ts_recent;
	__u16 mss;
	__u16 target_port; /* host order */
	__u8 options;      /* enum wire_options */
	__u8 snd_wscale;
	__u8 rcv_wscale;
	__u8 pad[5];
};
TCPMIG_ASSERT_SIZE(struct pending_resume, 24);

/* ring buffer `node_events` */
enum node_event_type {
	EVENT_OPENED = 1,    /* the kfunc took the transfer; the child comes into being in the same softirq */
	EVENT_REFUSED = 2,   /* reason, detail */
	EVENT_DUPLICATE = 3, /* generation not newer than the tombstone's: answer again */
	EVENT_ANNOUNCED = 4, /* there is a new tombstone (TOMB_ANNOUNCED); the COMMIT itself goes on to the agent's UDP socket */
	EVENT_STRAY_SYN = 5, /* SYN for a flow that has left: say GONE */
};
struct node_event {
	struct flow_key flow;
	struct wire_header header; /* of the COMMIT (as received); zero for STRAY_SYN */
	struct ip_address from;    /* where the answer goes */
	__be16 from_port;
	__u8 type;                 /* enum node_event_type */
	__u8 reason;
	__u32 detail;
	__u64 received_ns; /* CLOCK_MONOTONIC at the start of the program */
	__u64 done_ns;     /* ... and when the kfunc returned */
};
TCPMIG_ASSERT_SIZE(struct node_event, 208);

/* per-CPU array `node_counters` [NODE_COUNTER_MAX] of __u64 */
#define NODE_COUNTERS(X) \
	X(ND_OPENED, "opened", "transfers opened by the tc program") \
	X(ND_OPENED_TUN, "opened_tun", "transfers opened through the TUN") \
	X(ND_TO_AGENT, "to_agent", "transfers left to the agent (several parts, a descriptor, a busy four-tuple)") \
	X(ND_REFUSED, "refused", "transfers refused by the tc program") \
	X(ND_DUPLICATE, "duplicate", "transfers seen before (tombstone)") \
	X(ND_DROP_BAD_MESSAGE, "drop_bad_message", "control datagram malformed or not for this node") \
	X(ND_DROP_BAD_TAG, "drop_bad_tag", "control datagram with a wrong tag or key") \
	X(ND_DROP_REPLAY, "drop_replay", "COMMIT whose message number was seen before, or is too old to know") \
	X(ND_GUARD_PASSED, "guard_passed", "packets for a VPA with a socket") \
	X(ND_GUARD_HELD, "guard_held", "packets without a socket given to the agent") \
	X(ND_GUARD_TO_KERNEL, "guard_to_kernel", "packets of an ended connection left to the kernel's RST: there is no agent") \
	X(ND_GUARD_ENDED, "guard_ended", "packets that are the last word of an ended connection, left to the kernel's RST") \
	X(ND_GUARD_DROP_SYN, "guard_drop_syn", "SYNs for a VPA of a server") \
	X(ND_GUARD_DROP, "guard_drop", "packets without a socket dropped (no agent, RST, malformed)") \
	X(ND_EVENT_LOST, "event_lost", "events that found no room (the agent looks for itself then)")

enum node_counter {
#define X(name, json, text) name,
	NODE_COUNTERS(X)
#undef X
	NODE_COUNTER_MAX
};

/* ---- freeze: lock and dump ---- */

/* ring buffer `captures`: one record for each segment that arrived at a locked socket; followed by `length` bytes: the TCP
 * header and the data. */
struct capture {
	__u64 cookie; /* socket cookie (SO_COOKIE) */
	__u64 captured_ns;
	__u32 length;
	__u32 pad;
};
TCPMIG_ASSERT_SIZE(struct capture, 24);

/* the one-call dump: getsockopt(fd, DUMP_LEVEL, DUMP_OPTNAME, struct tcp_dump) answered by a cgroup/getsockopt program */
enum { DUMP_LEVEL = 0x7463, DUMP_OPTNAME = 1 };
struct tcp_dump {
	__u64 now_ns; /* CLOCK_MONOTONIC when it was taken */
	__u32 rcv_nxt, copied_seq, rcv_wup, rcv_wnd;
	__u32 snd_una, snd_nxt, write_seq, snd_wnd, snd_wl1, max_window;
	__u32 ts_recent, tsval_now;
	__u32 srtt_us; /* microseconds (already divided by 8) */
	__u16 mss_clamp;
	__u8 state;    /* TCP_ESTABLISHED .. as in linux/tcp.h's enum */
	__u8 options;  /* enum wire_options */
	__u8 snd_wscale, rcv_wscale;
	__u8 repair;
	__u8 refused;  /* enum dump_refusal bits: what cannot be carried */
	__u32 packets_out;
	__u32 snd_cwnd, snd_ssthresh; /* segments */
	struct ip_address local, peer; /* IPv4 v4-mapped, also that of an AF_INET6 socket */
	__be16 local_port, peer_port;
	__u8 ipv6_socket; /* AF_INET6, whatever it talks */
	__u8 pad[3];
};
TCPMIG_ASSERT_SIZE(struct tcp_dump, 120);

/* the same, and what the application has set, by DUMP_WHOLE_OPTNAME; where it has set nothing, what the namespace has for that */
enum { DUMP_WHOLE_OPTNAME = 2 };
struct tcp_settings {
	__u64 linger;                   /* jiffies */
	__u32 keep_idle, keep_interval; /* jiffies */
	__u32 user_timeout;             /* milliseconds */
	__u32 notsent_lowat;            /* bytes */
	__u32 priority, mark;
	__u32 send_buffer, receive_buffer; /* bytes, as SO_SNDBUF says */
	__s32 peek_offset;                 /* SO_PEEK_OFF; -1: none */
	__u32 flags;                       /* enum dump_setting */
	__s16 hops;                        /* TTL, or hop limit; -1: as the route has it (IPv6) */
	__u8 tos;                          /* or traffic class */
	__u8 keep_count;
	char congestion[16];
	__u8 pad[4];
};
TCPMIG_ASSERT_SIZE(struct tcp_settings, 72);

enum dump_setting {
	DUMP_NODELAY = 1,
	DUMP_CORK = 2,
	DUMP_KEEPALIVE = 4,
	DUMP_LINGER = 8,
	DUMP_ZEROCOPY = 16,
	DUMP_SEND_BUFFER_FIXED = 32,
	DUMP_RECEIVE_BUFFER_FIXED = 64,
};

struct tcp_whole_dump {
	struct tcp_dump state;
	struct tcp_settings settings;
};
TCPMIG_ASSERT_SIZE(struct tcp_whole_dump, 192);

enum dump_refusal {
	DUMP_OUT_OF_ORDER = 1, /* something has come after a gap: a request is moved all the same (the client sends that again) */
	DUMP_URGENT = 2,
	DUMP_ULP = 4,          /* kTLS and friends */
	DUMP_MPTCP = 8,
	DUMP_MD5_AO = 16,
	DUMP_ACCECN = 32, /* accurate ECN (Linux 6.18): its counters are not in a snapshot */
};

TCPMIG_ABI_END
#endif
