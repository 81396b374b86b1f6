/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
#include "switch_host.h"

#include <string.h>

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#pragma GCC diagnostic ignored "-Wconversion" /* clang for BPF does not have these on */
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wunused-function"

#include "lib/parse.h"
#include "lib/rewrite.h"

/* A frame of the host: its content is never touched, the decision is what counts. */
typedef struct {
  __u32 ifindex;
} frame_context;

enum { FRAME_TO_KERNEL = 100, FRAME_DROP, FRAME_SENT, FRAME_CAN_RESOLVE = 1, CSUM_DATA = 0 };

static __u32 frame_ifindex(frame_context* frame) { return frame->ifindex; }

static __u32 frame_segment(frame_context* frame, const struct packet* packet) {
  return frame ? packet->length : 0;
}

/* The model's packets have no options. */
static long frame_load(frame_context* frame, __u32 offset, void* to, __u32 length) {
  return frame && to && offset + length == 0 ? 0 : -1;
}

static long frame_store(frame_context* frame, __u32 offset, const void* from, __u32 length) {
  return frame && from && offset + length == 0 ? 0 : -1;
}

static long frame_csum(frame_context* frame, __u8 family, __u32 offset, __u64 change, __u64 flags) {
  return frame && family && offset && change && flags ? 0 : -1;
}

static long frame_rewrite_tcp(frame_context* frame, const struct packet* packet, bool outward,
                              const struct ip_address* address, __be16 port, bool hop) {
  return frame && packet && address && (outward || port) && hop ? 0 : -1;
}

static long frame_decrement_ttl(frame_context* frame, const struct packet* packet) {
  return frame && packet ? 0 : -1;
}

static int frame_send(frame_context* frame, const struct bpf_fib_lookup* fib) {
  return frame && fib ? FRAME_SENT : FRAME_DROP;
}

static int frame_send_unresolved(const struct bpf_fib_lookup* fib) {
  return fib ? FRAME_SENT : FRAME_DROP;
}

#include "switch_core_commit.h"
#include "switch_core_forget.h"
#include "switch_core_lease.h"
#include "switch_core_reap.h"
#include "switch_core_tcp.h"

void host_map_define(const void* map, size_t key_size, size_t value_size, size_t max_entries,
                     bool array);
void* host_map_lookup(void* map, const void* key);
long host_map_update(void* map, const void* key, const void* value, __u64 flags);
long host_map_delete(void* map, const void* key);
void host_maps_clear(void);
unsigned long host_now_ns(void);

enum { CLIENTS = 1, NODES = 2 }; /* interfaces */

/* The ring buffer `revocations`, of which one event is read at a time. */
static struct revocation revocation_event;
static bool revocation_waits;

static void* ring_reserve(void* ring, __u64 size, __u64 flags) {
  return ring == &revocations && size == sizeof(revocation_event) && !flags ? &revocation_event
                                                                            : NULL;
}

static void ring_submit(void* event, __u64 flags) {
  revocation_waits = event == &revocation_event && !flags;
}

static void ring_discard(void* event, __u64 flags) {
  revocation_waits = event != &revocation_event && flags;
}

bool sim_switch_revocation(struct sim_revocation* told) {
  const bool waits = revocation_waits;

  revocation_waits = false;
  told->node = revocation_event.node;
  told->generation = revocation_event.generation;
  return waits;
}

static __u64 now(void) { return host_now_ns(); }

static long every_route(void* ctx, struct bpf_fib_lookup* fib, int length, __u32 flags) {
  return ctx && fib && length && !flags ? BPF_FIB_LKUP_RET_SUCCESS : BPF_FIB_LKUP_RET_UNREACHABLE;
}

static void define_maps(void) {
#define HASH(map, entries) \
  host_map_define(&(map), sizeof(*(map).key), sizeof(*(map).value), entries, false)
#define ARRAY(map, entries) \
  host_map_define(&(map), sizeof(*(map).key), sizeof(*(map).value), entries, true)
  HASH(flows, 16);
  HASH(affinity, 16);
  HASH(revoked, 16);
  ARRAY(settings, 1);
  ARRAY(new_flow, 1);
  ARRAY(services, MAX_SERVICES);
  ARRAY(nodes, MAX_NODES);
  ARRAY(maglev, MAGLEV_SIZE);
  ARRAY(liveness, MAX_NODES);
  ARRAY(ticks, 1);
  ARRAY(counters, SWITCH_COUNTER_MAX);
  ARRAY(node_traffic, MAX_NODES);
  ARRAY(service_traffic, MAX_SERVICES);
  host_map_define(&vips, sizeof(struct vip_key), sizeof(__u32), 4, false);
#undef HASH
#undef ARRAY
}

