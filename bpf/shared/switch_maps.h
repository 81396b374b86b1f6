/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* Keys and values of the switch's maps. All of them are pinned below <pins>/switch/ under their map name. */
#ifndef TCPMIG_SHARED_SWITCH_MAPS_H
#define TCPMIG_SHARED_SWITCH_MAPS_H

#include "shared/flow.h"

TCPMIG_ABI_BEGIN

/* map `vips`: hash vip_key -> __u16 service id (stored as __u32) */
struct vip_key {
	struct ip_address address;
	__be16 port;
	__u8 pad[2];
};
TCPMIG_ASSERT_SIZE(struct vip_key, 20);
/* The same map also holds each VIP with port 0 -> 0: so that a packet for a VIP but no service is known and counted. */

/* map `services`: array [MAX_SERVICES] by service id; the reverse of `vips` */
struct service_entry {
	struct ip_address vip4; /* v4-mapped; all zero = the service has no IPv4 */
	struct ip_address vip6;
	__be16 port;
	__u8 used;
	__u8 pad[5];
};
TCPMIG_ASSERT_SIZE(struct service_entry, 40);

enum node_role { NODE_NONE = 0, NODE_DISPATCHER = 1, NODE_SERVER = 2 };

/* SipHash key: k0, k1 as the algorithm reads them (little endian of the 16 key bytes = host order here) */
struct siphash_key {
	__u64 k0, k1;
};
TCPMIG_ASSERT_SIZE(struct siphash_key, 16);

/* Two keys are valid at a time: slot = key_id & 1; key_id[slot] must equal the header's. key_id 0 = no key in the slot. */
struct key_ring {
	struct siphash_key key[2];
	__u8 key_id[2];
	__u8 pad[6];
};
TCPMIG_ASSERT_SIZE(struct key_ring, 40);

/* map `nodes`: array [MAX_NODES] by node id */
struct node_entry {
	struct ip_address address4; /* the node's own address: transfers are rewritten to it; zero = none */
	struct ip_address address6;
	struct key_ring keys;       /* node <-> switch */
	__u32 ifindex;              /* the switch's interface behind which the node is: a VPA source is accepted only there */
	__u8 role;                  /* enum node_role */
	__u8 down;                  /* a dispatcher that is dead: what is bound to it goes to another */
	__u8 pad[2];
};
TCPMIG_ASSERT_SIZE(struct node_entry, 80);

/* map `liveness`: array [MAX_NODES] by node id: what the heartbeats of a node say. Times are CLOCK_MONOTONIC of the switch, ns. */
struct node_liveness {
	__u64 heard_ns;  /* the last heartbeat; 0 = none since the maps were made */
	__u64 since_ns;  /* the first heartbeat of this instance */
	__u32 instance;  /* random, not 0; another one says that the process was started anew */
	__u8 draining;
	__u8 replaced;   /* another instance was heard before this one, since the maps were made */
	__u8 pad[2];
};
TCPMIG_ASSERT_SIZE(struct node_liveness, 24);

/* map `own_addresses`: hash ip_address -> __u32 1: the switch's own addresses on node-side interfaces (control datagrams) */
/* map `node_addresses`: hash ip_address -> __u32 node id: own addresses of nodes (control port closed to clients) */

/* map `maglev`: array [MAGLEV_SIZE] of __u32 node id of a dispatcher; 0 = there is none */
enum { MAGLEV_SIZE = 16381 /* prime */ };

/* map `settings`: array [1] */
struct switch_settings {
	__u64 closing_ns;
	__u64 idle_ns;
	__u64 recovering_until_ns; /* CLOCK_MONOTONIC: until then a flow that is not known may be one that was lost with a former table */
	__u32 boot;              /* random, not 0; new whenever the flow table was created anew */
	__u32 transfer_ms;       /* for so long a COMMIT is repeated */
	struct siphash_key hash; /* for Maglev's choice */
	__u8 vpa4_prefix[4];     /* 100.64.0.0; the low bits are node << 14 | service */
	__u8 vpa6_prefix[16];    /* fd7c::; bytes 12..13 node, 14..15 service */
	__u8 vpa4_prefix_length; /* 10 */
	__u8 pad[1];
	__be16 control_port;
};
TCPMIG_ASSERT_SIZE(struct switch_settings, 72);

/* VPA arithmetic, the same on both sides (docs/architecture.md):
 *   IPv4: prefix /10 | node (8 bits) << 14 | service (14 bits); a node's block is a /18
 *   IPv6: prefix /64, zero, node (16 bits) in bytes 12..13, service (16 bits) in bytes 14..15; a node's block is a /112 */
