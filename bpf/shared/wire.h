/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* The control protocol: UDP datagrams on the control port. Every message is one fixed header of 128 bytes and a payload.
 * docs/protocol.md describes it byte by byte; this file is the definition.
 *
 * Two tags authenticate it (SipHash-2-4, RFC-less; Aumasson & Bernstein 2012), both little-endian u64 stored as they are:
 *   switch_tag  over bytes [0, WIRE_TAGGED) of the header with the key node<->switch of `sender`
 *   target_tag  over bytes [0, WIRE_TAGGED) of the header and then the payload, with the pair key of (sender, target)
 * Messages that go to the switch and on to a target (COMMIT, DATA) carry both; to the switch alone (GONE, RENEW, HEARTBEAT) only the
 * first; node to node only the second; what the switch answers (REFUSED, RESUMED, HEARTBEAT) carries switch_tag with the key of the node it is sent to.
 * A tag that does not apply is zero. */
#ifndef TCPMIG_SHARED_WIRE_H
#define TCPMIG_SHARED_WIRE_H

#include "shared/flow.h"

TCPMIG_ABI_BEGIN

enum wire_constants {
	WIRE_MAGIC = 0x54434d47, /* "TCMG" */
	WIRE_VERSION = 1,
	WIRE_VERSION_WHOLE = 2,  /* of a message with WIRE_FLAG_WHOLE: who does not know the flag does not know the version */
	WIRE_TAGGED = 104,       /* bytes of the header under the tags; the rest are the tags and a diagnostic stamp */
	WIRE_HEADER_SIZE = 128,
	/* the largest datagram is made for a path MTU of 1500 and sent with DF (IPv6 header + UDP header + ours) */
	WIRE_PAYLOAD_MAX_IPV4 = 1500 - 20 - 8 - 128,
	WIRE_PAYLOAD_MAX_IPV6 = 1500 - 40 - 8 - 128,
	WIRE_PARTS_MAX = 256,
	WIRE_SNAPSHOT_MAX = 256 * 1024, /* received bytes one transfer may carry */
	/* with WIRE_FLAG_WHOLE: */
	WIRE_WHOLE_MAX = 8 * 1024 * 1024, /* snapshot and blob */
	WIRE_WHOLE_PARTS_MAX = 6400,      /* as many as that takes */
};

/* Directions: S = to the switch (its nearest address), N = node to node. */
enum wire_type {
	WIRE_COMMIT = 1,  /* S, then on to the target: the one message that moves a flow; carries the last (or only) part */
	WIRE_DATA = 2,    /* S, then on to the target: a part of a large snapshot; changes no state */
	WIRE_GONE = 3,    /* S: the owner says that its socket has ended: the entry closes */
	WIRE_RENEW = 4,   /* S: the owner says that its socket is alive: the idle lease starts again; a switch that has lost its table
	                   * makes the entry anew */
	WIRE_RESUMED = 5, /* N, target -> source port of the COMMIT: the child exists */
	WIRE_REFUSED = 6, /* N, or from the switch (sender 0): it does not, `reason` says why */
	WIRE_ABORT = 7,   /* N, source -> target: forget this generation if it has not been opened; answered by ABORTED or RESUMED */
	WIRE_ABORTED = 8, /* N: it was not opened and never will be (a tombstone was left) */
	WIRE_REVOKED = 9, /* switch -> node: you are not the owner any more */
	WIRE_SEGMENT = 10,/* N, source -> owner: a client's TCP segment (header and data) that reached the source too late (TAIL, captures) */
	WIRE_LOAD = 11,   /* N, server -> dispatcher, every 100 ms: live connections; also the heartbeat */
	WIRE_MISSING = 12,/* N, target -> source: parts of a several-part transfer that have not come: payload = be16 part numbers */
	WIRE_HEARTBEAT = 13, /* S, every node, each 100 ms: detail = the sender's instance. The switch answers it: detail = its boot */
	WIRE_TYPE_MAX
};

/* Why a transfer was refused (header.reason of REFUSED). The text is what `tcpmig` prints. X(NAME, value, text). */
#define WIRE_REASONS(X) \
	X(REASON_NONE, 0, "none") \
	X(REASON_STALE_GENERATION, 1, "stale generation") \
	X(REASON_ALREADY_SPOKE, 2, "the owner has already spoken") \
	X(REASON_NOT_ENTITLED, 3, "the sender does not own the flow") \
	X(REASON_UNKNOWN_NODE, 4, "unknown target node") \
	X(REASON_UNKNOWN_SERVICE, 5, "unknown service") \
	X(REASON_TABLE_FULL, 6, "flow table full") \
	X(REASON_REPLAY, 7, "message number too old or seen before") \
	X(REASON_TOO_LARGE, 8, "the datagram does not fit the path to the target") \
	X(REASON_OTHER_BOOT, 9, "the switch has lost its table since the transfer began") \
	X(REASON_NO_LISTENER, 16, "no listener on the server's port") \
	X(REASON_BACKLOG_FULL, 17, "the listener's backlog is full") \
	X(REASON_KERNEL_REFUSED, 18, "the server's kernel refused (errno in detail)") \
	X(REASON_NO_KFUNC, 19, "the server's kernel has no bpf_sk_assign_tcp_reqsk") \
	X(REASON_TOMBSTONES_FULL, 20, "the server's tombstone table is full") \
	X(REASON_TUPLE_BUSY, 21, "a live socket has the same four-tuple") \
	X(REASON_INCOMPLETE, 22, "parts missing at the deadline") \
	X(REASON_ABORTED, 23, "aborted before it was opened") \
	X(REASON_NOT_TAKEN, 24, "no program on the server took the connection") \
	X(REASON_NO_HANDOFF, 25, "no program on the server takes whole connections (handoff)")

