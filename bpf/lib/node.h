/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* What the programs of a node share: maps (pinned, so that both objects use the same ones), counters, a look at a packet. */
#ifndef TCPMIG_LIB_NODE_H
#define TCPMIG_LIB_NODE_H

#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "lib/parse.h"
#include "lib/vpa.h"
#include "shared/node_maps.h"

/* The verdict that lets the next program on the hook have the packet: TCX_NEXT of a TCX link, TC_ACT_UNSPEC of clsact. */
#define NEXT_PROGRAM TC_ACT_UNSPEC

enum {
	NODE_EVENTS_BYTES = 256 * 1024,
	TOMBSTONES_DEFAULT = 262144, /* limits.tombstones */
	SOCKET_ESTABLISHED = 1,      /* TCP_ESTABLISHED and so on of the kernel's enum */
	SOCKET_LISTEN = 10,
	SOCKET_TIME_WAIT = 6,
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct node_settings);
} node_settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, NODE_COUNTER_MAX);
	__type(key, __u32);
	__type(value, __u64);
} node_counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, NODE_EVENTS_BYTES);
} node_events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, TOMBSTONES_DEFAULT);
	__type(key, struct flow_key);
	__type(value, struct tombstone);
} tombstones SEC(".maps");

static inline void count(__u32 counter)
{
	__u64 *value = bpf_map_lookup_elem(&node_counters, &counter);

	if (value)
		*value += 1;
}

static inline struct node_settings *own_settings(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&node_settings, &zero);
}

#define PACKET_START(skb) ((void *)(long)(skb)->data)
#define PACKET_END(skb)   ((void *)(long)(skb)->data_end)

/* Parses a frame of Ethernet (`ethernet`) or of a TUN; `ethernet` is a constant. */
PARSE_INLINE enum parse_result look_at(struct __sk_buff *skb, bool ethernet, struct packet *p)
{
	if (ethernet)
		return parse_ethernet(PACKET_START(skb), PACKET_END(skb), skb->len, p);
	return parse_ip(PACKET_START(skb), PACKET_END(skb), 0, skb->len, p);
}

/* The same; when the headers lie in fragments of the buffer, pulls them together and looks again. */
PARSE_INLINE bool see_packet(struct __sk_buff *skb, bool ethernet, struct packet *p)
{
	enum parse_result result = look_at(skb, ethernet, p);

	if (result == PARSE_SHORT) {
		bpf_skb_pull_data(skb, skb->len < PARSE_PULL ? skb->len : PARSE_PULL);
		result = parse_given_up(look_at(skb, ethernet, p), p);
	}
	return result == PARSE_OK;
}

/* The socket for (client, client_port) -> (address, port), or the listener that would take it. Constant sizes keep the verifier content. */
static inline struct bpf_sock *find_socket(struct __sk_buff *skb, __u8 family,
					   const struct ip_address *client, __be16 client_port,
					   const struct ip_address *address, __be16 port)
{
	struct bpf_sock_tuple tuple KEY_ALIGNED = {};

	if (family == FAMILY_IPV4) {
		tuple.ipv4.saddr = address_v4(client);
		tuple.ipv4.daddr = address_v4(address);
		tuple.ipv4.sport = client_port;
		tuple.ipv4.dport = port;
		return bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	}
	address_copy_words(tuple.ipv6.saddr, client);
	address_copy_words(tuple.ipv6.daddr, address);
	tuple.ipv6.sport = client_port;
	tuple.ipv6.dport = port;
	return bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
}

/* Clang may turn a second read of socket->state into arithmetic on the pointer, which the verifier refuses for a sock_common. */
static inline __u32 socket_state(const struct bpf_sock *socket)
{
	__u32 state;

	asm volatile("%0 = *(u32 *)(%1 + %2)"
		     : "=r"(state)
		     : "r"(socket), "i"(__builtin_offsetof(struct bpf_sock, state)));
	return state;
}

#endif
