/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* TCP segments: from a client to whoever serves it, and from a node, in the name of the service, to
 * a client. */
#ifndef TCPMIG_SWITCH_CORE_TCP_H
#define TCPMIG_SWITCH_CORE_TCP_H

#include "lib/vpa.h"
#include "switch_core_flow.h"
#include "switch_core_forward.h"
#include "switch_core_revoke.h"
#include "switch_core_settle.h"

static __always_inline void flow_key_of(struct flow_key *key, __u8 family,
					const struct ip_address *client,
					const struct ip_address *vip, __be16 client_port,
					__be16 vip_port)
{
	address_copy(&key->client, client);
	address_copy(&key->vip, vip);
	key->client_port = client_port;
	key->vip_port = vip_port;
	key->family = family;
	key->pad[0] = key->pad[1] = key->pad[2] = 0;
}

/* VIP and port -> service; 0 with a port of 0 on the VIP's own entry. Negative: not a VIP at all.
 */
static __always_inline __s32 vip_lookup(const struct ip_address *address, __be16 port)
{
	struct vip_key key KEY_ALIGNED = {.port = port};
	__u32 *service;

	address_copy(&key.address, address);
	service = bpf_map_lookup_elem(&vips, &key);
	return service ? (__s32)*service : -1;
}

/* The live entry of a flow, or NULL: nobody owns it. */
static __always_inline struct flow_value *flow_find(const struct switch_settings *settings,
						    const struct flow_key *key, __u64 now,
						    union flow_owner *owner)
{
	struct flow_value *flow = bpf_map_lookup_elem(&flows, key);

	if (!flow)
		return NULL;
	*owner = flow_read(flow);
	return flow_is_dead(settings, flow, *owner, now) ? NULL : flow;
}

/* A SYN on a live entry. A closing one has done its duty: the word goes back to "nobody" (the
 * generation stays, to refuse what is stale) and a dispatcher gets the new connection. Any other is
 * the owner's to judge. */
static __always_inline struct flow_value *syn_on_entry(const struct switch_settings *settings,
						       struct flow_value *flow,
						       union flow_owner *owner, __u64 now,
						       __u32 *counter)
{
	for (int i = 0; i < FLOW_ATTEMPTS; i++) {
		union flow_owner nobody = {};

		if (flow_is_dead(settings, flow, *owner, now))
			return NULL;
		*counter = SW_SYN_LIVE;
		if (!flow_marks_of(flow, *owner).is.closing)
			return flow;
		nobody.is.generation = owner->is.generation;
		if (flow_swap(flow, *owner, nobody)) {
			count(SW_REOPENED);
			return NULL;
		}
		*owner = flow_read(flow);
	}
	*counter = SW_DROP_CONTENTION;
	return flow;
}

/* The last step of either way in. `flow`: the entry that is to note the packet, or NULL. */
static __always_inline int send_inward(frame_context *ctx, const struct switch_settings *settings,
				       const struct packet *packet, struct steering *steering,
				       struct flow_value *flow, union flow_owner owner, __u64 now)
{
	struct bpf_fib_lookup fib;
	enum route route;

	vpa_encode(settings, packet->family, steering->node, steering->service, &steering->address);
	route = steering_route(ctx, packet, steering, &fib);
	if (route == ROUTE_UNTOUCHED)
		return leave_to_kernel(SW_SLOW_PATH);
	if (route == ROUTE_NONE)
		return drop(SW_DROP_NO_ROUTE);
	if (flow)
		flow_note_in(flow, packet, owner, now);
	return forward_tcp(ctx, packet, steering, route, &fib);
}

enum { NOT_OWNED = 1000 }; /* no verdict of either backend */

/* An entry may outlive its service: what the configuration no longer names is not ours, whatever the table says. */
static __always_inline bool is_of_service(const struct flow_key *key, __u32 id)
{
	const struct service_entry *service = bpf_map_lookup_elem(&services, &id);

	return service && service->used && key->vip_port == service->port &&
	       address_equal(&key->vip,
			     key->family == FAMILY_IPV4 ? &service->vip4 : &service->vip6);
}

/* By far most TCP packets: of a connection with an owner, and no SYN. Its entry names the service, so that no VIP is looked up. NOT_OWNED:
 * steer_inward() is next, if the destination is a VIP. */
static __noinline int steer_owned(frame_context *ctx, const struct switch_settings *settings,
				  const struct packet *packet)
{
	struct steering steering = {.counter = SW_TO_OWNER};
	struct flow_key key KEY_ALIGNED;
	union flow_owner owner = {};
	struct flow_value *flow;
	__u64 now = coarse_now();

	if (!settings || !packet || is_first_syn(packet))
		return NOT_OWNED;
	flow_key_of(&key, packet->family, &packet->source, &packet->destination,
		    packet->source_port, packet->destination_port);
	flow = flow_find(settings, &key, now, &owner);
	if (!flow || !is_of_service(&key, flow->service))
		return NOT_OWNED;
	steering.service = flow->service;
	steering.node = owner.is.owner;
	steering.port = __builtin_bswap16(owner.is.port);
	return send_inward(ctx, settings, packet, &steering, flow, owner, now);
}

