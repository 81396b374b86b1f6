// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* The kernel resume: a COMMIT becomes a connection in this server's kernel, and no process of ours takes part.
 *
 * A COMMIT of one datagram that is meant for this node is verified (SipHash over header and payload, key of the pair), claimed in the
 * tombstones, turned in place into the TCP segment that carries the request, and given to the listener with bpf_sk_assign_tcp_reqsk(), which makes
 * the kernel treat it as the last packet of a handshake with a SYN cookie: the stock server's accept() returns the connection.
 *
 *   IP | UDP | our header (128) | request   ->   IP | TCP (20, or 32 with timestamps) | request
 *
 * What cannot be done here goes on to the agent's UDP socket: several parts, a whole connection, a port whose connections are handed over by descriptor, an old
 * socket with the same four-tuple. The agent opens those through its TUN: it puts the attributes into `pending` and writes the segment. But the
 * COMMIT is verified and noted in the tombstones (TOMB_ANNOUNCED) here, too, before anything of the client can follow it: so the guard
 * holds the client's packets even where an earlier connection of the same four-tuple has left something that would answer.
 *
 * In an object of its own, so that a kernel without the kfunc loses only this. */
#include "lib/replay.h"
#include "lib/siphash.h"
#include "lib/tombstone.h"
#include "resume_events.h"
#include "resume_segment.h"
#include "shared/kernel_types.h"

extern int bpf_sk_assign_tcp_reqsk(struct __sk_buff *skb, struct sock *sk,
				   struct bpf_tcp_req_attrs *attrs, int attrs__sz) __weak __ksym;

enum {
	PAYLOAD_MAX = WIRE_PAYLOAD_MAX_IPV4,
	PAYLOAD_WORDS = PAYLOAD_MAX / 8 + 1,
	HEADER_WORDS = WIRE_TAGGED / 8,
	PENDING_MAX = 4096,
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_NODES);
	__type(key, __u32);
	__type(value, struct key_ring);
} pair_keys SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u32);
} user_ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, PENDING_MAX);
	__type(key, struct flow_key);
	__type(value, struct pending_resume);
} pending SEC(".maps");

/* The transfer that this CPU is working on (bottom halves are off). */
struct work {
	struct node_event event; /* its header: the COMMIT's */
	struct siphash_key key;
	__u64 payload[PAYLOAD_WORDS];
};
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct work);
} work SEC(".maps");

static inline struct work *own_work(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&work, &zero);
}

/* ---- is it a transfer for us? ---- */

/* What is decided before the tag is checked; nothing of this is believed yet. */
enum form { FORM_OK, FORM_NOT_OURS, FORM_TO_AGENT, FORM_BAD };

static inline enum form check_form(const struct wire_header *h, const struct packet *p,
				   const struct node_settings *settings)
{
	__u32 port = bpf_ntohs(h->target_port), length = bpf_ntohl(h->payload_length);
	__u32 parts = bpf_ntohs(h->parts), total = bpf_ntohl(h->total_length);
	bool whole = h->flags & WIRE_FLAG_WHOLE;

	if (h->magic != bpf_htonl(WIRE_MAGIC) || h->type != WIRE_COMMIT)
		return FORM_NOT_OURS;
	if (!wire_form_is_known(h) || h->target != bpf_htons(settings->node) ||
	    h->family != p->family || parts == 0 ||
	    parts > (whole ? WIRE_WHOLE_PARTS_MAX : WIRE_PARTS_MAX) ||
	    bpf_ntohs(h->part) != parts - 1 || h->service == 0 || port == 0 ||
	    bpf_ntohl(h->generation) > GENERATION_MASK)
		return FORM_BAD;
	if (length == 0 || length > PAYLOAD_MAX || length != p->payload - sizeof(*h) ||
	    (parts == 1 ? total != length : total <= length) ||
	    total > (whole ? WIRE_WHOLE_MAX : WIRE_SNAPSHOT_MAX) || h->snd_wscale > 14 ||
	    h->rcv_wscale > 14)
		return FORM_BAD;
	if (whole || parts > 1 || bpf_map_lookup_elem(&user_ports, &port) ||
	    p->l4 != (p->family == FAMILY_IPV4 ? PLAIN_IPV4 : PLAIN_IPV6))
		return FORM_TO_AGENT;
	return FORM_OK;
}

/* SipHash over the tagged part of the header and the payload. A global function: the verifier walks its loop once, by itself. */
__noinline __u64 message_tag(__u32 length)
{
	struct work *w = own_work();
	__u32 words = length / 8, rest = length % 8;
	__u64 last = 0;
	struct siphash s;

	if (!w || length > PAYLOAD_MAX)
		return 0;
	siphash_begin(&s, &w->key);
	for (int i = 0; i < HEADER_WORDS; i++)
		siphash_absorb(&s, ((const address_half *)&w->event.header)[i]);
	for (__u32 i = 0; i < PAYLOAD_WORDS; i++) {
		if (i == words) {
			last = w->payload[i];
			break;
		}
		siphash_absorb(&s, w->payload[i]);
	}
	last &= (1ull << (rest * 8)) - 1;
	return siphash_end(&s, last, WIRE_TAGGED + length);
}

