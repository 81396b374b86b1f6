/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* The XDP backend: the same functions as frame_tc.h over struct xdp_md. Here a frame is what came
 * over the wire: its checksums are complete (on veth that takes `ethtool -K PEER tx off`), it is no
 * larger than the MTU, and nobody has looked at its MAC address yet. */
#ifndef TCPMIG_LIB_FRAME_XDP_H
#define TCPMIG_LIB_FRAME_XDP_H

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "lib/parse.h"
#include "lib/rewrite.h"

typedef struct xdp_md frame_context;

enum {
	FRAME_TO_KERNEL = XDP_PASS,
	FRAME_DROP = XDP_DROP,
	FRAME_CAN_RESOLVE = 0,
};

enum frame_csum { CSUM_DATA = 0, CSUM_PSEUDO = 1, CSUM_UDP = 2 };

static __always_inline __u32 frame_ifindex(frame_context *ctx)
{
	return ctx->ingress_ifindex;
}

static __noinline int frame_read(frame_context *ctx, struct packet *packet)
{
	const void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	int result;

	if (!packet || data + ETH_HLEN > end ||
	    (*(const __u8 *)data & 1)) /* broadcast or multicast: not to be routed */
		return PARSE_NOT_IP;
	result = parse_ethernet(data, end, end - data, packet);
	return result == PARSE_SHORT ? PARSE_NOT_IP : result;
}

static __always_inline __u32 frame_segment(frame_context *ctx, const struct packet *packet)
{
	(void)ctx;
	return packet->length;
}

static __always_inline long frame_load(frame_context *ctx, __u32 offset, void *to, __u32 length)
{
	return bpf_xdp_load_bytes(ctx, offset, to, length);
}

static __always_inline long frame_store(frame_context *ctx, __u32 offset, const void *from,
					__u32 length)
{
	return bpf_xdp_store_bytes(ctx, offset, (void *)from, length);
}

static __always_inline long frame_csum_ip(frame_context *ctx, __u32 offset, __u64 change)
{
	__u16 check;

	if (bpf_xdp_load_bytes(ctx, offset, &check, sizeof(check)))
		return -1;
	check = csum_apply(check, change);
	return bpf_xdp_store_bytes(ctx, offset, &check, sizeof(check));
}

static __always_inline long frame_csum(frame_context *ctx, __u8 family, __u32 offset, __u64 change,
				       __u64 flags)
{
	__u16 check;

	(void)family;
	if (bpf_xdp_load_bytes(ctx, offset, &check, sizeof(check)))
		return -1;
	check = flags & CSUM_UDP ? csum_apply_udp(check, change) : csum_apply(check, change);
	return bpf_xdp_store_bytes(ctx, offset, &check, sizeof(check));
}

static __always_inline long frame_decrement_ttl(frame_context *ctx, const struct packet *packet)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

	if (packet->family == FAMILY_IPV4) {
		struct iphdr *ip = data + ETH_HLEN;

		if ((void *)(ip + 1) > end)
			return -1;
		ip->ttl--;
		ip->check = csum_apply(ip->check, CSUM_CHANGE_TTL);
	} else {
		struct ipv6hdr *ip = data + ETH_HLEN;

		if ((void *)(ip + 1) > end)
			return -1;
		ip->hop_limit--;
	}
	return 0;
}

/* Replaces the source (outward) or the destination address in the IP header and its checksum; and, for a `hop`, decrements the TTL. */
static __always_inline long frame_replace_ip(frame_context *ctx, const struct packet *packet,
					     bool outward, const struct ip_address *to,
					     __u64 change, bool hop)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

	if (packet->family == FAMILY_IPV4) {
		struct iphdr *ip = data + ETH_HLEN;

		if ((void *)(ip + 1) > end)
			return -1;
		*(outward ? &ip->saddr : &ip->daddr) = address_v4(to);
		ip->ttl -= hop;
		ip->check = csum_apply(ip->check, change + (hop ? CSUM_CHANGE_TTL : 0));
	} else {
		struct ipv6hdr *ip = data + ETH_HLEN;

		if ((void *)(ip + 1) > end)
			return -1;
		address_copy(outward ? &ip->saddr : &ip->daddr, to);
		ip->hop_limit -= hop;
	}
	return 0;
}

/* The same, and in the transport checksum at `check`; check 0: it does not cover addresses (ICMP
 * over IPv4). */
static __always_inline long frame_replace_address(frame_context *ctx, const struct packet *packet,
						  bool outward, const struct ip_address *to,
						  __u32 check, __u64 flags)
{
	const struct ip_address *from = outward ? &packet->source : &packet->destination;
	__u64 change = csum_change_address(packet->family, from, to);

	if (check && frame_csum(ctx, packet->family, check, change, flags))
		return -1;
	return frame_replace_ip(ctx, packet, outward, to, change, false);
}

/* The NAT of a TCP segment: one address, one port; and, for a `hop`, the TTL. The hot path. */
static __always_inline long frame_rewrite_tcp(frame_context *ctx, const struct packet *packet,
					      bool outward, const struct ip_address *to,
					      __be16 port, bool hop)
{
	const struct ip_address *from = outward ? &packet->source : &packet->destination;
	__u64 change = csum_change_address(packet->family, from, to);
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct tcphdr *tcp = data + (packet->l4 & PACKET_OFFSET_MASK);

	if (frame_replace_ip(ctx, packet, outward, to, change, hop) || (void *)(tcp + 1) > end)
		return -1;
	if (outward) {
		change += csum_change_16(tcp->source, port);
		tcp->source = port;
	} else {
		change += csum_change_16(tcp->dest, port);
		tcp->dest = port;
	}
	tcp->check = csum_apply(tcp->check, change);
	return 0;
}

static __always_inline int frame_send(frame_context *ctx, const struct bpf_fib_lookup *fib)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *ethernet = data;

	if ((void *)(ethernet + 1) > end)
		return FRAME_DROP;
	__builtin_memcpy(ethernet->h_dest, fib->dmac, ETH_ALEN);
	__builtin_memcpy(ethernet->h_source, fib->smac, ETH_ALEN);
	return bpf_redirect(fib->ifindex, 0);
}

static __always_inline int frame_send_unresolved(const struct bpf_fib_lookup *fib)
{
	(void)fib; /* route_find() says ROUTE_KERNEL instead */
	return FRAME_DROP;
}

/* Back out of the interface on which it came. Not XDP_TX: on veth that takes an XDP program on the
 * peer too, where a redirect is content with NAPI (GRO on). */
static __always_inline int frame_return(frame_context *ctx)
{
	return bpf_redirect(ctx->ingress_ifindex, 0);
}

#endif
