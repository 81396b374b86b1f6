/* SPDX-License-Identifier: MIT */
/*
 * tcpmig: moves a live TCP connection to another process, or another machine, on a stock Linux kernel.
 *
 *   source                                       target
 *   tcpmig_kit_new()          once
 *   tcpmig_freeze()           locked, dumped
 *   tcpmig_settle()           the snapshot is final
 *   tcpmig_snapshot_encode()  --- bytes --->     tcpmig_snapshot_decode()
 *                                                tcpmig_resume()
 *                             <-- resumed ---
 *   (packets now go to the target)
 *   tcpmig_commit()           --- go ahead -->   the connection is used
 *
 * Whatever fails before tcpmig_commit(): tcpmig_thaw() gives the connection back. docs/library.md explains the order, and
 * examples/ has whole programs.
 *
 * Every function that returns int returns 0 (or what is said of it) on success and -errno on failure; nothing sets errno, nothing
 * is thrown or logged, no signal is raised. tcpmig_last_error() says in words what failed. Any function may return -ENOMEM,
 * and -EINVAL for an argument that cannot be (a null handle, a size without bytes, a flag that is not known).
 * Sequence numbers (RFC 9293, 3.4) wrap modulo 2^32. Ports in struct sockaddr are in network order, as everywhere; all other
 * numbers are in host order. All sizes are bytes.
 * Threads: a handle is used by one thread at a time; different handles by as many as like. Freezing and resuming work in the network
 * namespace of the socket and of the calling thread.
 * Privileges: CAP_NET_ADMIN in the user namespace that owns the network namespace (TCP_REPAIR); CAP_BPF or root for the lock program (without
 * it, what arrives while frozen costs the peer a retransmission); CAP_NET_RAW where packets are put in by a raw socket. A process without any
 * right names a helper that has the first: tcpmig_set_repair_helper().
 */
#ifndef TCPMIG_H
#define TCPMIG_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#define TCPMIG_VERSION_MAJOR 0
#define TCPMIG_VERSION_MINOR 1
#define TCPMIG_VERSION_PATCH 0

#if defined(__GNUC__)
#define TCPMIG_API __attribute__((visibility("default")))
#else
#define TCPMIG_API
#endif