static inline bool load_payload(struct __sk_buff *skb, struct work *w, __u32 offset, __u32 length)
{
	__u64 size = length;

	/* The bounds are tested on the register that the helper is given; and of one that was turned around (be32) the verifier of Linux 6.12
	 * does not know that its upper half is 0, until it is shifted out. */
	asm volatile("%0 <<= 32\n%0 >>= 32" : "+r"(size));
	if (size < 1 || size > PAYLOAD_MAX)
		return false;
	return bpf_skb_load_bytes(skb, offset & PACKET_OFFSET_MASK, w->payload, size) == 0;
}

static inline bool check_tag(struct work *w)
{
	const struct wire_header *h = &w->event.header;
	__u32 sender = bpf_ntohs(h->sender);
	const struct key_ring *ring = bpf_map_lookup_elem(&pair_keys, &sender);
	__u32 slot = h->key_id & 1;

	if (!ring || h->key_id == 0 || ring->key_id[slot] != h->key_id)
		return false;
	w->key = ring->key[slot];
	return message_tag(bpf_ntohl(h->payload_length)) == h->target_tag;
}

/* The flow as this node sees it: the own address for this service, no port. */
static inline void name_flow(const struct node_settings *settings, const struct wire_header *h,
			     struct flow_key *flow)
{
	const struct ip_address *block =
	    h->family == FAMILY_IPV4 ? &settings->vpa4_block : &settings->vpa6_block;

	__builtin_memset(flow, 0, sizeof(*flow));
	address_copy(&flow->client, &h->client);
	address_copy(&flow->vip, block);
	((address_word *)&flow->vip)[3] |= bpf_htonl(bpf_ntohs(h->service));
	flow->client_port = h->client_port;
	flow->family = h->family;
}

static inline bool client_fits(const struct wire_header *h)
{
	const address_word *client = (const address_word *)&h->client;
	bool mapped = client[0] == 0 && client[1] == 0 && client[2] == ADDRESS_V4_WORD;

	return mapped == (h->family == FAMILY_IPV4) && h->client_port != 0;
}

/* ---- opening ---- */

static inline void attributes(struct bpf_tcp_req_attrs *attrs, __u8 options, __u8 snd_wscale,
			      __u8 rcv_wscale)
{
	attrs->wscale_ok = !!(options & WIRE_OPT_WSCALE);
	attrs->sack_ok = !!(options & WIRE_OPT_SACK);
	attrs->tstamp_ok = !!(options & WIRE_OPT_TIMESTAMPS);
	attrs->ecn_ok = !!(options & WIRE_OPT_ECN);
	attrs->usec_ts_ok = attrs->tstamp_ok && options & WIRE_OPT_USEC_TS;
	attrs->snd_wscale = attrs->wscale_ok ? snd_wscale : 0;
	attrs->rcv_wscale = attrs->wscale_ok ? rcv_wscale : 0;
}

/* Gives the segment to the listener. -errno of the kfunc; -ENOTSOCK when what was found is no full TCP socket. */
static inline long assign(struct __sk_buff *skb, struct bpf_sock *listener,
			  struct bpf_tcp_req_attrs *attrs)
{
	struct tcp_sock *tcp = bpf_skc_to_tcp_sock(listener);

	if (!tcp)
		return -ENOTSOCK;
	return bpf_sk_assign_tcp_reqsk(skb, (struct sock *)tcp, attrs, sizeof(*attrs));
}

static inline int refuse(struct node_event *event, __u8 reason, __u32 detail)
{
	count(ND_REFUSED);
	tell(event, EVENT_REFUSED, reason, detail);
	return TC_ACT_SHOT;
}

static inline int duplicate(struct node_event *event)
{
	count(ND_DUPLICATE);
	tell(event, EVENT_DUPLICATE, REASON_NONE, 0);
	return TC_ACT_SHOT;
}

/* Without trying: the tombstone says so first, so that a late repeat is answered alike and never opened. */
static inline int refuse_unopened(struct node_event *event, __u8 reason)
{
	const struct wire_header *h = &event->header;

	switch (tombstone_claim(&event->flow, bpf_ntohl(h->generation), bpf_ntohl(h->snd_nxt),
				bpf_ntohs(h->target_port), 0)) {
	case TOMBSTONE_DONE:
		tombstone_refuse(&event->flow, bpf_ntohl(h->generation), reason, 0);
		return refuse(event, reason, 0);
	case TOMBSTONE_FULL:
		return refuse(event, REASON_TOMBSTONES_FULL, 0);
	case TOMBSTONE_OLD:
		return duplicate(event);
	default: /* under the hands of the agent that sweeps it: let the agent sort it out */
		count(ND_TO_AGENT);
		return NEXT_PROGRAM;
	}
}

