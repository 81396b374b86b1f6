/* SPDX-License-Identifier: MIT */
/*
 * An echo server that moves its client to another host, while the client is connected:
 *   cc echo.c -o echo $(pkg-config --cflags --libs tcpmig)
 * What is said between the two processes: the length (4 bytes, network order) and the bytes of the snapshot; "R" for resumed; "C" for
 * committed. The connection to say it over is plain TCP: use one that you trust. docs/library.md tells how to try it.
 */
#define _GNU_SOURCE /* ppoll(2) */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <tcpmig.h>
#include <unistd.h>

static const char usage[] =
    "usage: echo serve ADDRESS PORT TARGET TARGET-PORT [COMMAND]\n"
    "       echo adopt ADDRESS PORT [LOCAL-ADDRESS]\n"
    "serve: an echo server. On SIGUSR1 the connection moves to the `echo adopt` that waits at "
    "TARGET. COMMAND is run when that has resumed\n"
    "       it: it shall let the connection's packets go to the new host.\n"
    "adopt: waits for a connection and goes on with it. LOCAL-ADDRESS: this host's own, where a "
    "NAT on the way translates it.\n"
    "Both need CAP_NET_ADMIN (root), or in the environment REPAIR_HELPER=SOCKET of a `tcpmig "
    "repair-helper` that lets them.\n";

static volatile sig_atomic_t move_asked;
static void ask_move(int signal_number) { (void)signal_number, move_asked = 1; }

static void complain(const char* what) { fprintf(stderr, "echo: %s: %s\n", what, strerror(errno)); }
static void complain_tcpmig(const char* what) {
  fprintf(stderr, "echo: %s: %s\n", what, tcpmig_last_error());
}

/* ---- Sockets: nothing of the library ---- */

/* A socket that listens, or that is connected; -1 after a message. */
static int open_socket(const char* host, const char* port, int listening) {
  struct addrinfo hints = {.ai_flags = listening ? AI_PASSIVE : 0, .ai_socktype = SOCK_STREAM},
                  *found;
  int error = getaddrinfo(host, port, &hints, &found), on = 1;
  if (error != 0) {
    fprintf(stderr, "echo: %s port %s: %s\n", host, port, gai_strerror(error));
    return -1;
  }
  int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd >= 0 && listening) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (fd < 0 || (listening ? bind(fd, found->ai_addr, found->ai_addrlen) < 0 || listen(fd, 8) < 0
                           : connect(fd, found->ai_addr, found->ai_addrlen) < 0)) {
    complain(host);
    if (fd >= 0) close(fd);
    fd = -1;
  }
  freeaddrinfo(found);
  return fd;
}

