/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* The switch's maps, the same in both backends, and how decisions are counted. */
#ifndef TCPMIG_SWITCH_CORE_MAPS_H
#define TCPMIG_SWITCH_CORE_MAPS_H

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "lib/replay.h"
#include "shared/switch_maps.h"

/* Owned flows. A plain hash: a full table refuses a transfer, it never evicts (invariant 6). Not
 * preallocated: a million preallocated entries would lock 170 MB at load; the price, an allocation
 * from a per-CPU cache at COMMIT, is some 50 ns (a failed one is TABLE_FULL, so a relay). Freed
 * elements are reused at once either way, and nothing here depends on it: programs never delete,
 * user space removes only what is long dead, through switch_core_forget.h. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1048576);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct flow_key);
	__type(value, struct flow_value);
} flows SEC(".maps");

/* A new entry in the making: a value would not fit the stack beside what COMMIT needs. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flow_value);
} new_flow SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 262144);
	__type(key, struct flow_key);
	__type(value, struct affinity_value);
} affinity SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4 * MAX_SERVICES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct vip_key);
	__type(value, __u32);
} vips SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_SERVICES);
	__type(key, __u32);
	__type(value, struct service_entry);
} services SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_NODES);
	__type(key, __u32);
	__type(value, struct node_entry);
} nodes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct ip_address);
	__type(value, __u32);
} own_addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4 * MAX_NODES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct ip_address);
	__type(value, __u32);
} node_addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAGLEV_SIZE);
	__type(key, __u32);
	__type(value, __u32);
} maglev SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct switch_settings);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_NODES);
	__type(key, __u32);
	__type(value, struct node_liveness);
} liveness SEC(".maps");

struct replay_window {
	struct replay_bits bits;
	struct bpf_spin_lock lock;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_NODES *MAX_LANES);
	__type(key, __u32);
	__type(value, struct replay_window);
} replay SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SWITCH_COUNTER_MAX);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_NODES);
	__type(key, __u32);
	__type(value, struct traffic);
} node_traffic SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_SERVICES);
	__type(key, __u32);
	__type(value, struct traffic);
} service_traffic SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 65536);
} revocations SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct revoked_key);
	__type(value, struct revoked_value);
} revoked SEC(".maps");

/* The coarse clock as it was read in a tick (jiffy), by this CPU. */
struct tick {
	__u64 jiffies;
	__u64 ns;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct tick);
} ticks SEC(".maps");

/* CLOCK_MONOTONIC as of the last tick, or the one before: it may be older than what another CPU has just stored. Reading the coarse clock costs 10 ns, a twentieth of what a packet takes, and it does
 * not change within a tick; the number of the tick the verifier reads in place. (The time is stored first: who interrupts us between the two
 * reads it again.) */
static __always_inline __u64 coarse_now(void)
{
	__u32 zero = 0;
	struct tick *tick = bpf_map_lookup_elem(&ticks, &zero);
	__u64 jiffies = bpf_jiffies64();

	if (!tick)
		return bpf_ktime_get_coarse_ns();
	if (tick->jiffies != jiffies) {
		*(volatile __u64 *)&tick->ns = bpf_ktime_get_coarse_ns();
		*(volatile __u64 *)&tick->jiffies = jiffies;
	}
	return tick->ns;
}

static __always_inline void count(__u32 counter)
{
	__u64 *value = bpf_map_lookup_elem(&counters, &counter);

	if (value)
		(*value)++;
}

static __always_inline void count_traffic(__u32 node, __u32 service, __u32 bytes, bool outward)
{
	struct traffic *of_node = bpf_map_lookup_elem(&node_traffic, &node);
	struct traffic *of_service = bpf_map_lookup_elem(&service_traffic, &service);

	if (of_node) {
		*(outward ? &of_node->packets_out : &of_node->packets_in) += 1;
		*(outward ? &of_node->bytes_out : &of_node->bytes_in) += bytes;
	}
	if (of_service) {
		*(outward ? &of_service->packets_out : &of_service->packets_in) += 1;
		*(outward ? &of_service->bytes_out : &of_service->bytes_in) += bytes;
	}
}

static __always_inline const struct switch_settings *switch_settings(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&settings, &zero);
}

static __always_inline struct node_entry *node_of(__u32 id)
{
	return bpf_map_lookup_elem(&nodes, &id);
}

static __always_inline bool is_dispatcher(__u32 id)
{
	const struct node_entry *node = node_of(id);

	return id && node && node->role == NODE_DISPATCHER;
}

#endif
