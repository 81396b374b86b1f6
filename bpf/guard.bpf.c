// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* The guard of a node: what arrives for its virtual private addresses goes to a socket, or waits, or was never meant to come here.
 *
 * Between the switch's decision and the child's birth, and where packets overtake the COMMIT, a client's packet finds no socket,
 * and the kernel would answer RST. So it goes to the agent's TUN instead, is held there and comes back in order after the resume. So do those
 * of a connection that has ended here, for its port may be in use again, and its successor on the way: the agent leaves them to the kernel, which
 * answers as TCP would, when that has not come in time; without an agent, or where it is plain that they belong to the old one, they are left to it
 * at once. And where a tombstone says that a COMMIT has come that the agent is about to open, not even a socket that is left of an earlier
 * connection (TIME_WAIT) is given the packet.
 *
 * A listener is not "a socket for this packet": in front of a listener a bare ACK could at most be a SYN cookie, and the kernel takes those only
 * within a minute after its SYN queue has overflowed (tcp_syncookies = 1), which cannot happen on a server whose SYNs are dropped here. With
 * tcp_syncookies = 2 the same test holds, so a stray ACK is answered by RST in both cases.
 *
 * In the same object, because it needs no kfunc: tombstone_change, the agent's way to change tombstones. */
#include "lib/tombstone.h"

enum {
	/* per CPU: more stray SYNs than that are dropped without telling the agent */
	SYN_EVENTS_PER_WINDOW = 128,
	SYN_EVENTS_WINDOW_NS = 100000000, /* 100 ms */
};

struct syn_budget {
	__u64 window_ns;
	__u32 used;
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct syn_budget);
} syn_budget SEC(".maps");

static inline bool syn_event_allowed(__u64 now)
{
	__u32 zero = 0;
	struct syn_budget *budget = bpf_map_lookup_elem(&syn_budget, &zero);

	if (!budget)
		return false;
	if (now - budget->window_ns > SYN_EVENTS_WINDOW_NS) {
		budget->window_ns = now;
		budget->used = 0;
	}
	return budget->used++ < SYN_EVENTS_PER_WINDOW;
}

/* Only a flow with a tombstone has a generation that the agent could name to the switch. */
static __noinline void tell_stray_syn(const struct flow_key *flow, __u32 generation)
{
	__u64 now = bpf_ktime_get_ns();
	struct node_event *event;

	if (!flow || !syn_event_allowed(now))
		return;
	event = bpf_ringbuf_reserve(&node_events, sizeof(*event), 0);
	if (!event)
		return;
	__builtin_memset(event, 0, sizeof(*event));
	event->flow = *flow;
	event->type = EVENT_STRAY_SYN;
	event->header.generation = bpf_htonl(generation);
	event->received_ns = event->done_ns = now;
	bpf_ringbuf_submit(event, 0);
}

/* A packet that has no socket: to the agent, which holds it. */
static inline int hold(const struct node_settings *settings)
{
	if (settings->tun_ifindex == 0) {
		count(ND_GUARD_DROP);
		return TC_ACT_SHOT;
	}
	count(ND_GUARD_HELD);
	return bpf_redirect(settings->tun_ifindex, 0);
}

/* The same where the kernel may answer if there is no agent. */
static inline bool hold_copy(struct __sk_buff *skb, const struct node_settings *settings)
{
	if (settings->tun_ifindex == 0 || bpf_clone_redirect(skb, settings->tun_ifindex, 0))
		return false;
	count(ND_GUARD_HELD);
	return true;
}

static inline struct tombstone *tombstone_of(const struct packet *p, struct flow_key *flow)
{
	__builtin_memset(flow, 0, sizeof(*flow));
	flow->client_port = p->source_port;
	flow->family = p->family;
	address_copy(&flow->client, &p->source);
	address_copy(&flow->vip, &p->destination);
	return bpf_map_lookup_elem(&tombstones, flow);
}

/* Its numbers are those that the client ended with, and its socket has gone: above all a FIN where the kernel had no room for TIME_WAIT.
 * Nothing of a successor from the same port looks like this, for that has initial sequence numbers of its own, on both sides. Nor is it data, which a
 * half-closed connection that lives on elsewhere may still send to its former owner: the agent sends that on. (To an ACK or FIN of such a
 * one the kernel's answer goes no further than the switch: this is not the owner.) */
static inline bool is_last_word(const struct packet *p, const struct tombstone *tombstone,
				union tombstone_word known)
{
	return (known.is.state == TOMB_OPENING || known.is.state == TOMB_CONFIRMED) &&
	       p->payload == 0 && tombstone->child_seen == (CHILD_SEEN | known.is.generation) &&
	       p->seq == tombstone->last_seq && p->ack == tombstone->last_ack;
}

static inline int without_socket(struct __sk_buff *skb, const struct node_settings *settings,
				 const struct packet *p)
{
	struct flow_key flow KEY_ALIGNED;
	struct tombstone *tombstone = tombstone_of(p, &flow);
	union tombstone_word known = {};

	if (tombstone)
		known = tombstone_read(tombstone);
	if (p->tcp_flags & TCP_SYN) {
		count(ND_GUARD_DROP_SYN);
		if (known.is.state && !(p->tcp_flags & TCP_ACK))
			tell_stray_syn(&flow, known.is.generation);
		return TC_ACT_SHOT;
	}
	/* the end of a connection that may be on its way here: in order behind its data, or the child would never learn of it */
	if (p->tcp_flags & TCP_RST &&
	    (known.is.state == TOMB_REFUSED || known.is.state == TOMB_ABORTED)) {
		count(ND_GUARD_DROP);
		return TC_ACT_SHOT;
	}
	if (tombstone && is_last_word(p, tombstone, known)) {
		count(ND_GUARD_ENDED);
		return NEXT_PROGRAM;
	}
	if (known.is.state == TOMB_CONFIRMED) {
		if (hold_copy(skb, settings))
			return TC_ACT_SHOT;
		count(ND_GUARD_TO_KERNEL);
		return NEXT_PROGRAM;
	}
	return hold(settings);
}