static void limit_waiting(int fd) {
  struct timeval limit = {.tv_sec = 10};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

static int send_all(int fd, const void* bytes, size_t size) {
  for (size_t done = 0; done < size;) {
    ssize_t count = send(fd, (const char*)bytes + done, size - done, MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return -1;
    done += (size_t)count;
  }
  return 0;
}

static int receive_all(int fd, void* bytes, size_t size) {
  ssize_t count = recv(fd, bytes, size, MSG_WAITALL);
  if (count >= 0 && (size_t)count < size) errno = ECONNRESET;
  return count == (ssize_t)size ? 0 : -1;
}

/* ---- The source ---- */

/* Sends the snapshot and waits until the target has resumed it. */
static int hand_over(const tcpmig_snapshot* snapshot, int target) {
  void* bytes;
  size_t size;
  char answer = 0;
  if (tcpmig_snapshot_encode_new(snapshot, &bytes, &size) < 0) return complain_tcpmig("encode"), -1;
  uint32_t length = htonl((uint32_t)size);
  int result = send_all(target, &length, sizeof length) < 0 || send_all(target, bytes, size) < 0 ||
                       receive_all(target, &answer, 1) < 0
                   ? -1
                   : 0;
  if (result < 0) complain("the target has not resumed the connection");
  tcpmig_free(bytes);
  return result == 0 && answer == 'R' ? 0 : -1;
}

/* Returns -1 when the connection has gone to the target, else its descriptor: it goes on here. */
static int move_away(tcpmig_kit* kit, int fd, const char* host, const char* port,
                     const char* command) {
  tcpmig_frozen* frozen;
  int target = open_socket(host, port, 0);
  if (target < 0) return fd;
  limit_waiting(target);
  if (tcpmig_freeze(kit, fd, TCPMIG_WHOLE, NULL, 0, NULL, NULL, &frozen) < 0) {
    complain_tcpmig("cannot freeze");
    close(target);
    return fd;
  }
  int result = tcpmig_settle(frozen);
  if (result < 0) complain_tcpmig("settle");
  if (result == 0) result = hand_over(tcpmig_frozen_snapshot(frozen), target);
  if (result == 0 && command != NULL && system(command) != 0) {
    fprintf(stderr, "echo: the command failed: %s\n", command);
    result = -1;
  }
  if (result == 0) {
    tcpmig_commit(frozen);
    if (send_all(target, "C", 1) < 0)
      complain("the target does not know that the connection is its own");
    fd = -1;
  } else {
    fd = tcpmig_thaw(frozen, NULL, NULL, NULL);
    if (fd < 0) complain_tcpmig("thaw");
  }
  tcpmig_frozen_free(frozen);
  close(target);
  return fd;
}

/* ---- The target ---- */

/* Ends a connection without a packet: it is still the source's. */
static void forget(tcpmig_kit* kit, int fd) {
  tcpmig_frozen* frozen;
  if (tcpmig_freeze(kit, fd, TCPMIG_WHOLE, NULL, 0, NULL, NULL, &frozen) < 0) {
    complain_tcpmig("cannot forget the connection");
    close(fd);
    return;
  }
  tcpmig_commit(frozen);
  tcpmig_frozen_free(frozen);
}

static tcpmig_snapshot* receive_snapshot(int source) {
  enum { MOST = 200 << 20 }; /* three queues of 64 MB, and some */
  uint32_t length;
  tcpmig_snapshot* snapshot = NULL;
  if (receive_all(source, &length, sizeof length) < 0) return complain("the source"), NULL;
  length = ntohl(length);
  void* bytes = length > 0 && length <= MOST ? malloc(length) : NULL;
  if (bytes == NULL) {
    fprintf(stderr, "echo: the source announces %u bytes\n", length);
  } else if (receive_all(source, bytes, length) < 0) {
    complain("the source");
  } else if (tcpmig_snapshot_decode(bytes, length, &snapshot) < 0) {
    complain_tcpmig("decode");
  }
  free(bytes);
  return snapshot;
}

/* The descriptor of a connection that is ours now, or -1 after a message. */
static int adopt(tcpmig_kit* kit, int source, const struct sockaddr* local,
                 socklen_t local_length) {
  char committed = 0;
  limit_waiting(source);
  tcpmig_snapshot* snapshot = receive_snapshot(source);
  if (snapshot == NULL) return -1;
  int fd = tcpmig_resume(snapshot, local, local_length, NULL, NULL);
  tcpmig_snapshot_free(snapshot);
  if (fd < 0) return complain_tcpmig("cannot resume"), -1;
  if (send_all(source, "R", 1) == 0 && receive_all(source, &committed, 1) == 0 &&
      committed == 'C') {
    fprintf(stderr, "echo: resumed\n");
    return fd;
  }
  fprintf(stderr, "echo: the source has not committed; it keeps the connection\n");
  forget(kit, fd);
  return -1;
}

/* ---- Serving ---- */

/* Until the client has closed (0), or a move is asked for (1). The signal comes while ppoll() waits, and only then: between two reads
 * everything that was read has been written. */
static int echo(int fd, const sigset_t* waiting) {
  static char bytes[65536];
  for (;;) {
    struct pollfd readable = {.fd = fd, .events = POLLIN};
    if (move_asked) return 1;
    if (ppoll(&readable, 1, NULL, waiting) < 0) continue;
    ssize_t count = recv(fd, bytes, sizeof bytes, 0);
    if (count == 0) return 0;
    if (count < 0 || send_all(fd, bytes, (size_t)count) < 0) return complain("the client"), 0;
  }
}

/* argv: ADDRESS PORT TARGET TARGET-PORT [COMMAND] */
static void serve(tcpmig_kit* kit, int listener, char** argv, const sigset_t* waiting) {
  for (;;) {
    int fd = accept(listener, NULL, NULL);
    if (fd < 0) continue;
    fprintf(stderr, "echo: a client\n");
    while (fd >= 0 && echo(fd, waiting) == 1) {
      move_asked = 0;
      fd = move_away(kit, fd, argv[2], argv[3], argv[4]);
      fputs(fd < 0 ? "echo: moved\n" : "echo: not moved; the connection goes on here\n", stderr);
    }
    if (fd >= 0) close(fd);
  }
}

static void serve_adopted(tcpmig_kit* kit, int listener, const struct addrinfo* local) {
  sigset_t never;
  sigfillset(&never);
  for (;;) {
    int source = accept(listener, NULL, NULL);
    if (source < 0) continue;
    int fd = adopt(kit, source, local ? local->ai_addr : NULL, local ? local->ai_addrlen : 0);
    close(source);
    if (fd < 0) continue;
    echo(fd, &never);
    close(fd);
  }
}

int main(int argc, char** argv) {
  tcpmig_kit* kit;
  struct addrinfo hints = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM}, *local = NULL;
  int serving = argc > 1 && strcmp(argv[1], "serve") == 0;
  if (!(serving && (argc == 6 || argc == 7)) &&
      !(argc > 1 && strcmp(argv[1], "adopt") == 0 && (argc == 4 || argc == 5)))
    return fputs(usage, stderr), 2;
  if (!serving && argc == 5 && getaddrinfo(argv[4], NULL, &hints, &local) != 0)
    return fprintf(stderr, "echo: '%s' is not an address\n", argv[4]), 2;
  if (tcpmig_set_repair_helper(getenv("REPAIR_HELPER")) < 0)
    return complain_tcpmig("REPAIR_HELPER"), 1;
  if (tcpmig_kit_new(NULL, 0, &kit) < 0) return complain_tcpmig("kit"), 1;
  const char* warning;
  for (size_t i = 0; (warning = tcpmig_kit_warning(kit, i)) != NULL; i++)
    fprintf(stderr, "echo: %s\n", warning);
  if (!(tcpmig_kit_features(kit) & TCPMIG_CAN_FREEZE)) return 1;

  sigset_t usr1, waiting;
  struct sigaction action = {.sa_handler = ask_move};
  sigemptyset(&usr1);
  sigaddset(&usr1, SIGUSR1);
  sigprocmask(SIG_BLOCK, &usr1, &waiting);
  sigdelset(&waiting, SIGUSR1);
  sigaction(SIGUSR1, &action, NULL);

  int listener = open_socket(argv[2], argv[3], 1);
  if (listener < 0) return 1;
  fprintf(stderr, "echo: ready\n");
  if (serving) serve(kit, listener, argv + 2, &waiting);
  serve_adopted(kit, listener, local);
}
