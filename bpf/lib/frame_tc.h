/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* The tc backend: how a frame is read, changed and sent, over struct __sk_buff.
 *
 * Checksums go through the kernel's helpers, because an skb may carry a checksum that is not
 * finished (CHECKSUM_PARTIAL: the field holds the sum of the pseudo header only, the device adds
 * the rest) or one over the whole packet (CHECKSUM_COMPLETE), and a program cannot see which. A GSO
 * packet is rewritten once for all its segments. */
#ifndef TCPMIG_LIB_FRAME_TC_H
#define TCPMIG_LIB_FRAME_TC_H

#include <linux/bpf.h>
#include <linux/if_packet.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_helpers.h>

#include "lib/parse.h"
#include "lib/rewrite.h"

typedef struct __sk_buff frame_context;

enum {
	FRAME_TO_KERNEL =
	    TC_ACT_UNSPEC, /* also TCX_NEXT: the next program on the hook, else the stack */
	FRAME_DROP = TC_ACT_SHOT,
	FRAME_CAN_RESOLVE = 1, /* bpf_redirect_neigh */
};

enum frame_csum {
	CSUM_DATA = 0,
	CSUM_PSEUDO = BPF_F_PSEUDO_HDR,  /* the change is in the pseudo header (an address) */
	CSUM_UDP = BPF_F_MARK_MANGLED_0, /* 0 means "no checksum" */
};

static __always_inline __u32 frame_ifindex(frame_context *ctx)
{
	return ctx->ifindex;
}

/* Parses the frame. Frames that are not for this host's MAC are not ours to route. A VLAN tag is
 * beside the data here: what carries one belongs to the VLAN's own interface. */
static __noinline int frame_read(frame_context *ctx, struct packet *packet)
{
	enum parse_result result;

	if (!packet || ctx->pkt_type != PACKET_HOST || ctx->vlan_present)
		return PARSE_NOT_IP;
	result =
	    parse_ethernet((void *)(long)ctx->data, (void *)(long)ctx->data_end, ctx->len, packet);
	if (result != PARSE_SHORT)
		return result;
	if (bpf_skb_pull_data(ctx, ctx->len < PARSE_PULL ? ctx->len : PARSE_PULL))
		return PARSE_NOT_IP;
	result =
	    parse_ethernet((void *)(long)ctx->data, (void *)(long)ctx->data_end, ctx->len, packet);
	return parse_given_up(result, packet);
}

/* IP bytes of the largest packet this becomes on the wire. */
static __always_inline __u32 frame_segment(frame_context *ctx, const struct packet *packet)
{
	if (ctx->gso_size)
		return packet->l4 - ETH_HLEN + packet->tcp_header + ctx->gso_size;
	return packet->length;
}

static __always_inline long frame_load(frame_context *ctx, __u32 offset, void *to, __u32 length)
{
	return bpf_skb_load_bytes(ctx, offset, to, length);
}

static __always_inline long frame_store(frame_context *ctx, __u32 offset, const void *from,
					__u32 length)
{
	return bpf_skb_store_bytes(ctx, offset, from, length, 0);
}

static __always_inline long frame_csum_ip(frame_context *ctx, __u32 offset, __u64 change)
{
	return bpf_l3_csum_replace(ctx, offset, 0, csum_fold_32(change), 0);
}

/* `flags`: enum frame_csum. */
static __always_inline long frame_csum(frame_context *ctx, __u8 family, __u32 offset, __u64 change,
				       __u64 flags)
{
	__u32 diff = csum_fold_32(change);
	long error = bpf_l4_csum_replace(ctx, offset, 0, diff, flags);

	/* With CHECKSUM_COMPLETE the helper takes a change of the pseudo header out of the sum over
	 * the packet: right for IPv4, where the header's own checksum has made up for the address,
	 * wrong for IPv6, which has none. Linux 6.16 has a flag for it. */
	if (!error && family == FAMILY_IPV6 && (flags & CSUM_PSEUDO))
		bpf_csum_update(ctx, diff);
	return error;
}

