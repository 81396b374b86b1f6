/* SPDX-License-Identifier: MIT */
/* How a connection that was restored by TCP_REPAIR passes from the agent to the program that shall serve it. For C and C++; -errno,
 * no allocation, no locks, no state: may run in a signal handler, in any thread, in a child after fork().
 *
 * Everything goes over one Unix socket (SOCK_SEQPACKET), a connection of its own for each TCP connection, so that whoever dies
 * is missed at once, and nothing of an earlier handover is ever in the way:
 *
 *   program                                  agent
 *      | CLAIM + the ticket        ------->    |      only where the program accepted a ticket
 *      | <-------  OFFER + the connection      |      still in repair: it has sent nothing, and closing it sends nothing
 *      | TAKEN                     ------->    |      the point of no return: before it the agent may give it to somebody else,
 *      |                                       |      after it the connection is the program's
 *      | <-------                       GO     |      it has left repair, which takes CAP_NET_ADMIN,; now it lives
 *
 * A program that dies before TAKEN has lost nothing: its copy is closed in repair. An agent that dies before it has taken the
 * connection out of repair neither: the program sees the end of the Unix connection, looks (getsockopt SO_REUSEADDR, which says how far the agent
 * has come), and closes its copy in silence. If it had finished, the program goes on with it. What was written and not sent before the connection
 * came here travels with the OFFER, and the program's library sends it, so that there is nothing left to be lost. Only where the agent is killed
 * between two of its last steps, some microseconds apart, the program closes the connection so that its client gets a RST.
 *
 * The other way round, a program gives a connection away over the same socket: MIGRATE, and after the transfer VERDICT; until then WORKING
 * again and again, so that an agent that stands still is not waited for. The agent freezes its own
 * descriptor of it. Where it is killed meanwhile the program sees the end of the Unix connection, and sends RECOVER to the next one.
 *
 * A ticket is a TCP connection that the agent makes to the program's own listener, so that whatever the program waits in
 * (accept, poll, epoll of any kind, in any process or thread) returns as for any other connection. Who holds the accepted end
 * has accepted it: it is sent along with CLAIM as the proof, and no other right is asked for. */
#ifndef TCPMIG_HANDOVER_H
#define TCPMIG_HANDOVER_H

#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>

#ifdef __cplusplus
extern "C" {
#endif

enum handover_verb {
  HANDOVER_CLAIM = 'C',
  HANDOVER_OFFER = 'O',
  HANDOVER_NOTHING = 'N',  /* agent: it was a ticket, but nothing is behind it (any more) */
  HANDOVER_STRANGER = 'S', /* agent: not a ticket of mine: an ordinary connection */
  HANDOVER_TAKEN = 'T',
  HANDOVER_GO = 'G',
  /* of a program that gives a connection away (tcpmig/migrate.hpp) */
  HANDOVER_MIGRATE = 'M', /* program: the target's name follows; with the connection and the blob */
  /* program: the agent was ended in the middle of that; with the connection */
  HANDOVER_RECOVER = 'R',
  HANDOVER_WORKING = 'W', /* agent: not decided yet; every HANDOVER_SIGN_MS */
  HANDOVER_VERDICT = 'V', /* agent: struct handover_verdict, and the reason as text */
};

/* Every message but an OFFER to a program that listens for connections itself (tcpmig::send_descriptor). */
struct handover_message {
  char magic[6]; /* HANDOVER_MAGIC, without the final 0 */
  char version;  /* HANDOVER_VERSION */
  char verb;     /* enum handover_verb */
};
#define HANDOVER_MAGIC "tcpmig"
enum { HANDOVER_VERSION = 1 };

/* What became of a connection that was to be given away. */
struct handover_verdict {
  struct handover_message head;
  int error; /* 0: it has gone */
  int here;  /* it goes on here, as it was; else it must be closed */
};

/* Each wait for the agent ends after so long. It answers within a fraction of a millisecond. */
enum { HANDOVER_PATIENCE_MS = 2000 };
/* How often a program whose connection is being given away hears that it is. */
enum { HANDOVER_SIGN_MS = 200 };

/* What a program must know to take tickets: where the agent listens, and the addresses that its tickets come from. */
struct handover_place {
  char path[108];       /* of the agent's Unix socket; "" = there is none */
  struct in_addr from4; /* 0 = none */
  struct in6_addr from6;
};

/* The environment variable that holds a place as text: PATH,IPV4,IPV6 (an address may be empty). */
#define HANDOVER_ENVIRONMENT "TCPMIG_EXEC"
/* false: not such a text; *place is empty then. */
bool handover_parse(const char* text, struct handover_place* place);

/* May a connection with this peer be a ticket? A v4-mapped address counts as IPv4. */
bool handover_may_be_ticket(const struct handover_place* place, const struct sockaddr* peer);

/* `fd`: what accept() has returned.
 * 0           fd is the migrated connection now: same number, flags as fd had them (O_NONBLOCK, FD_CLOEXEC)
 * -ENOENT     it is no ticket, or nobody can say: an ordinary connection
 * -EAGAIN     it was a ticket, nothing (or nothing any more) is behind it: close it
 * -errno      likewise, for want of a resource */
int handover_claim(const struct handover_place* place, int fd);

/* The program's side from the OFFER on: says TAKEN and waits for GO. 0: `connection` lives and is the caller's. -errno: it is not, close it
 * (nothing is sent; but -ECONNRESET: a RST). */
int handover_take(int unix_socket, int connection);

/* Sends one message; `fd` >= 0 hangs on it. 0 or -errno. */
int handover_send(int unix_socket, char verb, int fd);
/* Receives one, its descriptor (close-on-exec) to *fd, -1 when there is none; `fd` may be NULL: a descriptor is closed. The verb; 0 = the other
 * side has ended, or -errno (EPROTO: no such message). */
int handover_receive(int unix_socket, int* fd);

#ifdef __cplusplus
}
#endif
#endif