/* Destination = a service's VIP. Nobody owns the connection (steer_owned() has looked), or this is its first packet. */
static __noinline int steer_inward(frame_context *ctx, const struct packet *packet, __u32 service)
{
	const struct switch_settings *settings = switch_settings();
	struct steering steering = {.service = service};
	struct flow_key key KEY_ALIGNED;
	union flow_owner owner = {};
	struct flow_value *flow = NULL;
	__u64 now = coarse_now();

	if (!settings || !packet)
		return FRAME_TO_KERNEL;
	flow_key_of(&key, packet->family, &packet->source, &packet->destination,
		    packet->source_port, packet->destination_port);
	if (is_first_syn(packet))
		flow = flow_find(settings, &key, now, &owner);
	if (flow)
		flow = syn_on_entry(settings, flow, &owner, now, &steering.counter);
	if (steering.counter == SW_DROP_CONTENTION)
		return drop(SW_DROP_CONTENTION);
	if (flow) {
		steering.node = owner.is.owner;
		steering.port = __builtin_bswap16(owner.is.port);
	} else {
		/* for the packets of owned flows this is checked already: their entry was made by a
		 * dispatcher that had a connection */
		if (vip_lookup(&packet->source, 0) >= 0)
			return drop(SW_DROP_VIP_SOURCE);
		if (!is_first_syn(packet) && is_unknown(settings, NULL, &key, now))
			return drop(SW_DROP_RECOVERING);
		steering.node = pick_dispatcher(&key, service, now, packet);
		if (!steering.node)
			return drop(SW_DROP_NO_DISPATCHER);
		steering.port = packet->destination_port;
		steering.counter = SW_TO_DISPATCHER;
	}
	return send_inward(ctx, settings, packet, &steering, NULL, owner, now);
}

/* A pure acknowledgement: what the kernel of a former owner still sends, and nobody misses. */
static __always_inline bool is_pure_ack(const struct packet *packet)
{
	return packet->payload == 0 && (packet->tcp_flags & TCP_ACK) &&
	       !(packet->tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST));
}

/* May `node` speak from `port` as the service? 0: yes, else the reason to drop. A VPA never speaks
 * to a VIP; that there is no client with such an address need not be looked up for owned flows, as
 * in steer_inward(). */
static __always_inline __u32 speaker_check(const struct flow_key *key, const struct packet *packet,
					   __u32 node, __be16 port, bool owned,
					   union flow_owner owner)
{
	bool entitled;

	if (!owned && vip_lookup(&packet->destination, 0) >= 0)
		return SW_DROP_VPA_SOURCE;
	if (owned)
		entitled = owner.is.owner == node && port == __builtin_bswap16(owner.is.port);
	else
		entitled = port == key->vip_port && may_dispatch(key, node);
	if (entitled)
		return 0;
	return packet->protocol == IPPROTO_TCP && is_pure_ack(packet) ? SW_DROP_LATE_ACK
								      : SW_DROP_NOT_OWNER;
}

/* How far above the snapshot's end a first word may begin: what came before it may have been lost. */
enum { FIRST_WORD_REACH = 1 << 20 };

/* An owner that has not spoken may have a socket of an earlier connection of the same four-tuple: its
 * kernel answers for that one (the ACK of TIME_WAIT) to a client's packet that comes before the
 * COMMIT, or when that socket is put out of the way (the RST of SOCK_DESTROY). Neither is the owner's
 * first word: that begins where the snapshot ends, or one before (a window probe), or a little above.
 *
 * And while the COMMIT may still be on its way (it is repeated for timeouts.transfer), not even a RST
 * with the right number is believed: where an earlier connection from the same port has ended, the
 * kernel answers so to a client's packet. */
static __always_inline bool is_foreign(const struct flow_value *flow, const struct packet *packet,
				       union flow_owner owner)
{
	const struct switch_settings *settings;

	if (owner.is.spoke || packet->protocol != IPPROTO_TCP)
		return false;
	if (!(packet->tcp_flags & TCP_RST))
		return packet->seq - flow->snd_nxt + 1 > FIRST_WORD_REACH;
	if (packet->seq != flow->snd_nxt)
		return true;
	settings = switch_settings();
	return settings &&
	       owner.is.owner != owner.is.previous && /* else it has taken the flow back */
	       bpf_ktime_get_ns() - flow->committed_ns < settings->transfer_ms * 1000000ULL;
}

