/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* Control datagrams that are addressed to the switch (shared/wire.h): checked, applied, and sent on
 * to the target or back to the sender, all in the program: no process of the switch is in the path
 * of a transfer. */
#ifndef TCPMIG_SWITCH_CORE_CONTROL_H
#define TCPMIG_SWITCH_CORE_CONTROL_H

#include "lib/siphash.h"
#include "switch_core_commit.h"
#include "switch_core_forward.h"
#include "switch_core_lease.h"
#include "switch_core_tcp.h"

enum {
	CONTROL_OK = SWITCH_COUNTER_MAX, /* stands for "go on"; no counter has this number */
	CONTROL_ANSWER = 1000, /* stands for "send the answer"; no action has this number */
};

/* What is kept of a header that was checked: the header itself is too large for every stack frame.
 */
struct message {
	struct ip_address client;
	struct request request;
	__be16 client_port;
	__u8 type;
	/* the answer, when control_transfer() says CONTROL_ANSWER: */
	__u8 answer;   /* enum wire_type */
	__u32 current; /* generation the switch knows */
	__u8 reason;   /* enum wire_reason */
	__u8 draining;
	__u8 pad[2];
} __attribute__((aligned(8)));

static __always_inline __u32 control_header_offset(const struct packet *packet)
{
	return packet->l4 + sizeof(struct udphdr);
}

static __always_inline __u32 control_csum_offset(const struct packet *packet)
{
	return packet->l4 + __builtin_offsetof(struct udphdr, check);
}

/* Is it a message, and one for the switch? */
static __always_inline bool control_is_sound(const struct packet *packet,
					     const struct wire_header *header)
{
	if (header->magic != __builtin_bswap32(WIRE_MAGIC) || !wire_form_is_known(header))
		return false;
	if ((header->type < WIRE_COMMIT || header->type > WIRE_RENEW) &&
	    header->type != WIRE_HEARTBEAT)
		return false;
	if (header->lane >= MAX_LANES)
		return false;
	if (header->family != packet->family ||
	    __builtin_bswap32(header->generation) > GENERATION_MASK)
		return false;
	if ((header->flags & WIRE_FLAG_TAKE_BACK) && header->target != header->sender)
		return false;
	return __builtin_bswap32(header->payload_length) == packet->payload - WIRE_HEADER_SIZE;
}

static __always_inline __u64 control_tag(const struct node_entry *node,
					 const struct wire_header *header)
{
	return siphash_words(&node->keys.key[header->key_id & 1], header, WIRE_TAGGED / 8);
}

/* Does it come from the node that it names? CONTROL_OK or what to count. */
static __always_inline __u32 control_authenticate(frame_context *ctx, const struct node_entry *node,
						  const struct wire_header *header)
{
	if (node->role == NODE_NONE || node->ifindex != frame_ifindex(ctx))
		return SW_DROP_BAD_MESSAGE;
	if (header->key_id == 0 || node->keys.key_id[header->key_id & 1] != header->key_id)
		return SW_DROP_BAD_TAG;
	return control_tag(node, header) == header->switch_tag ? CONTROL_OK : SW_DROP_BAD_TAG;
}

static __always_inline bool control_is_new(__u32 sender, __u32 lane, __u64 sequence)
{
	__u32 index = sender * MAX_LANES + lane;
	struct replay_window *window = bpf_map_lookup_elem(&replay, &index);
	bool accepted;

	if (!window)
		return false;
	bpf_spin_lock(&window->lock);
	accepted = replay_accept(&window->bits, sequence);
	bpf_spin_unlock(&window->lock);
	return accepted;
}

/* Exchanges both MAC addresses, both IP addresses and both ports. */
static __always_inline long control_swap(frame_context *ctx, const struct packet *packet)
{
	__be16 ports[2] = {packet->destination_port, packet->source_port};
	struct ip_address addresses[2] KEY_ALIGNED;
	__be32 v4[2] = {address_v4(&packet->destination), address_v4(&packet->source)};
	__u8 macs[2 * ETH_ALEN];

	address_copy(&addresses[0], &packet->destination);
	address_copy(&addresses[1], &packet->source);
	if (frame_load(ctx, 0, macs, sizeof(macs)) ||
	    frame_store(ctx, 0, macs + ETH_ALEN, ETH_ALEN) ||
	    frame_store(ctx, ETH_ALEN, macs, ETH_ALEN) ||
	    frame_store(ctx, packet->l4, ports, sizeof(ports)))
		return -1;
	if (packet->family == FAMILY_IPV4)
		return frame_store(ctx, ETH_HLEN + __builtin_offsetof(struct iphdr, saddr), v4,
				   sizeof(v4));
	return frame_store(ctx, ETH_HLEN + __builtin_offsetof(struct ipv6hdr, saddr), addresses,
			   sizeof(addresses));
}