enum { VPA4_SERVICE_BITS = 14, VPA4_NODE_BITS = 8, VPA4_BLOCK_LENGTH = 18, VPA6_BLOCK_LENGTH = 112 };

/* map `replay`: array [MAX_NODES * MAX_LANES], index node * MAX_LANES + lane. Declared in the BPF source because it holds a
 * bpf_spin_lock; window of 512 message numbers (RFC 6479). */

/* Context of the program switch_tc_forget / switch_xdp_forget (SEC("syscall"), run by BPF_PROG_RUN with
 * ctx_in only; the answer stands in the same memory): removes one entry of `flows` if it has been dead for dead_ns. User space must not delete entries by itself: between its look and its deletion a
 * COMMIT may bring the entry back to life. */
struct forget_request {
	struct flow_key key;
	__u64 dead_ns;
	__u32 removed; /* out: 1 = the entry is gone */
	__u32 pad;
};
TCPMIG_ASSERT_SIZE(struct forget_request, 56);

/* Context of the program switch_tc_reap / switch_xdp_reap (as above): ends a connection whose node is dead. Whoever asks then
 * sends the client a RST with the number that it expects. */
struct reap_request {
	struct flow_key key;
	union flow_owner owner; /* the entry of `flows`, if this is still its word; with before_ns: owner.is.owner is a dispatcher */
	__u64 before_ns;        /* not 0: the binding of `affinity` to that dispatcher, if the client was heard of before, but not since */
	__u32 counter;          /* enum switch_counter: counted when it was done */
	__u32 reaped;           /* out: 1 = done */
	__u32 client_ack;       /* out: the number that the client expects next */
	__u32 pad;
};
TCPMIG_ASSERT_SIZE(struct reap_request, 72);

/* A node has sent data, FIN or RST on a flow that it does not own. Ring buffer `revocations`: `switch run` tells the node, by REVOKED. */
struct revocation {
	struct flow_key flow;
	__u64 seen_ns;    /* CLOCK_MONOTONIC */
	__u32 generation; /* what the switch knows of the flow; 0 = nothing */
	__u16 node;
	__u16 service;
};
TCPMIG_ASSERT_SIZE(struct revocation, 56);

/* Map `revoked`, LRU hash revoked_key -> revoked_value: who was told last, so that it is told once a generation. Evictable. */
struct revoked_key {
	struct flow_key flow;
	__u16 node;
	__u8 pad[6]; /* zero */
};
TCPMIG_ASSERT_SIZE(struct revoked_key, 48);
struct revoked_value {
	__u64 seen_ns;
	__u32 generation;
	__u32 pad;
};
TCPMIG_ASSERT_SIZE(struct revoked_value, 16);

/* per-CPU arrays `node_traffic` [MAX_NODES] and `service_traffic` [MAX_SERVICES] */
struct traffic {
	__u64 packets_in, bytes_in;   /* towards the node; IP bytes */
	__u64 packets_out, bytes_out; /* from the node as a VIP */
};
TCPMIG_ASSERT_SIZE(struct traffic, 32);