#ifdef __cplusplus
#define TCPMIG_NOEXCEPT noexcept
extern "C" {
#else
#define TCPMIG_NOEXCEPT
#endif

/* ---- Version, errors, memory ------------------------------------------------------------------------------------------- */

/* Of the library that runs, as opposed to TCPMIG_VERSION_*, that it was compiled with: major << 16 | minor << 8 | patch. */
TCPMIG_API uint32_t tcpmig_version(void) TCPMIG_NOEXCEPT;
/* The same as "0.1.0". Static. */
TCPMIG_API const char* tcpmig_version_string(void) TCPMIG_NOEXCEPT;

/* What the last function of this thread that failed has to say, without a newline: "setsockopt TCP_REPAIR: Operation not permitted".
 * Never null; "" when none has failed. Valid until the next call of a tcpmig function in this thread. */
TCPMIG_API const char* tcpmig_last_error(void) TCPMIG_NOEXCEPT;

/* Frees what a function has allocated for its caller (documented there). Null is allowed. */
TCPMIG_API void tcpmig_free(void* memory) TCPMIG_NOEXCEPT;

/* ---- Without rights ------------------------------------------------------------------------------------------------------- */

/* Names the socket of `tcpmig repair-helper`, for the whole process: it is asked from then on for what the kernel refuses to this process (-EPERM). To
 * be called before tcpmig_kit_new(). Any thread. A helper that is not there is waited for, up to 0.3 s, and up to 3 s where a connection would be left
 * in repair mode; that there is none is no error here, but a warning of the kit.
 * The helper gets the descriptors of the connections: name a path where nobody but those you trust can put a socket.
 * `path`: at most 107 bytes, copied; null or "": no helper any more. -EINVAL: a longer one. */
TCPMIG_API int tcpmig_set_repair_helper(const char* path) TCPMIG_NOEXCEPT;

/* ---- Packets -------------------------------------------------------------------------------------------------------------- */

/* Gives one whole IP packet to the kernel as if it had been received, by a TUN device, say. Returns 0 or -errno. Where one is asked for, null
 * stands for a raw socket (IPPROTO_RAW) made for the call in the calling thread's network namespace; it needs CAP_NET_RAW. */
typedef int (*tcpmig_deliver_fn)(void* context, const void* packet, size_t size);

/* ---- Kit: what freezing works with ---------------------------------------------------------------------------------------- */

/* BPF programs, loaded once for a process, or once for each event loop. */
typedef struct tcpmig_kit tcpmig_kit;

enum tcpmig_kit_flag {
  /* Only with a cgroup. Connections that are accepted from then on acknowledge no more than some 30 KB that the application
   * has not read (window scale kept), so that snapshots stay small. */
  TCPMIG_KIT_SMALL_WINDOW = 1,
  /* Do not use the program that dumps a connection in one system call, cgroup or not. */
  TCPMIG_KIT_NO_DUMP_PROGRAM = 2
};

/* `cgroup_name`: null, or the name of a cgroup v2 below the one that the process is in; the process moves into it until the last kit of that
 * name is freed. With it a connection is dumped in one system call (some 10 us less) if its listener was made after the kit. At most
 * 255 bytes without '/'; neither "." nor "..".
 * `flags`: of enum tcpmig_kit_flag. What this kernel or the process's rights lack is no failure: see the two functions below. */
TCPMIG_API int tcpmig_kit_new(const char* cgroup_name, uint32_t flags,
                              tcpmig_kit** kit) TCPMIG_NOEXCEPT;
/* After all that was frozen with it. Null is allowed. */
TCPMIG_API void tcpmig_kit_free(tcpmig_kit* kit) TCPMIG_NOEXCEPT;

enum tcpmig_kit_feature {
  TCPMIG_CAN_FREEZE =
      1, /* TCP_REPAIR is permitted, here or to a helper; without it tcpmig_freeze() is refused with -EPERM */
  TCPMIG_HAS_LOCK_PROGRAM =
      2, /* what arrives while frozen is kept (tcpmig_captures), not only dropped */
  TCPMIG_HAS_DUMP_PROGRAM =
      4, /* one system call dumps a connection, the peer's latest timestamp included */
  TCPMIG_HAS_SMALL_WINDOW = 8 /* TCPMIG_KIT_SMALL_WINDOW was asked for, and works */
};
/* Bits of enum tcpmig_kit_feature. 0 for null. */
TCPMIG_API uint32_t tcpmig_kit_features(const tcpmig_kit* kit) TCPMIG_NOEXCEPT;
/* The index-th sentence that says what is missing and what that costs; null after the last. Valid as long as the kit. */
TCPMIG_API const char* tcpmig_kit_warning(const tcpmig_kit* kit, size_t index) TCPMIG_NOEXCEPT;

/* ---- Captures: what arrived while frozen ---------------------------------------------------------------------------------- */

/* TCP segments that the lock has kept back, unacknowledged. To give them to a thawed or resumed connection spares the peer a
 * retransmission (200 ms or more); to forget them costs no byte. */
typedef struct tcpmig_captures tcpmig_captures;

/* A descriptor of the kit, for poll(2): readable when segments wait. -ENODEV without TCPMIG_HAS_LOCK_PROGRAM. */
TCPMIG_API int tcpmig_kit_captures_fd(const tcpmig_kit* kit) TCPMIG_NOEXCEPT;
/* How many segments the lock has dropped because 4 MB of them waited already. */
TCPMIG_API uint64_t tcpmig_kit_captures_lost(const tcpmig_kit* kit) TCPMIG_NOEXCEPT;
TCPMIG_API int tcpmig_captures_new(tcpmig_captures** captures) TCPMIG_NOEXCEPT;
TCPMIG_API void tcpmig_captures_free(tcpmig_captures* captures) TCPMIG_NOEXCEPT;
/* Moves every segment that waits in the kit, of whatever connection, to the end of `captures`. Returns how many. */
TCPMIG_API int tcpmig_captures_collect(tcpmig_captures* captures, tcpmig_kit* kit) TCPMIG_NOEXCEPT;
TCPMIG_API size_t tcpmig_captures_count(const tcpmig_captures* captures) TCPMIG_NOEXCEPT;
/* One of them, index < count: the cookie of its socket (as tcpmig_cookie() says it), and TCP header and data as received (network order; not
 * verified: a checksum may be wrong). `segment` is valid until the next call with these captures. -ENOENT: no such index. */
TCPMIG_API int tcpmig_captures_get(const tcpmig_captures* captures, size_t index, uint64_t* cookie,
                                   const void** segment, size_t* size) TCPMIG_NOEXCEPT;

/* ---- Snapshot: a connection as a value ------------------------------------------------------------------------------------ */

typedef struct tcpmig_snapshot tcpmig_snapshot;

/* The states that can be carried (RFC 9293, 3.3.2), with the kernel's numbers. */
enum tcpmig_state {
  TCPMIG_ESTABLISHED = 1,
  TCPMIG_FIN_WAIT1 =
      4, /* this end has closed; its FIN is not acknowledged, and perhaps not sent yet */
  TCPMIG_FIN_WAIT2 = 5,  /* this end has closed, and the peer knows */
  TCPMIG_CLOSE_WAIT = 8, /* the peer has closed */
  TCPMIG_LAST_ACK = 9,   /* the peer has closed, then this end; its FIN is not acknowledged */
  TCPMIG_CLOSING = 11    /* this end has closed, then the peer; our FIN is not acknowledged */
};

enum tcpmig_queue {
  TCPMIG_RECEIVED = 0, /* received, not yet read: ends before rcv_nxt */
  TCPMIG_SENT = 1,     /* sent, not acknowledged: [snd_una, snd_nxt) */
  TCPMIG_UNSENT = 2    /* written by the application, not sent: from snd_nxt on */
};

enum tcpmig_option {
  TCPMIG_WSCALE = 1, /* window scale was negotiated (RFC 7323): snd_wscale and rcv_wscale count */
  TCPMIG_TIMESTAMPS = 2, /* timestamps were (RFC 7323): tsval counts */
  TCPMIG_TS_RECENT = 4,  /* the peer's latest timestamp is known: ts_recent counts */
  TCPMIG_TS_USEC = 8,    /* timestamps tick in microseconds, else in milliseconds */
  TCPMIG_SACK = 16,      /* selective acknowledgements (RFC 2018) */
  TCPMIG_ECN = 32,       /* explicit congestion notification (RFC 3168) */
  TCPMIG_MAPPED =
      64 /* an AF_INET6 socket that talks IPv4: its application sees v4-mapped addresses */
};

struct tcpmig_info {
  uint32_t state;   /* enum tcpmig_state */
  uint32_t options; /* bits of enum tcpmig_option */
  uint32_t
      rcv_nxt; /* the number after the last byte of TCPMIG_RECEIVED; the peer's FIN is not counted */
  uint32_t snd_una;   /* the oldest byte that the peer has not acknowledged */
  uint32_t snd_nxt;   /* the next byte to send; our own FIN is not counted */
  uint32_t snd_wnd;   /* the peer's window, bytes */
  uint32_t tsval;     /* the timestamp that this end would send at the moment of the freeze */
  uint32_t ts_recent; /* the peer's latest timestamp */
  uint32_t srtt_us;   /* smoothed round-trip time, microseconds; 0: not known */
  uint16_t mss;       /* the peer's maximum segment size, bytes */
  uint8_t snd_wscale; /* 0..14, for windows that the peer announces */
  uint8_t rcv_wscale; /* 0..14, for windows that this end announces */
};

/* `size` is sizeof(*info) as the caller knows it: a library that knows more fields fills those, one that knows fewer sets the rest to
 * zero. */
TCPMIG_API int tcpmig_snapshot_info(const tcpmig_snapshot* snapshot, struct tcpmig_info* info,
                                    size_t size) TCPMIG_NOEXCEPT;
/* The ends of the connection as its kernel sees them, AF_INET or AF_INET6, like getsockname(2) and getpeername(2): `length` is the room
 * on entry, and what the address takes on return (it is cut where there is less room). */
TCPMIG_API int tcpmig_snapshot_local(const tcpmig_snapshot* snapshot, struct sockaddr* address,
                                     socklen_t* length) TCPMIG_NOEXCEPT;
TCPMIG_API int tcpmig_snapshot_peer(const tcpmig_snapshot* snapshot, struct sockaddr* address,
                                    socklen_t* length) TCPMIG_NOEXCEPT;
/* The bytes of a queue (enum tcpmig_queue), not copied: valid as long as the snapshot. */
TCPMIG_API int tcpmig_snapshot_queue(const tcpmig_snapshot* snapshot, int queue, const void** bytes,
                                     size_t* size) TCPMIG_NOEXCEPT;

/* The snapshot as bytes: versioned, self-contained, the same on every machine. They contain what the two ends have said to each other,
 * and whoever has them can go on with the connection: send them only over a channel that you trust.
 * Returns how many bytes that takes, and writes them if `capacity` is as large; else nothing is written (`buffer` may be null then). */
TCPMIG_API ssize_t tcpmig_snapshot_encode(const tcpmig_snapshot* snapshot, void* buffer,
                                          size_t capacity) TCPMIG_NOEXCEPT;
/* The same into a buffer of its own, to be freed by tcpmig_free(). */
TCPMIG_API int tcpmig_snapshot_encode_new(const tcpmig_snapshot* snapshot, void** bytes,
                                          size_t* size) TCPMIG_NOEXCEPT;
/* The reverse, of any bytes whatever. -EBADMSG: not a snapshot, cut, or a field out of range; -EPROTONOSUPPORT: of a version that this library
 * does not read; -EFBIG: a queue above 64 MB. */
TCPMIG_API int tcpmig_snapshot_decode(const void* bytes, size_t size,
                                      tcpmig_snapshot** snapshot) TCPMIG_NOEXCEPT;
/* Only of one that tcpmig_snapshot_decode() has made. Null is allowed. */
TCPMIG_API void tcpmig_snapshot_free(tcpmig_snapshot* snapshot) TCPMIG_NOEXCEPT;

/* ---- Freeze -------------------------------------------------------------------------------------------------------------- */

/* A connection that is locked: its kernel takes in and sends out nothing new. */
typedef struct tcpmig_frozen tcpmig_frozen;

enum tcpmig_scope {
  /* A request that has come, and nothing said yet: ESTABLISHED or CLOSE_WAIT, nothing unsent or unacknowledged. What is in the socket is
   * read. The quickest. */
  TCPMIG_REQUEST = 0,
  /* Every state of enum tcpmig_state, all three queues, and what the application has set on its socket. Nothing is read from the
   * socket. */
  TCPMIG_WHOLE = 1
};

/* Takes over the connected TCP socket `fd` on success; on failure it stays the caller's, unlocked, as it was. Other descriptors
 * of the same socket (dup, fork) must not be used meanwhile.
 * `consumed`, `consumed_size`: bytes that the application has read and that the new owner shall read again; null and 0 for none.
 * `scope`: of enum tcpmig_scope. `unread`, `unread_size`: for TCPMIG_REQUEST, what a freeze that then fails has read from the socket
 * already; where it is not null free it by tcpmig_free(). Null both for TCPMIG_WHOLE.
 * -EOPNOTSUPP: a property that is not carried (tcpmig_last_error() names it): the state, unacknowledged data with TCPMIG_REQUEST, urgent data, kTLS,
 * MPTCP, TCP-MD5 and TCP-AO (seen with TCPMIG_HAS_DUMP_PROGRAM only); of TCPMIG_WHOLE also SO_PEEK_OFF, unfinished SO_ZEROCOPY sends, and
 * data of the peer after a gap: try again when the gap is filled. -EPERM: see TCPMIG_CAN_FREEZE. Else
 * what a system call said: -EBADF, -ENOTSOCK. */
TCPMIG_API int tcpmig_freeze(tcpmig_kit* kit, int fd, int scope, const void* consumed,
                             size_t consumed_size, void** unread, size_t* unread_size,
                             tcpmig_frozen** frozen) TCPMIG_NOEXCEPT;

/* Waits until no packet can slip past the lock any more (an RCU grace period: some 10 ms), and brings the snapshot up to date if one has: it
 * is final then. One in 10,000 freezes of a busy connection sees that; without it, the bytes of such a packet, which the peer will never send
 * again, would be missing. On failure the connection is thawed already: tcpmig_thaw() returns its
 * descriptor. */
TCPMIG_API int tcpmig_settle(tcpmig_frozen* frozen) TCPMIG_NOEXCEPT;

/* For those who cannot wait: send the snapshot first, and after a grace period (membarrier(2), MEMBARRIER_CMD_GLOBAL) ask here what has slipped past
 * the lock. Returns 1 if there is anything, 0 if not. `bytes`: a copy, to be freed by tcpmig_free(), null for none; the first one's
 * sequence number is rcv_nxt of the snapshot. `ended`: 1 when the peer has closed or reset besides. Nothing is consumed. */
TCPMIG_API int tcpmig_late(const tcpmig_frozen* frozen, void** bytes, size_t* size,
                           int* ended) TCPMIG_NOEXCEPT;

/* Valid as long as `frozen`, but changed by tcpmig_settle(). Null for null. */
TCPMIG_API const tcpmig_snapshot* tcpmig_frozen_snapshot(const tcpmig_frozen* frozen)
    TCPMIG_NOEXCEPT;
/* The descriptor, still owned by `frozen`; -EALREADY after commit or thaw. */
TCPMIG_API int tcpmig_frozen_fd(const tcpmig_frozen* frozen) TCPMIG_NOEXCEPT;
/* SO_COOKIE of the socket: which of the captures are its. 0 when it is not known. */
TCPMIG_API uint64_t tcpmig_cookie(const tcpmig_frozen* frozen) TCPMIG_NOEXCEPT;

/* The end of the connection here, without a packet: when the new owner has confirmed, and its packets do not come here any more (a host
 * that has no socket for them answers RST). -EALREADY after commit or thaw. */
TCPMIG_API int tcpmig_commit(tcpmig_frozen* frozen) TCPMIG_NOEXCEPT;
/* Gives the connection back: returns the descriptor, unlocked, the caller's. With TCPMIG_REQUEST what was read from the socket is in
 * TCPMIG_RECEIVED of the snapshot. `captures` (may be null): its segments among them go into the socket, by `deliver` (see there); what
 * could not be delivered the peer sends again. -EALREADY after commit or thaw. What the connection to a helper says (-ECONNREFUSED, ..): it is frozen as
 * before, and may be thawed when the helper is there again. */
TCPMIG_API int tcpmig_thaw(tcpmig_frozen* frozen, const tcpmig_captures* captures,
                           tcpmig_deliver_fn deliver, void* context) TCPMIG_NOEXCEPT;
/* The handle and its snapshot. One that is neither committed nor thawed is unlocked, and the descriptor closed as by close(2). Null
 * is allowed. */
TCPMIG_API void tcpmig_frozen_free(tcpmig_frozen* frozen) TCPMIG_NOEXCEPT;

/* ---- Resume -------------------------------------------------------------------------------------------------------------- */

/* A new socket that goes on with the connection, close-on-exec; returns its descriptor. No packet leaves before everything is restored.
 * `local`, `local_length`: null and 0, or the local address here (of the same family, in sockaddr_in or sockaddr_in6; port 0: the snapshot's)
 * where a NAT on the way translates it. The address need not be on an interface, but there must be a local route to it, and a route
 * to the peer. `deliver`: by it the kernel hears of what the peer has done already (its FIN); asked only in states other than
 * ESTABLISHED and FIN_WAIT1.
 * Not carried: the congestion window and ECN (but by tcpmig_resume_with() below), the round-trip time, and of what an application sets all that docs/library.md does not name.
 * -EINVAL: a snapshot or an address that cannot be; -EADDRNOTAVAIL: a socket of the same two ends is here already, or the address is
 * not local; -ENETUNREACH, -EHOSTUNREACH: no route; -EPERM: the right to TCP_REPAIR; -EACCES, -ENOENT, -ECONNREFUSED, -ETIMEDOUT: a helper that does not
 * help; -EIO: the kernel did not take it. The connection is
 * then closed here
 * without a packet, and may be resumed again. */
TCPMIG_API int tcpmig_resume(const tcpmig_snapshot* snapshot, const struct sockaddr* local,
                             socklen_t local_length, tcpmig_deliver_fn deliver,
                             void* context) TCPMIG_NOEXCEPT;

/* What resuming can work with, loaded once for a process: a BPF program by which the new socket has the congestion window, the slow start threshold and
 * ECN (RFC 3168) of the old one. Linux 6.4 or newer, with CAP_NET_ADMIN and CAP_BPF in the first user namespace. As long as a kit lives the kernel knows
 * one congestion control more ("tcpmig_" and eight digits), which nobody is given but, for a moment, the sockets that are resumed. */
typedef struct tcpmig_resume_kit tcpmig_resume_kit;

/* What this kernel or the process's rights lack is no failure: see the two functions below. */
TCPMIG_API int tcpmig_resume_kit_new(tcpmig_resume_kit** kit) TCPMIG_NOEXCEPT;
/* Null is allowed. */
TCPMIG_API void tcpmig_resume_kit_free(tcpmig_resume_kit* kit) TCPMIG_NOEXCEPT;

enum tcpmig_resume_feature {
  TCPMIG_HAS_CONGESTION_PROGRAM = 1 /* without it tcpmig_resume_with() is tcpmig_resume() */
};
/* Bits of enum tcpmig_resume_feature. 0 for null. */
TCPMIG_API uint32_t tcpmig_resume_kit_features(const tcpmig_resume_kit* kit) TCPMIG_NOEXCEPT;
/* The index-th sentence that says what is missing and what that costs; null after the last. Valid as long as the kit. */
TCPMIG_API const char* tcpmig_resume_kit_warning(const tcpmig_resume_kit* kit,
                                                 size_t index) TCPMIG_NOEXCEPT;

/* tcpmig_resume() with what the kit has; null: without. It may be freed afterwards. */
TCPMIG_API int tcpmig_resume_with(const tcpmig_resume_kit* kit, const tcpmig_snapshot* snapshot,
                                  const struct sockaddr* local, socklen_t local_length,
                                  tcpmig_deliver_fn deliver, void* context) TCPMIG_NOEXCEPT;

/* Gives a captured segment of the peer to a connection that was resumed from `snapshot`, as if it had just come. `local`: as given to
 * tcpmig_resume(). -EBADMSG: not a segment, or a wrong checksum. */
TCPMIG_API int tcpmig_inject(const tcpmig_snapshot* snapshot, const struct sockaddr* local,
                             socklen_t local_length, const void* segment, size_t size,
                             tcpmig_deliver_fn deliver, void* context) TCPMIG_NOEXCEPT;

/* ---- Descriptors over a Unix socket ----------------------------------------------------------------------------------------- */

/* Hands a descriptor over a connected Unix stream socket (SCM_RIGHTS), with a note of at most 4096 bytes. `fd` stays open here. */
TCPMIG_API int tcpmig_send_descriptor(int unix_socket, int fd, const void* note,
                                      size_t size) TCPMIG_NOEXCEPT;
/* The counterpart. Returns 1, with a descriptor that is the caller's; 0 on an orderly end of the peer. `size`: how long the note is;
 * it is cut at `capacity`. -EBADMSG: not a message of tcpmig_send_descriptor(). */
TCPMIG_API int tcpmig_receive_descriptor(int unix_socket, int* fd, void* note, size_t capacity,
                                         size_t* size) TCPMIG_NOEXCEPT;

/* ---- Programs behind tcpmig's own switch -------------------------------------------------------------------------------------- */

/* For the program of a pool server with `handoff`, for each connection that its SOCK_SEQPACKET socket accepts; close that afterwards. Returns 1 with
 * a live connection in *fd, the caller's (getpeername(2) tells the client); 0: there is nothing to serve. `in_the_middle`: 0: new, its request has not
 * been read; 1: the program of another server has given it away by tcpmig_migrate(), and `blob`, `size` are what it has sent along, to be freed by
 * tcpmig_free(). -EIO, -EINVAL: the message is no connection, or what a system call said. Waits at most two seconds for each of the agent's two messages. */
TCPMIG_API int tcpmig_take_connection(int unix_socket, int* fd, int* in_the_middle, void** blob,
                                      size_t* size) TCPMIG_NOEXCEPT;

/* Gives a live connection, whatever its queues hold, to the program of another server of the same service, which has a `handoff`, with `size` bytes
 * (at most 1 MB) of what this program knows about it. Takes no right. Other descriptors of the same connection (dup, fork) must not be used meanwhile, and only be
 * closed afterwards. `target`: the name of the node. `agent`: the Unix socket of this node's agent, /run/tcpmig/CLUSTER/NODE/exec.sock; null: that of
 * the environment (TCPMIG_EXEC, as `tcpmig exec` sets it).
 * Blocks, some milliseconds as a rule: three times `timeouts.transfer` of the configuration where the target is silent, and 60 s where the agent was killed
 * and does not come back, or stands still.
 * Returns 0 when the target's program has the connection; `fd` is closed then. Else it is the caller's, and goes on as it was: -EMSGSIZE: the blob,
 * or the queues, are too large; -ENOTCONN: no connection that was opened here by the agent; -EPROTOTYPE: not TCP; -EADDRNOTAVAIL: `target` is no
 * other server of the service; -EOPNOTSUPP: it has no `handoff`, or the connection has a property that cannot be carried; -EALREADY: it is being moved;
 * -EAGAIN: not now; -ECONNREFUSED: the target does not take it, or there is no agent; -ENOENT: there is no agent; -ETIMEDOUT: the target is silent, or the agent;
 * -ECONNABORTED: the agent was ended in the middle. But with -ENOTRECOVERABLE the connection is lost: close `fd`, which sends nothing. */
TCPMIG_API int tcpmig_migrate(int fd, const char* target, const void* blob, size_t size,
                              const char* agent) TCPMIG_NOEXCEPT;

#ifdef __cplusplus
}
#endif
#endif