/* Sends the datagram back where it came from, as a `type` of the switch. The payload stays
 * attached: no length changes, and the UDP checksum changes only by the header (swapping addresses
 * and ports does not change it). */
static __noinline int control_bounce(frame_context *ctx, const struct packet *packet,
				     const struct message *message)
{
	const struct node_entry *node;
	struct wire_header header;
	__u32 before;

	if (!packet || !message ||
	    frame_load(ctx, control_header_offset(packet), &header, sizeof(header)))
		return drop(SW_DROP_BAD_MESSAGE);
	before = bpf_csum_diff(0, 0, (__be32 *)&header, sizeof(header), 0);
	node = node_of(__builtin_bswap16(header.sender));
	if (!node)
		return drop(SW_DROP_BAD_MESSAGE);
	header.type = message->answer;
	header.reason = message->reason;
	header.target = header.sender;
	header.sender = 0;
	header.current_generation = __builtin_bswap32(message->current);
	header.detail = __builtin_bswap32(message->request.detail);
	header.target_tag = 0;
	header.switch_ns = __builtin_bswap64(bpf_ktime_get_ns());
	header.switch_tag = control_tag(node, &header);
	if (frame_csum(
		ctx, packet->family, control_csum_offset(packet),
		csum_change_32(before, bpf_csum_diff(0, 0, (__be32 *)&header, sizeof(header), 0)),
		CSUM_UDP) ||
	    frame_store(ctx, control_header_offset(packet), &header, sizeof(header)) ||
	    control_swap(ctx, packet))
		return drop(SW_DROP_BAD_MESSAGE);
	return frame_return(ctx);
}

static __always_inline __u32 refusal_counter(int reason)
{
	switch (reason) {
	case REASON_STALE_GENERATION:
		return SW_REFUSED_STALE;
	case REASON_ALREADY_SPOKE:
		return SW_REFUSED_SPOKE;
	case REASON_UNKNOWN_NODE:
		return SW_REFUSED_UNKNOWN_NODE;
	case REASON_UNKNOWN_SERVICE:
		return SW_REFUSED_UNKNOWN_SERVICE;
	case REASON_TABLE_FULL:
		return SW_REFUSED_TABLE_FULL;
	case REASON_REPLAY:
		return SW_REFUSED_REPLAY;
	case REASON_TOO_LARGE:
		return SW_REFUSED_TOO_LARGE;
	case REASON_OTHER_BOOT:
		return SW_REFUSED_OTHER_BOOT;
	default:
		return SW_REFUSED_NOT_ENTITLED;
	}
}

static __always_inline int refuse(struct message *message, __u8 reason, __u32 current)
{
	const struct switch_settings *settings = switch_settings();

	if (reason == REASON_OTHER_BOOT && settings)
		message->request.detail = settings->boot;
	count(refusal_counter(reason));
	message->answer = WIRE_REFUSED;
	message->reason = reason;
	message->current = current;
	return CONTROL_ANSWER;
}

/* How far a COMMIT is above the first of its transfer. */
static __always_inline __u8 generations_above(const struct wire_header *header)
{
	__u32 above = (__builtin_bswap32(header->generation) -
		       __builtin_bswap32(header->current_generation)) &
		      GENERATION_MASK;

	if (!header->current_generation)
		return 0;
	return above > 255 ? 255 : (__u8)above;
}

/* Checks everything that does not depend on the flow. CONTROL_OK, or what to count. */
static __noinline __u32 control_check(frame_context *ctx, const struct packet *packet,
				      struct message *message)
{
	struct wire_header header KEY_ALIGNED;
	const struct node_entry *node;
	__u32 outcome;

	if (!packet || !message || (packet->state & (PACKET_FRAGMENT | PACKET_MALFORMED)) ||
	    packet->payload < WIRE_HEADER_SIZE ||
	    frame_load(ctx, control_header_offset(packet), &header, sizeof(header)) ||
	    !control_is_sound(packet, &header))
		return SW_DROP_BAD_MESSAGE;
	node = node_of(__builtin_bswap16(header.sender));
	if (!node)
		return SW_DROP_BAD_MESSAGE;
	outcome = control_authenticate(ctx, node, &header);
	if (outcome != CONTROL_OK)
		return outcome;
	address_copy(&message->client, &header.client);
	message->request.generation = __builtin_bswap32(header.generation);
	message->request.further = generations_above(&header);
	message->request.sender = __builtin_bswap16(header.sender);
	message->request.target = __builtin_bswap16(header.target);
	message->request.port = __builtin_bswap16(header.target_port);
	message->request.service = __builtin_bswap16(header.service);
	message->request.client_fin = !!(header.flags & WIRE_FLAG_CLIENT_FIN);
	message->request.client_fin_end = __builtin_bswap32(header.rcv_nxt) + 1;
	message->request.snd_nxt = __builtin_bswap32(header.snd_nxt);
	message->request.detail = __builtin_bswap32(header.detail);
	message->draining = !!(header.flags & WIRE_FLAG_DRAINING);
	message->client_port = header.client_port;
	message->type = header.type;
	if (!control_is_new(message->request.sender, header.lane,
			    __builtin_bswap64(header.sequence)))
		return SW_REFUSED_REPLAY;
	return CONTROL_OK;
}