/* The point of no return (invariant 2): the owner's first packet marks the word before it is
 * forwarded. 0, or the reason to drop. */
static __always_inline __u32 speak(struct flow_value *flow, const struct flow_key *key,
				   const struct packet *packet, __u32 node, __be16 port,
				   union flow_owner *owner)
{
	for (int i = 0; i < FLOW_ATTEMPTS; i++) {
		union flow_owner spoken = *owner;
		__u32 reason;

		if (owner->is.spoke)
			return 0;
		if (is_foreign(flow, packet, *owner))
			return SW_DROP_FOREIGN;
		spoken.is.spoke = 1;
		if (flow_swap(flow, *owner, spoken)) {
			*owner = spoken;
			note_custody(flow, key);
			count(SW_SPOKE);
			return 0;
		}
		*owner = flow_read(flow);
		reason = speaker_check(key, packet, node, port, owner->is.owner != 0, *owner);
		if (reason || owner->is.owner == 0)
			return reason;
	}
	return SW_DROP_CONTENTION;
}

/* Everything that is asked of a packet that speaks for `voice`, a VPA, whatever it carries: is that
 * its node's interface, what does the world know the service as. Fills `steering`; 0, or the reason
 * to drop. */
static __always_inline __u32 outward_begin(frame_context *ctx,
					   const struct switch_settings *settings,
					   const struct packet *packet,
					   const struct ip_address *voice,
					   struct steering *steering)
{
	struct vpa vpa = vpa_decode(settings, packet->family, voice);
	const struct node_entry *node = node_of(vpa.node);
	const struct service_entry *service = bpf_map_lookup_elem(&services, &vpa.service);
	const struct ip_address *vip;

	if (!vpa.node || !node || node->role == NODE_NONE || node->ifindex != frame_ifindex(ctx))
		return SW_DROP_VPA_SOURCE;
	if (vpa_contains(settings, packet->family, &packet->destination))
		return SW_DROP_TO_VPA;
	if (packet->state & (PACKET_FRAGMENT | PACKET_MALFORMED))
		return packet->state & PACKET_FRAGMENT ? SW_DROP_FRAGMENT : SW_DROP_MALFORMED;
	if (!service || !service->used)
		return SW_DROP_NO_SERVICE;
	vip = packet->family == FAMILY_IPV4 ? &service->vip4 : &service->vip6;
	if (address_is_zero(vip))
		return SW_DROP_NO_SERVICE;
	address_copy(&steering->address, vip);
	steering->port = service->port;
	steering->node = vpa.node;
	steering->service = vpa.service;
	steering->outward = 1;
	return 0;
}

/* Source = a VPA: a node speaks as the service. */
static __noinline int steer_outward(frame_context *ctx, const struct switch_settings *settings,
				    const struct packet *packet)
{
	struct steering steering = {.counter = SW_FROM_NODE};
	struct flow_key key KEY_ALIGNED;
	struct bpf_fib_lookup fib;
	union flow_owner owner = {};
	struct flow_value *flow;
	__u64 now = coarse_now();
	enum route route;
	__u32 reason;

	if (!settings || !packet)
		return FRAME_TO_KERNEL;
	reason = outward_begin(ctx, settings, packet, &packet->source, &steering);
	if (!reason && packet->protocol != IPPROTO_TCP)
		reason = SW_DROP_NOT_TCP;
	if (reason)
		return drop(reason);
	flow_key_of(&key, packet->family, &packet->destination, &steering.address,
		    packet->destination_port, steering.port);
	flow = flow_find(settings, &key, now, &owner);
	if (is_unknown(settings, flow, &key, now))
		return drop(SW_DROP_RECOVERING);
	reason = speaker_check(&key, packet, steering.node, packet->source_port, flow, owner);
	/* (the owner's word from another of its ports is none on this flow, but the flow is its) */
	if (reason == SW_DROP_NOT_OWNER && !(flow && owner.is.owner == steering.node))
		revoke(&key, owner.is.generation, steering.node, steering.service, now);
	if (reason)
		return drop(reason);
	route = steering_route(ctx, packet, &steering, &fib);
	if (route == ROUTE_UNTOUCHED)
		return leave_to_kernel(SW_SLOW_PATH);
	if (route == ROUTE_NONE)
		return drop(SW_DROP_NO_ROUTE);
	if (flow) {
		reason = speak(flow, &key, packet, steering.node, packet->source_port, &owner);
		if (!reason)
			reason = keep_early_sack(ctx, flow, packet, now);
		if (reason)
			return drop(reason);
		flow_note_out(flow, packet, owner, now);
	}
	return forward_tcp(ctx, packet, &steering, route, &fib);
}

#endif