static __always_inline long frame_decrement_ttl(frame_context *ctx, const struct packet *packet)
{
	__u8 ttl = packet->ttl - 1;

	if (packet->family == FAMILY_IPV4) {
		frame_csum_ip(ctx, ETH_HLEN + __builtin_offsetof(struct iphdr, check),
			      CSUM_CHANGE_TTL);
		return bpf_skb_store_bytes(ctx, ETH_HLEN + __builtin_offsetof(struct iphdr, ttl),
					   &ttl, 1, 0);
	}
	return bpf_skb_store_bytes(ctx, ETH_HLEN + __builtin_offsetof(struct ipv6hdr, hop_limit),
				   &ttl, 1, BPF_F_RECOMPUTE_CSUM);
}

/* Where the address to be replaced stands. */
static __always_inline __u32 frame_address_offset(const struct packet *packet, bool outward)
{
	if (packet->family == FAMILY_IPV4)
		return ETH_HLEN + (outward ? __builtin_offsetof(struct iphdr, saddr)
					   : __builtin_offsetof(struct iphdr, daddr));
	return ETH_HLEN + (outward ? __builtin_offsetof(struct ipv6hdr, saddr)
				   : __builtin_offsetof(struct ipv6hdr, daddr));
}

/* Replaces the source (outward) or the destination address, in the IP header and in the transport
 * checksum at `check`; check 0: the transport's checksum does not cover addresses (ICMP over IPv4).
 */
static __always_inline long frame_replace_address(frame_context *ctx, const struct packet *packet,
						  bool outward, const struct ip_address *to,
						  __u32 check, __u64 flags)
{
	const struct ip_address *from = outward ? &packet->source : &packet->destination;
	__u64 change = csum_change_address(packet->family, from, to);
	__u32 offset = frame_address_offset(packet, outward);

	if (check && frame_csum(ctx, packet->family, check, change, flags | CSUM_PSEUDO))
		return -1;
	if (packet->family == FAMILY_IPV6)
		return frame_store(ctx, offset, to, 16);
	if (frame_csum_ip(ctx, ETH_HLEN + __builtin_offsetof(struct iphdr, check), change))
		return -1;
	return frame_store(ctx, offset, &to->bytes[12], 4);
}

/* The NAT of a TCP segment: one address, one port; and, for a `hop`, the TTL. */
static __always_inline long frame_rewrite_tcp(frame_context *ctx, const struct packet *packet,
					      bool outward, const struct ip_address *to,
					      __be16 port, bool hop)
{
	__be16 from = outward ? packet->source_port : packet->destination_port;
	__u32 check = packet->l4 + __builtin_offsetof(struct tcphdr, check);
	__u32 offset = packet->l4 + (outward ? __builtin_offsetof(struct tcphdr, source)
					     : __builtin_offsetof(struct tcphdr, dest));

	if (frame_replace_address(ctx, packet, outward, to, check, 0) ||
	    (hop && frame_decrement_ttl(ctx, packet)))
		return -1;
	if (from == port)
		return 0;
	if (frame_csum(ctx, packet->family, check, csum_change_16(from, port), CSUM_DATA))
		return -1;
	return frame_store(ctx, offset, &port, sizeof(port));
}

/* Sends the frame on to the next hop that `fib` found. */
static __always_inline int frame_send(frame_context *ctx, const struct bpf_fib_lookup *fib)
{
	__u8 macs[2 * ETH_ALEN];

	__builtin_memcpy(macs, fib->dmac, ETH_ALEN);
	__builtin_memcpy(macs + ETH_ALEN, fib->smac, ETH_ALEN);
	if (bpf_skb_store_bytes(ctx, 0, macs, sizeof(macs), 0))
		return FRAME_DROP;
	return bpf_redirect(fib->ifindex, 0);
}

/* The same when the next hop's MAC is not known: the kernel asks for it and queues the packet
 * meanwhile. */
static __always_inline int frame_send_unresolved(const struct bpf_fib_lookup *fib)
{
	struct bpf_redir_neigh next = {.nh_family = fib->family};

	address_copy_words(next.ipv6_nh, fib->ipv6_dst);
	return bpf_redirect_neigh(fib->ifindex, &next, sizeof(next), 0);
}

/* Back out of the interface on which it came. */
static __always_inline int frame_return(frame_context *ctx)
{
	return bpf_redirect(ctx->ifindex, 0);
}

#endif
