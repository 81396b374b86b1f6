// SPDX-License-Identifier: (MIT OR GPL-2.0-only)
/* Maps of several types, for the tests of pinning and access. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>  // stands on linux/bpf.h

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __type(key, __u64);
  __type(value, __u64);
  __uint(max_entries, 4096);
} numbers SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __type(key, __u32);
  __type(value, __u32);
  __uint(max_entries, 4);
} counts SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_RINGBUF);
  __uint(max_entries, 4096);
} events SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_DEVMAP);
  __type(key, __u32);
  __type(value, __u32);
  __uint(max_entries, 4);
} ports SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_LPM_TRIE);
  __uint(key_size, 8);
  __type(value, __u32);
  __uint(max_entries, 64);
  __uint(map_flags, BPF_F_NO_PREALLOC);
} prefixes SEC(".maps");

int global = 7;

SEC("tc")
int count(struct __sk_buff* skb) {
  __u32 key = skb->len > 0;
  __u32* value = bpf_map_lookup_elem(&counts, &key);
  if (value) *value += 1;
  return global == 7 ? 0 : 2;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
