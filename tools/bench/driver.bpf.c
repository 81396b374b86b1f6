// SPDX-License-Identifier: (MIT OR GPL-2.0-only)
/* BPF_PROG_TEST_RUN repeats a program on one packet and does not make that packet anew: a TTL runs out, an address is
 * translated once and then is another one. This program stands before the one under test: at each repeat it writes the
 * headers again, of the next client or of one by chance, and tail-calls. What it costs itself is measured with a target
 * that does nothing. Checksums are not made right: nobody here looks at them, all only change them. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "driver.h"
#include "lib/siphash.h"

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct driver_plan);
} plan SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_PROG_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, __u32);
} target_xdp SEC(".maps"), target_tc SEC(".maps");

static __always_inline __u32 next_client(struct driver_plan* p) {
  __u64 x = p->random;

  if (p->order == ORDER_NEXT) return p->first + p->clients++;
  x ^= x << 13; /* xorshift64 (Marsaglia 2003) */
  x ^= x >> 7;
  x ^= x << 17;
  p->random = x;
  return p->first + (__u32)((x >> 32) * p->clients >> 32);
}

static __always_inline int write_tcp(struct driver_plan* p, void* data, void* end, __be32 address,
                                     __be16 port) {
  struct iphdr* ip = data + ETH_HLEN;
  struct tcphdr* tcp = (void*)(ip + 1);

  if (data + DRIVER_HEAD > end) return -1;
  __builtin_memcpy(data, p->head, DRIVER_HEAD);
  if (p->mode == DRIVE_INWARD) {
    ip->saddr = address;
    tcp->source = port;
  } else {
    ip->daddr = address;
    tcp->dest = port;
  }
  return 0;
}

static __always_inline int write_commit(struct driver_plan* p, void* data, void* end,
                                        __be32 address, __be16 port) {
  void* message = data + ETH_HLEN + sizeof(struct iphdr) + sizeof(struct udphdr);

  if (message + sizeof(p->wire) > end) return -1;
  __builtin_memcpy(data, p->head, ETH_HLEN + sizeof(struct iphdr) + sizeof(struct udphdr));
  ((__be32*)p->wire.client.bytes)[3] = address;
  p->wire.client_port = port;
  p->wire.sequence = bpf_cpu_to_be64(++p->sequence);
  p->wire.switch_tag = siphash_words(&p->key, &p->wire, WIRE_TAGGED / 8);
  __builtin_memcpy(message, &p->wire, sizeof(p->wire));
  return 0;
}

static __always_inline int write_packet(void* data, void* end) {
  __u32 zero = 0, client;
  struct driver_plan* p = bpf_map_lookup_elem(&plan, &zero);
  __be32 address;
  __be16 port;

  if (!p) return -1;
  client = next_client(p);
  address = bpf_htonl(p->network + client / DRIVER_PORTS);
  port = bpf_htons(DRIVER_FIRST_PORT + client % DRIVER_PORTS);
  return p->mode == DRIVE_COMMIT ? write_commit(p, data, end, address, port)
                                 : write_tcp(p, data, end, address, port);
}

SEC("xdp") int drive_xdp(struct xdp_md* ctx) {
  if (write_packet((void*)(long)ctx->data, (void*)(long)ctx->data_end)) return XDP_ABORTED;
  bpf_tail_call(ctx, &target_xdp, 0);
  return XDP_ABORTED;
}

SEC("tc") int drive_tc(struct __sk_buff* skb) {
  if (write_packet((void*)(long)skb->data, (void*)(long)skb->data_end)) return TC_ACT_SHOT;
  bpf_tail_call(skb, &target_tc, 0);
  return TC_ACT_SHOT;
}

char _license[] SEC("license") = "Dual MIT/GPL";