static struct ip_address address(__u8 a, __u8 b, __u8 c, __u8 d) {
  struct ip_address result = {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d}};

  return result;
}

static const __u16 kPort = 80;

static void fill_vips(void) {
  struct vip_key key = {.address = address(203, 0, 113, 10), .port = __builtin_bswap16(kPort)};
  __u32 service = SIM_SERVICE, none = 0;

  host_map_update(&vips, &key, &service, 0);
  key.port = 0;
  host_map_update(&vips, &key, &none, 0);
}

static struct flow_key the_flow(void) {
  struct flow_key key = {.client = address(10, 0, 1, 2),
                         .vip = address(203, 0, 113, 10),
                         .client_port = __builtin_bswap16(40000),
                         .vip_port = __builtin_bswap16(kPort),
                         .family = FAMILY_IPV4};

  return key;
}

/* The only slot of Maglev's table that the one flow of the model falls into: its hash has no other key. */
static __u32 the_slot(void) {
  const struct switch_settings* set = switch_settings();
  struct flow_key key = the_flow();

  return siphash_words(&set->hash, &key, sizeof(key) / 8) % MAGLEV_SIZE;
}

void sim_switch_use_dispatcher(uint32_t dispatcher, uint32_t down) {
  __u32 slot = the_slot();

  host_map_update(&maglev, &slot, &dispatcher, 0);
  for (__u32 i = 1; i < MAX_NODES; i++) {
    struct node_entry* node = bpf_map_lookup_elem(&nodes, &i);

    if (node->role == NODE_NONE) return;
    node->down = i == down;
  }
}

void sim_switch_set_up(uint32_t node_count, uint32_t dispatchers, uint64_t closing_ns,
                       uint64_t idle_ns) {
  struct switch_settings set = {.closing_ns = closing_ns,
                                .idle_ns = idle_ns,
                                .transfer_ms = 2000,
                                .vpa4_prefix = {100, 64, 0, 0},
                                .vpa4_prefix_length = 10};
  struct service_entry service = {
      .vip4 = address(203, 0, 113, 10), .port = __builtin_bswap16(kPort), .used = 1};
  __u32 zero = 0, id = SIM_SERVICE;

  bpf_map_lookup_elem = host_map_lookup;
  bpf_map_update_elem = host_map_update;
  bpf_map_delete_elem = host_map_delete;
  bpf_ktime_get_ns = now;
  bpf_ktime_get_coarse_ns = bpf_jiffies64 = now;
  bpf_fib_lookup = every_route;
  bpf_ringbuf_reserve = ring_reserve;
  bpf_ringbuf_submit = ring_submit;
  bpf_ringbuf_discard = ring_discard;
  define_maps();
  host_map_update(&settings, &zero, &set, 0);
  host_map_update(&services, &id, &service, 0);
  for (__u32 i = 1; i <= node_count; i++) {
    struct node_entry node = {.ifindex = NODES,
                              .role = i <= dispatchers ? NODE_DISPATCHER : NODE_SERVER};

    host_map_update(&nodes, &i, &node, 0);
  }
  sim_switch_clear();
}

static void set_boot(uint32_t boot, uint64_t recovering_until_ns) {
  __u32 zero = 0;
  struct switch_settings* set = bpf_map_lookup_elem(&settings, &zero);

  set->boot = boot;
  set->recovering_until_ns = recovering_until_ns;
}

void sim_switch_clear(void) {
  host_maps_clear();
  fill_vips();
  sim_switch_use_dispatcher(1, 0);
  revocation_waits = false;
  set_boot(1, 0);
}

void sim_switch_lose_table(uint64_t recovery_ns) {
  const uint32_t boot = switch_settings()->boot;

  host_maps_clear();
  fill_vips();
  set_boot(boot + 1, now() + recovery_ns);
}

static struct packet tcp_packet(const struct sim_segment* segment) {
  struct packet packet = {.length = 40 + segment->payload,
                          .payload = segment->payload,
                          .family = FAMILY_IPV4,
                          .protocol = IPPROTO_TCP,
                          .ttl = 64,
                          .tcp_flags = segment->tcp_flags,
                          .tcp_header = 20,
                          .seq = segment->seq,
                          .ack = segment->ack};

