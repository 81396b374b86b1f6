/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* ICMP errors: they quote the packet that caused them, and who gets the error must recognise the
 * quote as its own. So the quote is translated back along with the outer header: for an error to a
 * VIP the quoted source, for one from a node the quoted destination.
 *
 * Only 8 bytes of the quoted TCP header need be there (RFC 792); its checksum is kept right if it
 * is. */
#ifndef TCPMIG_SWITCH_CORE_ICMP_H
#define TCPMIG_SWITCH_CORE_ICMP_H

#include "switch_core_tcp.h"

/* The quoted packet, offsets from the start of the frame. */
struct quote {
	struct ip_address source;
	struct ip_address destination;
	__be16 source_port;
	__be16 destination_port;
	__u16 l3;
	__u16 l4;
	__u8 has_checksum; /* of TCP */
	__u8 pad[7];
} __attribute__((aligned(8)));

static __always_inline bool is_icmp_error(const struct packet *packet)
{
	__u8 type = packet->icmp_type;

	if (packet->family ==
	    FAMILY_IPV4) /* destination unreachable, time exceeded, parameter problem */
		return packet->protocol == IPPROTO_ICMP && (type == 3 || type == 11 || type == 12);
	return packet->protocol == IPPROTO_ICMPV6 && type >= 1 &&
	       type <= 4; /* RFC 4443, 3.1 to 3.4 */
}

static __always_inline __u32 quote_ipv4(frame_context *ctx, struct quote *quote)
{
	struct iphdr ip;

	if (frame_load(ctx, quote->l3, &ip, sizeof(ip)))
		return SW_DROP_MALFORMED;
	if (ip.version != 4 || ip.ihl < 5)
		return SW_DROP_MALFORMED;
	if (ip.protocol != IPPROTO_TCP || (ip.frag_off & __builtin_bswap16(0x1fff)))
		return SW_DROP_NOT_TCP;
	quote->l4 = quote->l3 + ip.ihl * 4;
	address_from_v4(&quote->source, ip.saddr);
	address_from_v4(&quote->destination, ip.daddr);
	return 0;
}

static __always_inline __u32 quote_ipv6(frame_context *ctx, struct quote *quote)
{
	struct ipv6hdr ip;

	if (frame_load(ctx, quote->l3, &ip, sizeof(ip)) || ip.version != 6)
		return SW_DROP_MALFORMED;
	if (ip.nexthdr !=
	    IPPROTO_TCP) /* extension headers in quotes are not walked: our side sends none */
		return SW_DROP_NOT_TCP;
	quote->l4 = quote->l3 + sizeof(ip);
	address_copy_words(&quote->source, &ip.saddr);
	address_copy_words(&quote->destination, &ip.daddr);
	return 0;
}

/* Reads the quote. 0, or the reason to drop. */
static __noinline __u32 quote_read(frame_context *ctx, const struct packet *packet,
				   struct quote *quote)
{
	__u32 end, reason;
	__be16 ports[2];

	if (!packet || !quote)
		return SW_DROP_MALFORMED;
	__builtin_memset(quote, 0, sizeof(*quote));
	end = ETH_HLEN + packet->length;
	quote->l3 = packet->l4 + ICMP_HEADER_SIZE;
	reason = packet->family == FAMILY_IPV4 ? quote_ipv4(ctx, quote) : quote_ipv6(ctx, quote);
	if (reason)
		return reason;
	if (quote->l4 + 8u > end || frame_load(ctx, quote->l4, ports, sizeof(ports)))
		return SW_DROP_MALFORMED;
	quote->source_port = ports[0];
	quote->destination_port = ports[1];
	quote->has_checksum = quote->l4 + __builtin_offsetof(struct tcphdr, check) + 2u <= end;
	return 0;
}

/* Replaces address and port inside the quote. Returns by how much the ICMP checksum changes,
 * negative on error. */
static __always_inline __s64 quote_rewrite(frame_context *ctx, const struct packet *packet,
					   const struct quote *quote,
					   const struct steering *steering)
{
	const struct ip_address *from = steering->outward ? &quote->destination : &quote->source;
	bool v4 = packet->family == FAMILY_IPV4, destination = steering->outward;
	__be16 port = destination ? quote->destination_port : quote->source_port;
	__u64 address = csum_change_address(packet->family, from, &steering->address);
	__u64 ports = csum_change_16(port, steering->port), change = address + ports;
	__u32 at_ip = quote->l3 + __builtin_offsetof(struct iphdr, check);
	__u32 at_tcp = quote->l4 + __builtin_offsetof(struct tcphdr, check), at;
	__u16 check, after;

	if (v4) {
		if (frame_load(ctx, at_ip, &check, 2))
			return -1;
		after = csum_apply(check, address);
		change += csum_change_16(check, after);
		if (frame_store(ctx, at_ip, &after, 2))
			return -1;
	}
	if (quote->has_checksum) {
		if (frame_load(ctx, at_tcp, &check, 2))
			return -1;
		after = csum_apply(check, address + ports);
		change += csum_change_16(check, after);
		if (frame_store(ctx, at_tcp, &after, 2))
			return -1;
	}
	at = quote->l3 + (v4 ? (destination ? 16 : 12) : (destination ? 24 : 8));
	if (v4 ? frame_store(ctx, at, &steering->address.bytes[12], 4)
	       : frame_store(ctx, at, &steering->address, 16))
		return -1;
	if (frame_store(ctx, quote->l4 + (destination ? 2 : 0), &steering->port, 2))
		return -1;
	return (__s64)csum_fold_32(change);
}