enum wire_reason {
#define X(name, value, text) name = value,
	WIRE_REASONS(X)
#undef X
};

/* header.options: what the two ends negotiated on the SYN */
enum wire_options {
	WIRE_OPT_WSCALE = 1,
	WIRE_OPT_SACK = 2,
	WIRE_OPT_TIMESTAMPS = 4,
	WIRE_OPT_ECN = 8,
	WIRE_OPT_USEC_TS = 16, /* timestamps tick in microseconds (Linux 6.7) */
};

/* header.flags */
enum wire_flags {
	WIRE_FLAG_CRAFTED = 1, /* SEGMENT: made from bytes, not captured: its acknowledgement number must be filled in */
	WIRE_FLAG_TAKE_BACK = 2, /* COMMIT: the target is the sender itself: nothing is forwarded, the switch answers RESUMED */
	WIRE_FLAG_CLIENT_FIN = 4, /* COMMIT: the client's FIN follows the received bytes */
	WIRE_FLAG_DRAINING = 8, /* HEARTBEAT: takes no new connections */
	WIRE_FLAG_WHOLE = 16, /* COMMIT, DATA: the payload of all parts is a whole connection: be32 length of the encoded snapshot, the snapshot, the
	                       * application's blob. payload_seq counts the payload's own bytes, from 0; snd_nxt is the oldest byte that the client has not
	                       * acknowledged. */
	WIRE_FLAGS_KNOWN = 31,
};

struct wire_header {
	/*   0 */ __be32 magic;
	/*   4 */ __u8 version; /* WIRE_VERSION, or WIRE_VERSION_WHOLE */
	/*   5 */ __u8 type;   /* enum wire_type */
	/*   6 */ __u8 key_id; /* which of the two valid cluster keys */
	/*   7 */ __u8 flags;  /* enum wire_flags */
	/*   8 */ __be64 sequence; /* strictly rising per (sender, lane); an answer repeats that of what it answers */
	/*  16 */ __be16 sender; /* node id; 0 = the switch */
	/*  18 */ __be16 target; /* node id the transfer is for (COMMIT, DATA) or the message goes to */
	/*  20 */ __u8 lane;     /* sending event loop, < MAX_LANES */
	/*  21 */ __u8 family;   /* of the flow: enum ip_family */
	/*  22 */ __be16 service;
	/*  24 */ __be32 generation; /* of the flow after this message is applied */
	/*  28 */ __be32 current_generation; /* REFUSED: what the refusing side knows. COMMIT, DATA: the first of this transfer that may have been applied; 0: this one */
	/*  32 */ struct ip_address client;
	/*  48 */ __be16 client_port;
	/*  50 */ __be16 target_port; /* TCP port of the server on the target; RENEW: on the sender */
	/*  52 */ __be16 part;        /* 0 .. parts-1; COMMIT is part parts-1 */
	/*  54 */ __be16 parts;       /* 1 .. WIRE_PARTS_MAX */
	/*  56 */ __be32 payload_seq; /* TCP sequence number of the first payload byte of this part */
	/*  60 */ __be32 total_length;/* received bytes of the whole snapshot */
	/*  64 */ __be32 rcv_nxt;     /* next byte expected of the client = payload_seq of part 0 + total_length */
	/*  68 */ __be32 snd_nxt;     /* next byte the service will send; nothing is unacknowledged */
	/*  72 */ __be32 snd_wnd;     /* the client's window, bytes (already scaled) */
	/*  76 */ __be16 mss;         /* the client's MSS (mss_clamp) */
	/*  78 */ __be16 payload_csum;/* RFC 1071 sum of the payload, folded, NOT complemented, so that the target need not add it up */
	/*  80 */ __u8 options;       /* enum wire_options */
	/*  81 */ __u8 snd_wscale;
	/*  82 */ __u8 rcv_wscale;
	/*  83 */ __u8 reason;        /* enum wire_reason */
	/*  84 */ __be32 tsval_now;   /* the TSval the service would use now */
	/*  88 */ __be32 ts_recent;   /* the client's latest TSval */
	/*  92 */ __be32 srtt_us;     /* smoothed round-trip time, microseconds */
	/*  96 */ __be32 detail;      /* REFUSED: errno; LOAD: live connections; RESUMED: ns from datagram to child, saturated; HEARTBEAT: instance, or boot;
	                        * REFUSED (other boot): the boot; COMMIT, DATA:
	                        * the boot of the switch when the transfer began, 0 = not known */
	/* 100 */ __be32 payload_length;
	/* 104 */ __u64 switch_tag;
	/* 112 */ __u64 target_tag;
	/* 120 */ __be64 switch_ns;   /* not under the tags: CLOCK_MONOTONIC of the switch when it committed; diagnostics only */
};
TCPMIG_ASSERT_SIZE(struct wire_header, WIRE_HEADER_SIZE);

/* The version is one that we know, and the flags are those that it may have. */
static inline int wire_form_is_known(const struct wire_header *header)
{
	__u8 version = header->flags & WIRE_FLAG_WHOLE ? WIRE_VERSION_WHOLE : WIRE_VERSION;

	return header->version == version && !(header->flags & ~WIRE_FLAGS_KNOWN);
}

/* Payload of RESUMED: when things happened, CLOCK_MONOTONIC of the machine that did them (comparable in a lab on one machine). */
struct wire_resumed {
	__be64 switch_ns;   /* as it stood in the COMMIT: when the switch committed */
	__be64 received_ns; /* the COMMIT reached the server's tc program */
	__be64 opened_ns;   /* the kernel took the connection */
};
TCPMIG_ASSERT_SIZE(struct wire_resumed, 24);

TCPMIG_ABI_END
#endif