/* per-CPU array `counters` [SWITCH_COUNTER_MAX] of __u64. X(NAME, json_name, text). First the events, then the drops. */
#define SWITCH_COUNTERS(X) \
	X(SW_PASSED, "passed", "not for us: left to the kernel") \
	X(SW_TO_DISPATCHER, "to_dispatcher", "client packets to a dispatcher") \
	X(SW_TO_OWNER, "to_owner", "client packets to the owner of a transferred flow") \
	X(SW_FROM_NODE, "from_node", "packets of nodes sent on as the VIP") \
	X(SW_ICMP_TRANSLATED, "icmp_translated", "ICMP errors translated") \
	X(SW_SLOW_PATH, "slow_path", "packets given to the kernel for TTL, MTU or a missing neighbour") \
	X(SW_COMMITTED, "committed", "transfers committed") \
	X(SW_COMMIT_REPEATED, "commit_repeated", "repeats of an applied COMMIT forwarded again") \
	X(SW_TAKEN_BACK, "taken_back", "flows taken back by the previous owner") \
	X(SW_DATA_STEERED, "data_steered", "DATA parts steered to the new owner") \
	X(SW_GONE, "gone", "entries closed by GONE") \
	X(SW_GONE_LATE, "gone_late", "GONE for an entry that was closing, had ended or has gone on: nothing to do") \
	X(SW_RENEWED, "renewed", "leases renewed") \
	X(SW_ANNOUNCED, "announced", "entries made anew by RENEW, after the table was lost") \
	X(SW_HEARTBEAT, "heartbeat", "heartbeats of nodes answered") \
	X(SW_SPOKE, "spoke", "owners whose first packet was forwarded") \
	X(SW_HIDDEN_SACK, "hidden_sack", "data sent on without its SACK soon after a transfer: what that misses is still on its way to the new owner") \
	X(SW_CLOSED, "closed", "entries closed by the owner's FIN or RST") \
	X(SW_REOPENED, "reopened", "SYNs on a closing entry: a new connection") \
	X(SW_SYN_LIVE, "syn_live", "SYNs on a live entry, sent to the owner") \
	X(SW_REVOKED, "revoked", "nodes to be told that a flow is not theirs (any more)") \
	X(SW_REAPED_TRANSFER, "reaped_transfer", "clients reset: caught in a transfer whose server is gone or never opened it") \
	X(SW_RESET_DEAD_DISPATCHER, "reset_dead_dispatcher", "clients reset: their dispatcher has died") \
	X(SW_RESET_RESTARTED_DISPATCHER, "reset_restarted_dispatcher", "clients reset: their dispatcher was started anew") \
	X(SW_REFUSED_STALE, "refused_stale", "refused: stale generation") \
	X(SW_REFUSED_SPOKE, "refused_spoke", "refused: the owner has already spoken") \
	X(SW_REFUSED_NOT_ENTITLED, "refused_not_entitled", "refused: the sender does not own the flow") \
	X(SW_REFUSED_UNKNOWN_NODE, "refused_unknown_node", "refused: unknown target") \
	X(SW_REFUSED_UNKNOWN_SERVICE, "refused_unknown_service", "refused: unknown service") \
	X(SW_REFUSED_TABLE_FULL, "refused_table_full", "refused: flow table full") \
	X(SW_REFUSED_REPLAY, "refused_replay", "refused: replayed message number") \
	X(SW_REFUSED_OTHER_BOOT, "refused_other_boot", "refused: the transfer began before the table was lost") \
	X(SW_REFUSED_TOO_LARGE, "refused_too_large", "refused: larger than the path to the target carries") \
	X(SW_DROP_BAD_MESSAGE, "drop_bad_message", "control datagram malformed or of another version") \
	X(SW_DROP_BAD_TAG, "drop_bad_tag", "control datagram with a wrong tag or key") \
	X(SW_DROP_CONTROL_FROM_CLIENTS, "drop_control_from_clients", "control datagram, or what may hide one, from a client-side interface") \
	X(SW_DROP_TO_VPA, "drop_to_vpa", "client packet to a virtual private address") \
	X(SW_DROP_VPA_SOURCE, "drop_vpa_source", "virtual private source on an interface that is not its node's") \
	X(SW_DROP_VIP_SOURCE, "drop_vip_source", "packet that claims a VIP as its source") \
	X(SW_DROP_NO_SERVICE, "drop_no_service", "VIP, but no service on this port") \
	X(SW_DROP_NO_DISPATCHER, "drop_no_dispatcher", "no dispatcher is up") \
	X(SW_DROP_NOT_TCP, "drop_not_tcp", "VIP, but neither TCP nor a translatable ICMP error") \
	X(SW_DROP_FRAGMENT, "drop_fragment", "IP fragment for a VIP or from a VPA") \
	X(SW_DROP_MALFORMED, "drop_malformed", "headers truncated or wrong, or flags that TCP never sends") \
	X(SW_DROP_LATE_ACK, "drop_late_ack", "pure ACK of a former owner") \
	X(SW_DROP_NOT_OWNER, "drop_not_owner", "data, FIN or RST of a node that does not own the flow") \
	X(SW_DROP_RECOVERING, "drop_recovering", "packet or transfer of a flow that is not known, until the nodes have announced theirs") \
	X(SW_DROP_FOREIGN, "drop_foreign", "packet of an owner that has not spoken, from another connection of the same four-tuple") \
	X(SW_DROP_EARLY_SACK, "drop_early_sack", "acknowledgement with SACK soon after a transfer: what it misses is still on its way to the new owner") \
	X(SW_DROP_NO_ROUTE, "drop_no_route", "no route, or the kernel forbids forwarding") \
	X(SW_DROP_CONTENTION, "drop_contention", "the owner word changed too often while a packet was decided")

enum switch_counter {
#define X(name, json, text) name,
	SWITCH_COUNTERS(X)
#undef X
	SWITCH_COUNTER_MAX
};

TCPMIG_ABI_END
#endif
