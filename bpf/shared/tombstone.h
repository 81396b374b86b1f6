/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* What the agent asks of the tombstones. It reads them as it likes, but changes them through a program (guard.bpf.c,
 * tombstone_change, run by BPF_PROG_RUN), because only a program can compare and swap inside the map. */
#ifndef TCPMIG_SHARED_TOMBSTONE_H
#define TCPMIG_SHARED_TOMBSTONE_H

#include "shared/node_maps.h"

TCPMIG_ABI_BEGIN

enum tombstone_verb {
	TOMBSTONE_CLAIM = 1,  /* this generation shall be opened here: OPENING */
	TOMBSTONE_SETTLE = 2, /* OPENING -> state (CONFIRMED, REFUSED or ABORTED); any other state stays */
	TOMBSTONE_FORBID = 3, /* this generation and every older one shall never be opened here: ABORTED, unless it was opened */
	TOMBSTONE_SWEEP = 4,  /* forget it, if its generation is still this one */
	TOMBSTONE_ANNOUNCE = 5, /* its COMMIT has come: ANNOUNCED. CLAIM and FORBID of the same generation may follow */
};

enum tombstone_outcome {
	TOMBSTONE_DONE = 1,
	TOMBSTONE_OLD = 2,    /* the tombstone knows this generation or a newer one; or is in another state */
	TOMBSTONE_FULL = 3,
	TOMBSTONE_BUSY = 4,   /* it changed too often while it was looked at: try again */
	TOMBSTONE_ABSENT = 5,
};

struct tombstone_request {
	struct flow_key flow;
	__u32 generation;
	__u8 verb;    /* enum tombstone_verb */
	__u8 state;   /* SETTLE */
	__u8 reason;  /* SETTLE */
	__u8 pad;
	__u16 detail;      /* SETTLE */
	__u16 target_port; /* CLAIM, ANNOUNCE, FORBID; as in struct tombstone */
	__u32 snd_nxt;     /* CLAIM, ANNOUNCE */
	__u32 received;    /* CLAIM; as in struct tombstone */
	__u16 outcome;     /* out: enum tombstone_outcome */
	__u16 pad2;
	struct tombstone now; /* out: what stands there; all zero = nothing */
};
TCPMIG_ASSERT_SIZE(struct tombstone_request, 104);

TCPMIG_ABI_END
#endif
