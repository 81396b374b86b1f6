/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* A COMMIT becomes, in place, the TCP segment that its snapshot describes. */
#ifndef TCPMIG_RESUME_SEGMENT_H
#define TCPMIG_RESUME_SEGMENT_H

#include "lib/node.h"
#include "shared/wire.h"

enum {
	TIMESTAMPS_SIZE = 12, /* NOP NOP TIMESTAMPS(10) */
	PLAIN_IPV4 =
	    ETH_HLEN + sizeof(struct iphdr), /* where the transport begins without options */
	PLAIN_IPV6 = ETH_HLEN + sizeof(struct ipv6hdr),
};

struct segment {
	struct tcphdr tcp;
	__u8 options[TIMESTAMPS_SIZE];
};

static inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* Sum of an address; IPv4: of its four bytes only. */
static inline __u64 address_sum(__u8 family, const struct ip_address *address)
{
	const address_word *word = (const address_word *)address;

	if (family == FAMILY_IPV4)
		return word[3];
	return (__u64)word[0] + word[1] + word[2] + word[3];
}

static inline __u32 segment_size(const struct wire_header *h)
{
	return sizeof(struct tcphdr) + (h->options & WIRE_OPT_TIMESTAMPS ? TIMESTAMPS_SIZE : 0);
}

/* The child measures its round-trip time, and so its retransmission timeout, by the echoed timestamp: now minus what it was. */
static inline __u32 echoed_timestamp(const struct wire_header *h)
{
	__u32 rtt = bpf_ntohl(h->srtt_us);

	return bpf_ntohl(h->tsval_now) - (h->options & WIRE_OPT_USEC_TS ? rtt : rtt / 1000);
}

static inline void make_segment(const struct wire_header *h, const struct flow_key *flow,
				struct segment *segment)
{
	__u32 window =
	    bpf_ntohl(h->snd_wnd) >> (h->options & WIRE_OPT_WSCALE ? h->snd_wscale & 15 : 0);
	__u32 size = segment_size(h);
	__u64 sum;

	__builtin_memset(segment, 0, sizeof(*segment));
	segment->tcp.source = h->client_port;
	segment->tcp.dest = h->target_port;
	segment->tcp.seq = h->payload_seq;
	segment->tcp.ack_seq = h->snd_nxt;
	segment->tcp.doff = size / 4;
	segment->tcp.ack = 1;
	segment->tcp.psh = 1;
	segment->tcp.fin = !!(h->flags & WIRE_FLAG_CLIENT_FIN);
	segment->tcp.window = bpf_htons(window > 0xffff ? 0xffff : window);
	if (h->options & WIRE_OPT_TIMESTAMPS) {
		segment->options[0] = segment->options[1] = 1; /* NOP */
		segment->options[2] = 8;
		segment->options[3] = 10;
		*(__be32 *)(segment->options + 4) = h->ts_recent;
		*(__be32 *)(segment->options + 8) = bpf_htonl(echoed_timestamp(h));
	}
	/* payload_csum is the sum of the payload as it lies in memory: it needs no swap */
	sum = h->payload_csum + address_sum(flow->family, &flow->client) +
	      address_sum(flow->family, &flow->vip);
	sum += bpf_htonl(IPPROTO_TCP) + (__u64)bpf_htonl(size + bpf_ntohl(h->payload_length));
	for (__u32 i = 0; i < sizeof(*segment) / 4; i++)
		sum += ((const address_word *)segment)[i];
	segment->tcp.check = ~fold(sum);
}

static inline long store_ipv4(struct __sk_buff *skb, const struct flow_key *flow, __u32 length)
{
	struct iphdr ip;
	__u64 sum = 0;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return -EFAULT;
	ip.protocol = IPPROTO_TCP;
	ip.tot_len = bpf_htons(sizeof(ip) + length);
	ip.saddr = address_v4(&flow->client);
	ip.daddr = address_v4(&flow->vip);
	ip.check = 0;
	for (__u32 i = 0; i < sizeof(ip) / 4; i++)
		sum += ((const address_word *)&ip)[i];
	ip.check = ~fold(sum);
	return bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), BPF_F_RECOMPUTE_CSUM);
}

static inline long store_ipv6(struct __sk_buff *skb, const struct flow_key *flow, __u32 length)
{
	struct ipv6hdr ip;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return -EFAULT;
	ip.nexthdr = IPPROTO_TCP;
	ip.payload_len = bpf_htons(length);
	address_copy_words(&ip.saddr, &flow->client);
	address_copy_words(&ip.daddr, &flow->vip);
	return bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), BPF_F_RECOMPUTE_CSUM);
}

/* Turns the datagram into the segment. The shrink takes the bytes behind the IP header away; it also ends a checksum that the sender
 * left to hardware (CHECKSUM_PARTIAL on veth): from here on the kernel verifies the one made here. */
static inline long convert(struct __sk_buff *skb, const struct wire_header *h,
			   const struct flow_key *flow)
{
	__u32 size = segment_size(h), length = size + bpf_ntohl(h->payload_length);
	__s32 surplus = sizeof(struct udphdr) + sizeof(*h) - size;
	struct segment segment KEY_ALIGNED;
	__u32 l4;
	long error;

	make_segment(h, flow, &segment);
	error = bpf_skb_adjust_room(skb, -surplus, BPF_ADJ_ROOM_NET, 0);
	if (error)
		return error;
	error = flow->family == FAMILY_IPV4 ? store_ipv4(skb, flow, length)
					    : store_ipv6(skb, flow, length);
	if (error)
		return error;
	l4 = flow->family == FAMILY_IPV4 ? PLAIN_IPV4 : PLAIN_IPV6;
	if (size == sizeof(segment))
		return bpf_skb_store_bytes(skb, l4, &segment, sizeof(segment),
					   BPF_F_RECOMPUTE_CSUM | BPF_F_INVALIDATE_HASH);
	return bpf_skb_store_bytes(skb, l4, &segment, sizeof(segment.tcp),
				   BPF_F_RECOMPUTE_CSUM | BPF_F_INVALIDATE_HASH);
}

#endif
