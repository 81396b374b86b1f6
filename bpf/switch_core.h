/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* The switch: one decision for both backends. The backend's header (lib/frame_tc.h or
 * lib/frame_xdp.h) comes first and gives frame_context and the frame_* functions; this file and
 * what it includes do the rest.
 *
 *      parse -> control datagram? -> source a VPA? -> destination a VPA? -> of an owned connection? ->
 * destination a VIP? -> else the kernel's
 *
 * Everything is decided on values; a packet is changed only when its next hop is known, and state
 * changes only when the packet will go out. */
#ifndef TCPMIG_SWITCH_CORE_H
#define TCPMIG_SWITCH_CORE_H

#include "switch_core_control.h"
#include "switch_core_icmp.h"
#include "switch_core_tcp.h"

static __always_inline bool is_control(const struct switch_settings *settings,
				       const struct packet *packet)
{
	return packet->protocol == IPPROTO_UDP &&
	       packet->destination_port == settings->control_port &&
	       !(packet->state & PACKET_NO_TRANSPORT);
}

/* May it be a control datagram although its port was not seen? The node's kernel walks what
 * parse_extensions() has stopped at. A later fragment is none: the ports are in the first one. */
static __always_inline bool may_hide_control(const struct packet *packet)
{
	__u8 protocol = packet->protocol;

	if (packet->family == FAMILY_IPV6 &&
	    (protocol == IPPROTO_HOPOPTS || protocol == IPPROTO_ROUTING ||
	     protocol == IPPROTO_FRAGMENT || protocol == IPPROTO_DSTOPTS))
		return true;
	return (packet->state & PACKET_MALFORMED) &&
	       (protocol == IPPROTO_UDP || (packet->state & PACKET_NO_TRANSPORT));
}

static __always_inline bool is_own_address(const struct ip_address *address)
{
	return bpf_map_lookup_elem(&own_addresses, address);
}

static __always_inline bool is_node_address(const struct ip_address *address)
{
	return bpf_map_lookup_elem(&node_addresses, address);
}

/* A packet to a VIP, whatever it holds. `service` as vip_lookup() says. */
static __always_inline int to_vip(frame_context *ctx, const struct packet *packet, __u32 service)
{
	if (packet->state & PACKET_FRAGMENT)
		return drop(SW_DROP_FRAGMENT);
	if (packet->state & PACKET_MALFORMED)
		return drop(SW_DROP_MALFORMED);
	if (packet->protocol == IPPROTO_ICMP || packet->protocol == IPPROTO_ICMPV6)
		return icmp_inward(ctx, packet);
	if (packet->protocol != IPPROTO_TCP)
		return drop(SW_DROP_NOT_TCP);
	if (service == 0)
		return drop(SW_DROP_NO_SERVICE);
	return steer_inward(ctx, packet, service);
}

/* A packet from a VPA. */
static __always_inline int from_vpa(frame_context *ctx, const struct switch_settings *settings,
				    const struct packet *packet)
{
	if (packet->protocol == IPPROTO_ICMP || packet->protocol == IPPROTO_ICMPV6)
		return icmp_outward(ctx, packet, false);
	return steer_outward(ctx, settings, packet);
}

/* What remains once the rules of the side have been applied: VIPs, on either side and in either
 * direction. */
static __always_inline int steer_vip(frame_context *ctx, const struct switch_settings *settings,
				     const struct packet *packet)
{
	__s32 service;

	if (packet->protocol == IPPROTO_TCP &&
	    !(packet->state & (PACKET_FRAGMENT | PACKET_MALFORMED))) {
		int verdict = steer_owned(ctx, settings, packet);

		if (verdict != NOT_OWNED)
			return verdict;
	}
	service = vip_lookup(&packet->destination, packet->destination_port);
	if (service <= 0 && packet->destination_port)
		service = vip_lookup(&packet->destination, 0);
	if (service >= 0)
		return to_vip(ctx, packet, service);
	if (vip_lookup(&packet->source, 0) >= 0)
		return drop(SW_DROP_VIP_SOURCE);
	return leave_to_kernel(SW_PASSED);
}

/* Ingress of an interface towards clients. */
static __always_inline int switch_clients(frame_context *ctx)
{
	const struct switch_settings *settings = switch_settings();
	struct packet packet;

	if (!settings || frame_read(ctx, &packet) != PARSE_OK)
		return leave_to_kernel(SW_PASSED);
	if ((is_control(settings, &packet) || may_hide_control(&packet)) &&
	    (is_own_address(&packet.destination) || is_node_address(&packet.destination)))
		return drop(SW_DROP_CONTROL_FROM_CLIENTS);
	if (vpa_contains(settings, packet.family, &packet.destination))
		return drop(SW_DROP_TO_VPA);
	if (vpa_contains(settings, packet.family, &packet.source))
		return drop(SW_DROP_VPA_SOURCE);
	return steer_vip(ctx, settings, &packet);
}

/* Ingress of an interface towards nodes. */
static __always_inline int switch_nodes(frame_context *ctx)
{
	const struct switch_settings *settings = switch_settings();
	struct packet packet;

	if (!settings || frame_read(ctx, &packet) != PARSE_OK)
		return leave_to_kernel(SW_PASSED);
	if (is_control(settings, &packet) && is_own_address(&packet.destination))
		return control(ctx, &packet);
	if (vpa_contains(settings, packet.family, &packet.source))
		return from_vpa(ctx, settings, &packet);
	if (vpa_contains(settings, packet.family, &packet.destination))
		return drop(SW_DROP_TO_VPA);
	if (quotes_vpa(ctx, &packet))
		return icmp_outward(ctx, &packet, true);
	return steer_vip(ctx, settings, &packet);
}

#endif