/* The key of the flow that a message names; false: no such service in this family. */
static __always_inline bool message_key(const struct packet *packet, const struct message *message,
					struct flow_key *key)
{
	__u32 id = message->request.service;
	const struct service_entry *service = bpf_map_lookup_elem(&services, &id);
	const struct ip_address *vip;

	if (!id || !service || !service->used)
		return false;
	vip = packet->family == FAMILY_IPV4 ? &service->vip4 : &service->vip6;
	if (address_is_zero(vip))
		return false;
	flow_key_of(key, packet->family, &message->client, vip, message->client_port,
		    service->port);
	return true;
}

/* When the switch committed, for those who measure: not under the tags. */
static __always_inline long control_stamp(frame_context *ctx, const struct packet *packet,
					  __u64 now)
{
	__u32 offset =
	    control_header_offset(packet) + __builtin_offsetof(struct wire_header, switch_ns);
	__u32 before[2], after[2];
	__u64 stamp = __builtin_bswap64(now);

	__builtin_memcpy(after, &stamp, sizeof(after));
	if (frame_load(ctx, offset, before, sizeof(before)) ||
	    frame_store(ctx, offset, after, sizeof(after)))
		return -1;
	return frame_csum(ctx, packet->family, control_csum_offset(packet),
			  csum_change_32(before[0], after[0]) + csum_change_32(before[1], after[1]),
			  CSUM_UDP);
}

/* Where a transfer goes. */
struct onward {
	struct ip_address to; /* the target's own address */
	struct ip_address next_hop;
	__u32 ifindex;
	__u8 family; /* of the next hop, as in struct bpf_fib_lookup */
	__u8 route;  /* enum route */
	__u8 macs[12];
	__u8 pad[6];
} __attribute__((aligned(8)));

static __noinline int onward_find(frame_context *ctx, const struct packet *packet,
				  struct onward *onward)
{
	struct bpf_fib_lookup fib;
	struct hop hop;

	if (!packet || !onward)
		return 0;
	hop.source = &packet->source;
	hop.destination = &onward->to;
	hop.source_port = packet->source_port;
	hop.destination_port = packet->destination_port;
	onward->route = route_find(ctx, packet, hop, frame_segment(ctx, packet), &fib);
	onward->family = fib.family;
	onward->ifindex = fib.ifindex;
	address_copy_words(&onward->next_hop, fib.ipv6_dst);
	__builtin_memcpy(onward->macs, fib.smac, ETH_ALEN);
	__builtin_memcpy(onward->macs + ETH_ALEN, fib.dmac, ETH_ALEN);
	return 0;
}

/* On to the target's own address: the datagram stays as it is but for the destination and, in a
 * COMMIT, the stamp. */
static __noinline int control_forward(frame_context *ctx, const struct packet *packet,
				      const struct onward *onward, __u64 stamp)
{
	struct bpf_fib_lookup fib;

	if (!packet || !onward)
		return FRAME_DROP;
	fib.family = onward->family;
	fib.ifindex = onward->ifindex;
	address_copy_words(fib.ipv6_dst, &onward->next_hop);
	__builtin_memcpy(fib.smac, onward->macs, ETH_ALEN);
	__builtin_memcpy(fib.dmac, onward->macs + ETH_ALEN, ETH_ALEN);
	if ((stamp && control_stamp(ctx, packet, stamp)) ||
	    frame_replace_address(ctx, packet, false, &onward->to, control_csum_offset(packet),
				  CSUM_UDP))
		return drop(SW_DROP_BAD_MESSAGE);
	return send(ctx, packet, onward->route, &fib);
}

/* The target's own address in the family of the packet; false: there is no such node. */
static __always_inline bool target_address(const struct packet *packet, __u32 id,
					   struct ip_address *to)
{
	const struct node_entry *node = node_of(id);

	if (!id || !node || node->role == NODE_NONE)
		return false;
	address_copy(to, packet->family == FAMILY_IPV4 ? &node->address4 : &node->address6);
	return !address_is_zero(to);
}

static __always_inline __u32 verdict_counter(int verdict)
{
	if (verdict == VERDICT_REPEAT)
		return SW_COMMIT_REPEATED;
	return verdict == VERDICT_TAKE_BACK ? SW_TAKEN_BACK : SW_COMMITTED;
}

