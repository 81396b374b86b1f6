// SPDX-License-Identifier: (MIT OR GPL-2.0-only)
/* A link that loses packets. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_helpers.h>  // stands on linux/bpf.h

volatile const __u32 lost_of_1000 = 0;
__u64 lost = 0;

SEC("tc")
int lose(struct __sk_buff* skb) {
  (void)skb;
  if (bpf_get_prandom_u32() % 1000 >= lost_of_1000) return TC_ACT_OK;
  __sync_fetch_and_add(&lost, 1);
  return TC_ACT_SHOT;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
