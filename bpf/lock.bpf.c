// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* The lock of one socket. A socket filter on an established TCP socket runs before TCP looks at the segment: what it
 * drops was never received, so nothing is acknowledged and the state stands still. A plain drop would cost the client a
 * retransmission timeout (200 ms), so every segment is copied into a ring buffer first and goes after the connection.
 *
 * Attached with SO_ATTACH_BPF, one system call of 0.5-0.7 us, because the program is loaded already. It holds up
 * only what comes later: a softirq that was past the filter still delivers (docs/kernel-notes.md). */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "shared/node_maps.h"

enum { SEGMENT_MAX = 65535 }; /* GRO joins what arrived up to one IP packet's length */

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20);
} captures SEC(".maps");

/* [0]: segments that were dropped without a copy */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} captures_lost SEC(".maps");

/* A ring buffer record is reserved with a constant size, or else copied from one piece of memory: this one, one for each
 * CPU. A per-CPU array is not allowed values above 32 KB, so it is an array with an element for each CPU (user space sets
 * max_entries); bottom halves are off while the filter runs, nobody else is on this CPU's element. */
struct record {
	struct capture head;
	__u8 segment[SEGMENT_MAX + 1];
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct record);
} scratch SEC(".maps");

/* Returns 0, or -1 when there is no copy of the segment. */
static __always_inline int copy_segment(struct __sk_buff *skb)
{
	__u32 cpu = bpf_get_smp_processor_id();
	struct record *record = bpf_map_lookup_elem(&scratch, &cpu);
	__u32 length = skb->len; /* data starts at the TCP header here */

	if (!record || length == 0 || length > SEGMENT_MAX)
		return -1;
	/* The same once more, in a way that the verifier of Linux 6.1 follows (1 .. SEGMENT_MAX + 1): the compiler makes one comparison of the
	 * two above, and to that verifier "not 0" is no lower bound. */
	asm volatile("" : "+r"(length));
	length = ((length - 1) & SEGMENT_MAX) + 1;
	/* Not bpf_skb_load_bytes_relative(): it gave zeros for what lies in fragments. */
	if (bpf_skb_load_bytes(skb, 0, record->segment, length))
		return -1;
	record->head.cookie = bpf_get_socket_cookie(skb);
	record->head.captured_ns = bpf_ktime_get_ns();
	record->head.length = length;
	record->head.pad = 0;
	return bpf_ringbuf_output(&captures, record, sizeof(record->head) + length, 0) ? -1 : 0;
}

SEC("socket")
int lock(struct __sk_buff *skb)
{
	if (copy_segment(skb)) {
		__u32 zero = 0;
		__u64 *lost = bpf_map_lookup_elem(&captures_lost, &zero);

		if (lost)
			__sync_fetch_and_add(lost, 1);
	}
	return 0; /* keep nothing: dropped */
}

char program_license[] SEC("license") = "Dual MIT/GPL";
