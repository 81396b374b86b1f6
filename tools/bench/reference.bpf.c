// SPDX-License-Identifier: (MIT OR GPL-2.0-only)
/* What the switch's programs are measured against: the least that a router in BPF does for a packet (parse, bpf_fib_lookup, MAC
 * addresses, TTL, redirect), and the same with what the least load balancer adds (one lookup in a hash of 40-byte keys, a new destination,
 * checksums). IPv4 and TCP only, no counters, no checks that forwarding does not need: nobody could run them. And one that does nothing. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "driver.h"
#include "lib/rewrite.h"

enum { AF_INET_NUMBER = 2 };

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 1048576);
  __type(key, struct flow_key);
  __type(value, struct reference_value);
} table SEC(".maps");

struct headers {
  struct ethhdr* ethernet;
  struct iphdr* ip;
  struct tcphdr* tcp;
};

static __always_inline bool read_headers(void* data, void* end, struct headers* h) {
  h->ethernet = data;
  h->ip = data + ETH_HLEN;
  h->tcp = (void*)(h->ip + 1);
  return (void*)(h->tcp + 1) <= end && h->ethernet->h_proto == bpf_htons(ETH_P_IP) &&
         h->ip->ihl == 5 && h->ip->protocol == IPPROTO_TCP && h->ip->ttl > 1;
}

/* New destination, in both checksums; false: the flow is not known. */
static __always_inline bool translate(struct headers* h) {
  struct flow_key key KEY_ALIGNED = {
      .client_port = h->tcp->source, .vip_port = h->tcp->dest, .family = FAMILY_IPV4};
  struct reference_value* value;
  __u64 change;

  address_from_v4(&key.client, h->ip->saddr);
  address_from_v4(&key.vip, h->ip->daddr);
  value = bpf_map_lookup_elem(&table, &key);
  if (!value) return false;
  change = csum_change_32(h->ip->daddr, value->address);
  h->ip->check = csum_apply(h->ip->check, change);
  change += csum_change_16(h->tcp->dest, value->port);
  h->tcp->check = csum_apply(h->tcp->check, change);
  h->ip->daddr = value->address;
  h->tcp->dest = value->port;
  return true;
}

/* The interface to send it out of; 0: no. */
static __always_inline __u32 next_hop(void* ctx, __u32 ifindex, struct headers* h) {
  struct bpf_fib_lookup fib = {.family = AF_INET_NUMBER,
                               .l4_protocol = IPPROTO_TCP,
                               .tot_len = bpf_ntohs(h->ip->tot_len),
                               .ipv4_src = h->ip->saddr,
                               .ipv4_dst = h->ip->daddr,
                               .ifindex = ifindex};

  if (bpf_fib_lookup(ctx, &fib, sizeof(fib), 0) != BPF_FIB_LKUP_RET_SUCCESS) return 0;
  __builtin_memcpy(h->ethernet->h_dest, fib.dmac, ETH_ALEN);
  __builtin_memcpy(h->ethernet->h_source, fib.smac, ETH_ALEN);
  h->ip->ttl--;
  h->ip->check = csum_apply(h->ip->check, CSUM_CHANGE_TTL);
  return fib.ifindex;
}

static __always_inline __u32 forward(void* ctx, void* data, void* end, __u32 ifindex, bool dnat) {
  struct headers h;

  if (!read_headers(data, end, &h) || (dnat && !translate(&h))) return 0;
  return next_hop(ctx, ifindex, &h);
}

#define BACKEND(name, type, section, dropped, redirected)                       \
  SEC(section) int name##_forward(type* ctx) {                                  \
    __u32 to = forward(ctx, (void*)(long)ctx->data, (void*)(long)ctx->data_end, \
                       ctx->ingress_ifindex, false);                            \
    return to ? bpf_redirect(to, 0) : dropped;                                  \
  }                                                                             \
  SEC(section) int name##_dnat(type* ctx) {                                     \
    __u32 to = forward(ctx, (void*)(long)ctx->data, (void*)(long)ctx->data_end, \
                       ctx->ingress_ifindex, true);                             \
    return to ? bpf_redirect(to, 0) : dropped;                                  \
  }                                                                             \
  SEC(section) int name##_nothing(type* ctx) {                                  \
    (void)ctx;                                                                  \
    return redirected;                                                          \
  }

BACKEND(xdp, struct xdp_md, "xdp", XDP_DROP, XDP_REDIRECT)
BACKEND(tc, struct __sk_buff, "tc", TC_ACT_SHOT, TC_ACT_REDIRECT)

char _license[] SEC("license") = "Dual MIT/GPL";
