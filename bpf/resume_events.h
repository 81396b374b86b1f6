/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* What the resume program tells the agent, and when the agent is woken for it. */
#ifndef TCPMIG_RESUME_EVENTS_H
#define TCPMIG_RESUME_EVENTS_H

#include <linux/errno.h>
#include <linux/time.h>

#include "lib/node.h"

/* The child comes into being after this program, in the same softirq, and the process that is to accept it is woken after that. An agent
 * that is woken by the event itself looks too early on another CPU, and on the same one takes the CPU from a server that has just been
 * given a request. Nothing waits for it but the frozen socket: so it is woken a little later, once for all that came meanwhile. */
enum {
	WAKES = 64,
	WAKE_DELAY_NS = 1000000,
	EVENTS_MANY = NODE_EVENTS_BYTES / 4,
};

struct wake {
	struct bpf_timer timer;
	__u64 armed;
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, WAKES);
	__type(key, __u32);
	__type(value, struct wake);
} wakes SEC(".maps");

static inline void wake_now(void)
{
	void *nothing = bpf_ringbuf_reserve(&node_events, sizeof(__u64), 0);

	if (nothing)
		bpf_ringbuf_discard(nothing, BPF_RB_FORCE_WAKEUP);
}

static int wake_agent(void *map __attribute__((unused)), __u32 *index __attribute__((unused)),
		      struct wake *wake)
{
	__sync_lock_test_and_set(&wake->armed, 0); /* before: what comes now arms it anew */
	wake_now();
	return 0;
}

static inline bool arm(struct wake *wake)
{
	if (__sync_lock_test_and_set(&wake->armed, 1))
		return true;
	if (bpf_timer_set_callback(&wake->timer, wake_agent) == -EINVAL &&
	    (bpf_timer_init(&wake->timer, &wakes, CLOCK_MONOTONIC) ||
	     bpf_timer_set_callback(&wake->timer, wake_agent)))
		goto failed;
	if (!bpf_timer_start(&wake->timer, WAKE_DELAY_NS, 0))
		return true;
failed:
	wake->armed = 0;
	return false;
}

/* True: the agent will be woken without being told to now. Not where the buffer fills: there would be no room for the waking. */
static inline bool will_be_woken(void)
{
	__u32 index = bpf_get_smp_processor_id() % WAKES;
	struct wake *wake = bpf_map_lookup_elem(&wakes, &index);

	return wake && bpf_ringbuf_query(&node_events, BPF_RB_AVAIL_DATA) < EVENTS_MANY &&
	       arm(wake);
}

static inline void put_event(struct node_event *event, __u64 flags)
{
	event->done_ns = bpf_ktime_get_ns();
	if (bpf_ringbuf_output(&node_events, event, sizeof(*event), flags))
		count(ND_EVENT_LOST);
}

static inline void tell(struct node_event *event, __u8 type, __u8 reason, __u32 detail)
{
	event->type = type;
	event->reason = reason;
	event->detail = detail;
	put_event(event, 0);
}

static inline void tell_opened(struct node_event *event)
{
	event->type = EVENT_OPENED;
	event->reason = REASON_NONE;
	event->detail = 0;
	put_event(event, BPF_RB_NO_WAKEUP);
	if (!will_be_woken())
		wake_now();
}

#endif