/* COMMIT and DATA. The route is found first: a flow is not given to a node that cannot be told. (The
 * kernel could not say so, either: the datagram is addressed to the switch itself.) */
static __noinline int control_transfer(frame_context *ctx, const struct packet *packet,
				       struct message *message)
{
	struct onward onward = {.route = ROUTE_SEND};
	struct flow_key key KEY_ALIGNED;
	__u64 now = bpf_ktime_get_ns();
	bool returns, commits, reachable;
	__u32 current = 0;
	int verdict;

	if (!packet || !message)
		return FRAME_DROP;
	returns = message->request.target == message->request.sender;
	commits = message->type == WIRE_COMMIT;
	if (!target_address(packet, message->request.target, &onward.to))
		return refuse(message, REASON_UNKNOWN_NODE, 0);
	if (!message_key(packet, message, &key))
		return refuse(message, REASON_UNKNOWN_SERVICE, 0);
	if (!returns)
		onward_find(ctx, packet, &onward);
	if (onward.route == ROUTE_UNTOUCHED && packet->ttl <= 1)
		return leave_to_kernel(SW_SLOW_PATH);
	reachable = onward.route != ROUTE_NONE && onward.route != ROUTE_UNTOUCHED;
	verdict = commit(&key, &message->request, now, commits && reachable, &current);
	if (verdict == VERDICT_CONTENTION)
		return drop(SW_DROP_CONTENTION);
	if (verdict == VERDICT_UNKNOWN)
		return drop(SW_DROP_RECOVERING);
	if (verdict < 0)
		return refuse(message, -verdict, current);
	if (onward.route == ROUTE_NONE && verdict == VERDICT_REPEAT)
		return drop(SW_DROP_NO_ROUTE);
	if (!reachable)
		return refuse(message,
			      onward.route == ROUTE_NONE ? REASON_UNKNOWN_NODE : REASON_TOO_LARGE,
			      current);
	count(commits ? verdict_counter(verdict) : SW_DATA_STEERED);
	if (commits && (verdict == VERDICT_CREATE || verdict == VERDICT_REVIVE))
		affinity_moved(&key);
	if (!returns)
		return control_forward(ctx, packet, &onward, commits ? now : 0);
	message->answer = WIRE_RESUMED;
	message->current = message->request.generation;
	return CONTROL_ANSWER;
}

/* GONE and RENEW: a node's word on a flow. They are not answered. */
static __noinline int control_lease(const struct packet *packet, const struct message *message)
{
	struct flow_key key KEY_ALIGNED;
	__u64 now = bpf_ktime_get_ns();

	if (!packet || !message)
		return FRAME_DROP;
	if (!message_key(packet, message, &key))
		return drop(SW_REFUSED_UNKNOWN_SERVICE);
	return drop(message->type == WIRE_GONE ? lease_end(&key, &message->request, now)
					       : lease_renew(&key, &message->request, now));
}

/* HEARTBEAT: the node is alive. The answer tells it which boot of the switch it talks to. */
static __noinline int control_heartbeat(struct message *message)
{
	const struct switch_settings *settings = switch_settings();
	__u64 now = bpf_ktime_get_ns();
	struct node_liveness *node;
	__u32 id;

	if (!settings || !message)
		return FRAME_DROP;
	id = message->request.sender;
	node = bpf_map_lookup_elem(&liveness, &id);
	if (!node)
		return drop(SW_DROP_BAD_MESSAGE);
	if (node->instance != message->request.detail) {
		node->replaced = node->instance != 0;
		node->since_ns = now;
		node->instance = message->request.detail;
	}
	node->draining = message->draining;
	node->heard_ns = now;
	count(SW_HEARTBEAT);
	message->answer = WIRE_HEARTBEAT;
	message->request.detail = settings->boot;
	return CONTROL_ANSWER;
}

/* A datagram on the control port of one of the switch's own addresses, from the side of the nodes.
 */
static __noinline int control(frame_context *ctx, const struct packet *packet)
{
	struct message message = {};
	__u32 outcome;
	int action;

	if (!packet)
		return FRAME_DROP;
	outcome = control_check(ctx, packet, &message);
	if (outcome == SW_REFUSED_REPLAY && message.type <= WIRE_DATA)
		action = refuse(&message, REASON_REPLAY, 0);
	else if (outcome != CONTROL_OK)
		return drop(outcome);
	else if (message.type <= WIRE_DATA)
		action = control_transfer(ctx, packet, &message);
	else if (message.type == WIRE_HEARTBEAT)
		action = control_heartbeat(&message);
	else
		action = control_lease(packet, &message);
	return action == CONTROL_ANSWER ? control_bounce(ctx, packet, &message) : action;
}

#endif
