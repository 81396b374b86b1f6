/* SPDX-License-Identifier: MIT */
/* The switch's decisions, compiled for the host from bpf/switch_core_*.h: what the simulator of a transfer has as its
 * switch is the code of the real one. Addresses and rewriting are left out: a packet is a value here. */
#ifndef TCPMIG_TESTS_SIM_SWITCH_HOST_H
#define TCPMIG_TESTS_SIM_SWITCH_HOST_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { SIM_SERVICE = 1, SIM_SERVER_PORT = 80 };

/* Nodes 1..nodes exist; those up to `dispatchers` are dispatchers. Times in ns. */
void sim_switch_set_up(uint32_t nodes, uint32_t dispatchers, uint64_t closing_ns, uint64_t idle_ns);
/* No flow is known any more. Boot 1 of the switch. */
void sim_switch_clear(void);

/* The switch is replaced by one that knows nothing, and which recovers for so long: its next boot. */
void sim_switch_lose_table(uint64_t recovery_ns);

/* A segment, as far as the switch looks at it. `seq` and `ack` count from where the connection was frozen first. */
struct sim_segment {
  uint8_t tcp_flags;
  uint32_t payload;
  uint32_t seq;
  uint32_t ack;
};
/* A packet of the client. The node that gets it, 0: dropped. */
uint32_t sim_switch_inward(const struct sim_segment* segment);
/* A packet of a node in the service's name. Does it reach the client? */
bool sim_switch_outward(uint32_t node, const struct sim_segment* segment);

/* What the switch wants to tell a node: REVOKED. False: nothing. */
struct sim_revocation {
  uint32_t node;
  uint32_t generation;
};
bool sim_switch_revocation(struct sim_revocation* told);

struct sim_commit {
  uint32_t generation;
  uint32_t first; /* of its transfer's COMMITs, what may have been applied */
  uint16_t sender;
  uint16_t target;
  uint32_t boot;
  uint32_t snd_nxt; /* where the new owner's first word begins */
  bool is_data;     /* DATA, which changes nothing */
};
/* COMMIT or DATA. 0: it goes on to its target; else the reason of the refusal; -1: taken back, or given to the sender itself;
 * -2: not answered. */
int sim_switch_commit(const struct sim_commit* commit, uint32_t* current_generation);
/* RENEW and GONE of a node. */
void sim_switch_renew(uint32_t node, uint32_t generation);
void sim_switch_gone(uint32_t node, uint32_t generation);

/* What `switch run` reads and does: the element of `flows` (struct flow_value) and of `affinity` (struct affinity_value), NULL:
 * there is none; the program `reap` (struct reap_request, whose key is filled in); the program `forget`. */
const void* sim_switch_flow(void);
const void* sim_switch_binding(void);
void sim_switch_reap(void* request);
void sim_switch_forget(uint64_t dead_ns);
/* All that is new goes to this dispatcher; what is bound to `down` (0: to none), too. */
void sim_switch_use_dispatcher(uint32_t dispatcher, uint32_t down);

/* What the switch thinks: owner (0: nobody), generation, has it spoken. */
struct sim_owner {
  uint32_t owner;
  uint32_t generation;
  bool spoke;
  bool closing;
};
struct sim_owner sim_switch_owner(void);
/* Deliberate damage, for the mutations. */
void sim_switch_forget_spoke(void);

#ifdef __cplusplus
}
#endif
#endif
