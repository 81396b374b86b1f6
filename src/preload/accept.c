/* SPDX-License-Identifier: MIT */
/* libtcpmig-preload.so: accept() and accept4() of an unmodified program return migrated connections among the others (handover/handover.h;
 * docs/architecture.md, "Repair resume: kernels without kernel resume"). `tcpmig exec` puts it into LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "handover/handover.h"

typedef int (*accept4_function)(int, struct sockaddr*, socklen_t*, int);

/* Written once, before main() and before there is a second thread. */
static struct handover_place place;
static accept4_function next_accept4;

__attribute__((constructor)) static void set_up(void) {
  next_accept4 = (accept4_function)dlsym(RTLD_NEXT, "accept4");
  handover_parse(getenv(HANDOVER_ENVIRONMENT), &place);
}

/* Not by dlsym() here: accept() may be called in a signal handler, which dlsym() may not. */
static int real_accept4(int fd, struct sockaddr* address, socklen_t* length, int flags) {
  if (next_accept4) return next_accept4(fd, address, length, flags);
  return (int)syscall(SYS_accept4, fd, address, length, flags);
}

/* As the kernel hands an address out: cut to the room there is, its whole length told. */
static void hand_out(const struct sockaddr_storage* peer, socklen_t length,
                     struct sockaddr* address, socklen_t* room) {
  if (!address) return;
  memcpy(address, peer, length < *room ? length : *room);
  *room = length;
}

static bool is_nonblocking(int fd) {
  int flags = fcntl(fd, F_GETFL);

  return flags >= 0 && (flags & O_NONBLOCK);
}

static int accept_any(int fd, struct sockaddr* address, socklen_t* room, int flags) {
  for (;;) {
    struct sockaddr_storage peer;
    socklen_t length = sizeof(peer);
    int before = errno;
    int accepted = real_accept4(fd, (struct sockaddr*)&peer, &length, flags);
    int claimed;

    if (accepted < 0) return accepted;
    if (length < sizeof(sa_family_t) ||
        !handover_may_be_ticket(&place, (const struct sockaddr*)&peer)) {
      hand_out(&peer, length, address, room);
      return accepted;
    }
    claimed = handover_claim(&place, accepted);
    if (claimed == 0) {
      length = sizeof(peer);
      /* A client that has gone meanwhile: as the kernel, which returns such a connection, too. */
      if (getpeername(accepted, (struct sockaddr*)&peer, &length) < 0) length = 0;
    } else if (claimed != -ENOENT && is_nonblocking(fd)) {
      close(accepted);
      errno = before;
      continue;
    }
    /* Nothing is behind a ticket, and the caller wants to wait in accept(), or has waited elsewhere and relies on accept() to return now.
     * So it gets the ticket itself: a connection that its peer has reset, which any server must be able to bear. */
    hand_out(&peer, length, address, room);
    errno = before;
    return accepted;
  }
}

__attribute__((visibility("default"))) int accept4(int fd, struct sockaddr* address,
                                                   socklen_t* room, int flags) {
  /* What the kernel refuses, or nobody ever gives a ticket to, is the kernel's. */
  if (place.path[0] == '\0' || (address && (!room || (int)*room < 0)))
    return real_accept4(fd, address, room, flags);
  return accept_any(fd, address, room, flags);
}

__attribute__((visibility("default"))) int accept(int fd, struct sockaddr* address,
                                                  socklen_t* room) {
  return accept4(fd, address, room, 0);
}