  return packet;
}

uint32_t sim_switch_inward(const struct sim_segment* segment) {
  frame_context frame = {CLIENTS};
  struct packet packet = tcp_packet(segment);
  struct flow_key key = the_flow();
  union flow_owner owner = {};
  struct flow_value* flow;
  int verdict;

  packet.source = key.client;
  packet.destination = key.vip;
  packet.source_port = key.client_port;
  packet.destination_port = key.vip_port;
  verdict = steer_owned(&frame, switch_settings(), &packet);
  if (verdict == NOT_OWNED) verdict = steer_inward(&frame, &packet, SIM_SERVICE);
  if (verdict != FRAME_SENT) return 0;
  flow = flow_find(switch_settings(), &key, now(), &owner);
  return flow ? (uint32_t)owner.is.owner : pick_dispatcher(&key, SIM_SERVICE, now(), NULL);
}

bool sim_switch_outward(uint32_t node, const struct sim_segment* segment) {
  frame_context frame = {NODES};
  struct packet packet = tcp_packet(segment);
  struct flow_key key = the_flow();

  vpa_encode(switch_settings(), FAMILY_IPV4, node, SIM_SERVICE, &packet.source);
  packet.destination = key.client;
  packet.source_port = __builtin_bswap16(SIM_SERVER_PORT);
  packet.destination_port = key.client_port;
  return steer_outward(&frame, switch_settings(), &packet) == FRAME_SENT;
}

int sim_switch_commit(const struct sim_commit* asked, uint32_t* current) {
  struct flow_key key = the_flow();
  struct request request = {.generation = asked->generation,
                            .further = (__u8)(asked->generation - asked->first),
                            .sender = asked->sender,
                            .target = asked->target,
                            .port = SIM_SERVER_PORT,
                            .service = SIM_SERVICE,
                            .snd_nxt = asked->snd_nxt,
                            .detail = asked->boot};
  int verdict = commit(&key, &request, now(), !asked->is_data, current);

  if (verdict < 0) return -verdict;
  if (verdict == VERDICT_UNKNOWN) return -2;
  if (!asked->is_data && (verdict == VERDICT_CREATE || verdict == VERDICT_REVIVE))
    affinity_moved(&key);
  return asked->target == asked->sender ? -1 : 0;
}

static struct flow_value* entry(union flow_owner* owner) {
  struct flow_key key = the_flow();

  return flow_find(switch_settings(), &key, now(), owner);
}

void sim_switch_renew(uint32_t node, uint32_t generation) {
  struct flow_key key = the_flow();
  struct request request = {
      .generation = generation, .sender = node, .port = SIM_SERVER_PORT, .service = SIM_SERVICE};

  lease_renew(&key, &request, now());
}

void sim_switch_gone(uint32_t node, uint32_t generation) {
  struct flow_key key = the_flow();
  struct request request = {
      .generation = generation, .sender = node, .port = SIM_SERVER_PORT, .service = SIM_SERVICE};

  lease_end(&key, &request, now());
}

const void* sim_switch_flow(void) {
  struct flow_key key = the_flow();

  return bpf_map_lookup_elem(&flows, &key);
}

const void* sim_switch_binding(void) {
  struct flow_key key = the_flow();

  return bpf_map_lookup_elem(&affinity, &key);
}

void sim_switch_reap(void* request) {
  ((struct reap_request*)request)->key = the_flow();
  reap(request);
}

void sim_switch_forget(uint64_t dead_ns) {
  struct forget_request request = {.key = the_flow(), .dead_ns = dead_ns};

  forget(&request);
}

struct sim_owner sim_switch_owner(void) {
  struct sim_owner result = {};
  union flow_owner owner = {};
  struct flow_value* flow = entry(&owner);

  if (!flow) return result;
  result.owner = owner.is.owner;
  result.generation = owner.is.generation;
  result.spoke = owner.is.spoke;
  result.closing = flow_marks_of(flow, owner).is.closing;
  return result;
}

void sim_switch_forget_spoke(void) {
  union flow_owner owner = {};
  struct flow_value* flow = entry(&owner);

  if (flow) {
    owner.is.spoke = 0;
    flow->owner = owner;
  }
}
