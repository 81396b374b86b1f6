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

/* The switch is replaced by one that knows nothing, and which recovers for so long: its boot 2. */
void sim_switch_lose_table(uint64_t recovery_ns);

/* A packet of the client. The node that gets it, 0: dropped. */
uint32_t sim_switch_inward(uint8_t tcp_flags, uint32_t payload);
/* A packet of a node in the service's name. Does it reach the client? */
bool sim_switch_outward(uint32_t node, uint8_t tcp_flags, uint32_t payload);

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
};
/* A COMMIT. 0: it goes on to its target; else the reason of the refusal; -1: taken back, or given to the sender itself;
 * -2: not answered. */
int sim_switch_commit(const struct sim_commit* commit, uint32_t* current_generation);
/* RENEW and GONE of a node. */
void sim_switch_renew(uint32_t node, uint32_t generation);
void sim_switch_gone(uint32_t node, uint32_t generation);

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