/* The tombstone is ours, the listener is held: convert and open. */
static inline int open_here(struct __sk_buff *skb, struct node_event *event,
			    struct bpf_sock *listener)
{
	const struct wire_header *h = &event->header;
	struct bpf_tcp_req_attrs attrs = {
	    .rcv_tsval = bpf_ntohl(h->ts_recent),
	    .rcv_tsecr = bpf_ntohl(h->tsval_now),
	    .mss = bpf_ntohs(h->mss),
	};
	long error;

	attributes(&attrs, h->options, h->snd_wscale, h->rcv_wscale);
	error = convert(skb, h, &event->flow);
	if (!error)
		error = assign(skb, listener, &attrs);
	if (error) {
		tombstone_refuse(&event->flow, bpf_ntohl(h->generation), REASON_KERNEL_REFUSED,
				 -error);
		return refuse(event, REASON_KERNEL_REFUSED, -error);
	}
	count(ND_OPENED);
	tell_opened(event);
	return TC_ACT_OK;
}

static inline int claim_and_open(struct __sk_buff *skb, struct node_event *event,
				 struct bpf_sock *listener)
{
	const struct wire_header *h = &event->header;

	switch (tombstone_claim(&event->flow, bpf_ntohl(h->generation), bpf_ntohl(h->snd_nxt),
				bpf_ntohs(h->target_port), 0)) {
	case TOMBSTONE_DONE:
		return open_here(skb, event, listener);
	case TOMBSTONE_FULL:
		return refuse(event, REASON_TOMBSTONES_FULL, 0);
	case TOMBSTONE_OLD:
		return duplicate(event);
	default: /* under the hands of the agent that sweeps it: let the agent sort it out */
		count(ND_TO_AGENT);
		return NEXT_PROGRAM;
	}
}

/* The agent opens it, or answers: until it has, nothing may answer the client in its place. */
static inline int leave_to_agent(struct node_event *event)
{
	const struct wire_header *h = &event->header;

	count(ND_TO_AGENT);
	if (tombstone_announce(&event->flow, bpf_ntohl(h->generation), bpf_ntohl(h->snd_nxt),
			       bpf_ntohs(h->target_port)) == TOMBSTONE_DONE)
		tell(event, EVENT_ANNOUNCED, REASON_NONE, 0);
	return NEXT_PROGRAM;
}

/* A transfer of one part whose tag fits. */
static inline int resume_transfer(struct __sk_buff *skb, struct node_event *event)
{
	const struct wire_header *h = &event->header;
	struct tombstone *tombstone = bpf_map_lookup_elem(&tombstones, &event->flow);
	union tombstone_word known = {};
	struct bpf_sock *listener;
	int verdict;

	if (tombstone)
		known = tombstone_read(tombstone);
	if (known.is.state == TOMB_ANNOUNCED && known.is.generation == bpf_ntohl(h->generation))
		return leave_to_agent(event);
	if (tombstone && !generation_newer(bpf_ntohl(h->generation), known.is.generation))
		return duplicate(event);
	listener = find_socket(skb, event->flow.family, &event->flow.client, h->client_port,
			       &event->flow.vip, h->target_port);
	if (!listener)
		return refuse_unopened(event, REASON_NO_LISTENER);
	if (socket_state(listener) == SOCKET_LISTEN)
		verdict = claim_and_open(skb, event, listener);
	else
		verdict = leave_to_agent(event);
	bpf_sk_release(listener);
	return verdict;
}

/* Message numbers of COMMITs, by sender and lane: a tombstone tells of a repeat as long as it lasts, this also of one that was recorded
 * and is sent much later. */
struct commit_window {
	struct replay_bits bits;
	struct bpf_spin_lock lock;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_NODES *MAX_LANES);
	__type(key, __u32);
	__type(value, struct commit_window);
} commit_numbers SEC(".maps");

static inline bool is_new(const struct wire_header *h)
{
	__u32 index = bpf_ntohs(h->sender) * MAX_LANES + (h->lane & (MAX_LANES - 1));
	struct commit_window *window = bpf_map_lookup_elem(&commit_numbers, &index);
	__u64 number = bpf_be64_to_cpu(h->sequence);
	bool accepted;

	if (!window)
		return false;
	bpf_spin_lock(&window->lock);
	accepted = replay_accept(&window->bits, number);
	bpf_spin_unlock(&window->lock);
	return accepted;
}

static inline int dropped(__u32 counter)
{
	count(counter);
	return TC_ACT_SHOT;
}