static __noinline int icmp_rewrite(frame_context *ctx, const struct packet *packet,
				   const struct quote *quote, const struct steering *steering)
{
	__u32 check = packet ? packet->l4 + 2 : 0;
	__s64 change;

	if (!packet || !quote || !steering)
		return -1;
	change = quote_rewrite(ctx, packet, quote, steering);
	if (change < 0 || frame_csum(ctx, packet->family, check, change, CSUM_DATA))
		return -1;
	/* ICMPv6's checksum covers the outer addresses, ICMP's does not (RFC 4443, 2.3) */
	return frame_replace_address(ctx, packet, steering->outward, &steering->address,
				     packet->family == FAMILY_IPV6 ? check : 0, 0);
}

static __always_inline int forward_icmp(frame_context *ctx, const struct packet *packet,
					const struct quote *quote, const struct steering *steering,
					enum route route, const struct bpf_fib_lookup *fib)
{
	if (icmp_rewrite(ctx, packet, quote, steering))
		return drop(SW_DROP_MALFORMED);
	count_forwarded(packet, steering);
	return send(ctx, packet, route, fib);
}

/* An ICMP packet to a VIP. */
static __noinline int icmp_inward(frame_context *ctx, const struct packet *packet)
{
	const struct switch_settings *settings = switch_settings();
	struct steering steering = {.counter = SW_ICMP_TRANSLATED};
	struct flow_key key KEY_ALIGNED;
	struct bpf_fib_lookup fib;
	union flow_owner owner = {};
	struct quote quote;
	enum route route;
	__u32 reason;
	__s32 service;
	__u64 now = coarse_now();

	if (!settings || !packet || !is_icmp_error(packet))
		return drop(SW_DROP_NOT_TCP);
	reason = quote_read(ctx, packet, &quote);
	if (reason)
		return drop(reason);
	service = vip_lookup(&packet->destination, quote.source_port);
	if (service <= 0 || !address_equal(&quote.source, &packet->destination))
		return drop(SW_DROP_NOT_TCP);
	steering.service = service;
	flow_key_of(&key, packet->family, &quote.destination, &quote.source, quote.destination_port,
		    quote.source_port);
	if (flow_find(settings, &key, now, &owner)) {
		steering.node = owner.is.owner;
		steering.port = __builtin_bswap16(owner.is.port);
	} else {
		steering.node = pick_dispatcher(&key, service, now, NULL);
		if (!steering.node)
			return drop(SW_DROP_NO_DISPATCHER);
		steering.port = quote.source_port;
	}
	vpa_encode(settings, packet->family, steering.node, service, &steering.address);
	route = steering_route(ctx, packet, &steering, &fib);
	if (route == ROUTE_UNTOUCHED)
		return leave_to_kernel(SW_SLOW_PATH);
	if (route == ROUTE_NONE)
		return drop(SW_DROP_NO_ROUTE);
	return forward_icmp(ctx, packet, &quote, &steering, route, &fib);
}

/* Is it an error that a router on the inside (or a node, by its own address) sends about a packet to
 * a VPA? */
static __noinline int quotes_vpa(frame_context *ctx, const struct packet *packet)
{
	const struct switch_settings *settings = switch_settings();
	struct quote quote;

	if (!settings || !packet || !is_icmp_error(packet) || quote_read(ctx, packet, &quote))
		return 0;
	return vpa_contains(settings, packet->family, &quote.destination);
}

/* An ICMP packet from a VPA, or one that quotes_vpa(). It goes out as the VIP's if the quoted packet
 * went to the owner. From the owner itself it counts as having spoken; a router's word does not: the
 * owner may still be silent. */
static __noinline int icmp_outward(frame_context *ctx, const struct packet *packet, bool router)
{
	const struct switch_settings *settings = switch_settings();
	struct steering steering = {.counter = SW_ICMP_TRANSLATED};
	struct flow_key key KEY_ALIGNED;
	struct bpf_fib_lookup fib;
	union flow_owner owner = {};
	struct flow_value *flow;
	struct quote quote;
	enum route route;
	__u32 reason;

	if (!settings || !packet)
		return FRAME_TO_KERNEL;
	reason = is_icmp_error(packet) ? quote_read(ctx, packet, &quote) : SW_DROP_NOT_TCP;
	if (!reason && !router && !address_equal(&quote.destination, &packet->source))
		reason = SW_DROP_NOT_TCP;
	if (!reason)
		reason = outward_begin(ctx, settings, packet, &quote.destination, &steering);
	if (reason)
		return drop(reason);
	flow_key_of(&key, packet->family, &quote.source, &steering.address, quote.source_port,
		    steering.port);
	flow = flow_find(settings, &key, coarse_now(), &owner);
	reason = speaker_check(&key, packet, steering.node, quote.destination_port, flow, owner);
	if (reason)
		return drop(reason);
	route = steering_route(ctx, packet, &steering, &fib);
	if (route == ROUTE_UNTOUCHED)
		return leave_to_kernel(SW_SLOW_PATH);
	if (route == ROUTE_NONE)
		return drop(SW_DROP_NO_ROUTE);
	if (flow && !router)
		reason = speak(flow, &key, packet, steering.node, quote.destination_port, &owner);
	if (reason)
		return drop(reason);
	return forward_icmp(ctx, packet, &quote, &steering, route, &fib);
}

#endif