/* Whatever socket is there is one of an earlier connection: TIME_WAIT would answer for the new one. (One that is ESTABLISHED is not
 * asked about, for the price of the question: it answers with an ACK that means nothing to the client.) */
static inline bool left_over(const struct packet *p, __u32 state)
{
	struct flow_key flow KEY_ALIGNED;
	struct tombstone *tombstone;

	if (state == SOCKET_ESTABLISHED)
		return false;
	tombstone = tombstone_of(p, &flow);
	return tombstone && tombstone_read(tombstone).is.state == TOMB_ANNOUNCED;
}

/* A connection ends, and its socket is there: by a word of the client, or the server has closed and this may acknowledge it, which is the end
 * of the socket where the kernel has no room for another TIME_WAIT (tcp_max_tw_buckets). No child goes without one of these, unless the server aborts it. */
static __noinline void note_child(const struct packet *p)
{
	struct flow_key flow KEY_ALIGNED;
	struct tombstone *tombstone;
	union tombstone_word known;

	if (!p)
		return;
	tombstone = tombstone_of(p, &flow);
	if (!tombstone)
		return;
	known = tombstone_read(tombstone);
	if (known.is.state != TOMB_OPENING && known.is.state != TOMB_CONFIRMED)
		return;
	tombstone->last_seq = p->seq + p->payload + !!(p->tcp_flags & TCP_FIN);
	tombstone->last_ack = p->ack;
	tombstone->child_seen = CHILD_SEEN | known.is.generation;
}

/* State of the socket that would take this packet; 0 = there is none. */
static inline __u32 receiving_state(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_sock *socket = find_socket(skb, p->family, &p->source, p->source_port,
					      &p->destination, p->destination_port);
	__u32 state;

	if (!socket)
		return 0;
	state = socket_state(socket);
	bpf_sk_release(socket);
	return state;
}

static inline int guard_tcp(struct __sk_buff *skb, const struct node_settings *settings,
			    const struct packet *p)
{
	__u32 state = receiving_state(skb, p);
	bool syn = p->tcp_flags & TCP_SYN;
	bool dispatcher = settings->role == NODE_DISPATCHER;

	/* TIME_WAIT would make the kernel give a SYN to the listener: on a server that is no way in */
	if (state && state != SOCKET_LISTEN &&
	    (dispatcher || !((state == SOCKET_TIME_WAIT && syn) || left_over(p, state)))) {
		if (!dispatcher &&
		    (state != SOCKET_ESTABLISHED || p->tcp_flags & (TCP_FIN | TCP_RST)))
			note_child(p);
		count(ND_GUARD_PASSED);
		return NEXT_PROGRAM;
	}
	/* on a dispatcher: new connections, and the ACK that answers a SYN cookie */
	if (dispatcher && (syn || state == SOCKET_LISTEN)) {
		count(ND_GUARD_PASSED);
		return NEXT_PROGRAM;
	}
	return without_socket(skb, settings, p);
}

SEC("tc")
int guard(struct __sk_buff *skb)
{
	struct node_settings *settings = own_settings();
	struct packet p;
	const struct ip_address *block;

	if (!settings || !see_packet(skb, true, &p))
		return NEXT_PROGRAM;
	block = p.family == FAMILY_IPV4 ? &settings->vpa4_block : &settings->vpa6_block;
	if (!vpa_block_contains(block, p.family, &p.destination))
		return NEXT_PROGRAM;
	if (p.state & (PACKET_FRAGMENT | PACKET_MALFORMED)) { /* the switch sends none */
		count(ND_GUARD_DROP);
		return TC_ACT_SHOT;
	}
	if (p.protocol != IPPROTO_TCP) /* ICMP errors, above all */
		return NEXT_PROGRAM;
	return guard_tcp(skb, settings, &p);
}

static inline enum tombstone_outcome change(const struct tombstone_request *request)
{
	union tombstone_word after = {.is = {.generation = request->generation,
					     .state = request->state,
					     .reason = request->reason,
					     .detail = request->detail}};

	switch (request->verb) {
	case TOMBSTONE_CLAIM:
		return tombstone_claim(&request->flow, request->generation, request->snd_nxt,
				       request->target_port, request->received);
	case TOMBSTONE_ANNOUNCE:
		return tombstone_announce(&request->flow, request->generation, request->snd_nxt,
					  request->target_port);
	case TOMBSTONE_SETTLE:
		return tombstone_settle(&request->flow, after);
	case TOMBSTONE_FORBID:
		return tombstone_forbid(&request->flow, request->generation, request->target_port);
	case TOMBSTONE_SWEEP:
		return tombstone_sweep(&request->flow, request->generation);
	}
	return TOMBSTONE_ABSENT;
}

SEC("syscall")
int tombstone_change(struct tombstone_request *request)
{
	struct flow_key flow KEY_ALIGNED = request->flow;
	struct tombstone_request copy KEY_ALIGNED = *request;
	struct tombstone *tombstone;

	request->outcome = change(&copy);
	tombstone = bpf_map_lookup_elem(&tombstones, &flow);
	if (tombstone)
		request->now = *tombstone;
	return 0;
}

char _license[] SEC("license") = "Dual MIT/GPL";