static inline int resume_datagram(struct __sk_buff *skb, const struct packet *p,
				  const struct node_settings *settings, struct work *w)
{
	struct wire_header *h = &w->event.header;
	__u32 body = (p->l4 + sizeof(struct udphdr)) & PACKET_OFFSET_MASK;
	enum form form;

	if (bpf_skb_load_bytes(skb, body, h, sizeof(*h)))
		return NEXT_PROGRAM;
	form = check_form(h, p, settings);
	if (form == FORM_NOT_OURS)
		return NEXT_PROGRAM;
	if (form == FORM_BAD)
		return dropped(ND_DROP_BAD_MESSAGE);
	if (!load_payload(skb, w, body + sizeof(*h), bpf_ntohl(h->payload_length)))
		return dropped(ND_DROP_BAD_MESSAGE);
	if (!check_tag(w))
		return dropped(ND_DROP_BAD_TAG);
	if (!client_fits(h))
		return dropped(ND_DROP_BAD_MESSAGE);
	if (!is_new(h))
		return dropped(ND_DROP_REPLAY);
	name_flow(settings, h, &w->event.flow);
	address_copy(&w->event.from, &p->source);
	w->event.from_port = p->source_port;
	return form == FORM_OK ? resume_transfer(skb, &w->event) : leave_to_agent(&w->event);
}

/* Ingress of the node's interface. */
SEC("tc")
int resume_wire(struct __sk_buff *skb)
{
	struct node_settings *settings = own_settings();
	struct packet p;
	struct work *w;

	if (!settings || settings->no_resume || skb->gso_size || !see_packet(skb, true, &p))
		return NEXT_PROGRAM;
	if (p.protocol != IPPROTO_UDP || p.destination_port != settings->control_port ||
	    p.state & (PACKET_FRAGMENT | PACKET_MALFORMED) ||
	    p.payload < sizeof(struct wire_header))
		return NEXT_PROGRAM;
	w = own_work();
	if (!w)
		return NEXT_PROGRAM;
	w->event.received_ns = bpf_ktime_get_ns();
	return resume_datagram(skb, &p, settings, w);
}

/* ---- through the TUN ---- */

/* Takes the flow out of `pending`: exactly one taker gets it, because deleting succeeds once. */
static inline bool take_pending(const struct flow_key *flow, struct pending_resume *resume)
{
	const struct pending_resume *found = bpf_map_lookup_elem(&pending, flow);

	if (!found)
		return false;
	*resume = *found;
	return bpf_map_delete_elem(&pending, flow) == 0;
}

/* The agent has claimed the tombstone before it wrote to `pending`. -errno; -ENOENT: no listener. */
static inline long open_pending(struct __sk_buff *skb, const struct packet *p,
				const struct pending_resume *resume)
{
	struct bpf_sock *listener = find_socket(skb, p->family, &p->source, p->source_port,
						&p->destination, p->destination_port);
	struct bpf_tcp_req_attrs attrs = {
	    .rcv_tsval = resume->ts_recent,
	    .rcv_tsecr = resume->tsval_now,
	    .mss = resume->mss,
	};
	long error;

	if (!listener)
		return -ENOENT;
	attributes(&attrs, resume->options, resume->snd_wscale, resume->rcv_wscale);
	error = socket_state(listener) == SOCKET_LISTEN ? assign(skb, listener, &attrs) : -EEXIST;
	bpf_sk_release(listener);
	return error;
}

static inline __u8 reason_of(long error)
{
	if (error == -ENOENT)
		return REASON_NO_LISTENER;
	return error == -EEXIST ? REASON_TUPLE_BUSY : REASON_KERNEL_REFUSED;
}

/* Ingress of the agent's TUN: what the agent writes. */
SEC("tc")
int resume_tun(struct __sk_buff *skb)
{
	struct pending_resume resume KEY_ALIGNED;
	struct flow_key flow KEY_ALIGNED = {};
	struct packet p;
	long error;

	if (!see_packet(skb, false, &p) || p.protocol != IPPROTO_TCP ||
	    p.state & (PACKET_FRAGMENT | PACKET_MALFORMED))
		return NEXT_PROGRAM;
	address_copy(&flow.client, &p.source);
	address_copy(&flow.vip, &p.destination);
	flow.client_port = p.source_port;
	flow.family = p.family;
	if (!take_pending(&flow, &resume))
		return NEXT_PROGRAM;
	error = open_pending(skb, &p, &resume);
	if (error) {
		tombstone_refuse(&flow, resume.generation, reason_of(error), -error);
		count(ND_REFUSED);
		return TC_ACT_SHOT;
	}
	count(ND_OPENED_TUN);
	return TC_ACT_OK;
}

char _license[] SEC("license") = "Dual MIT/GPL";
