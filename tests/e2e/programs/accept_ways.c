/* SPDX-License-Identifier: MIT */
/* A small HTTP/1.1 server that waits for connections in the way its first argument names; the second is the port. Nothing in it knows of
 * tcpmig. Answers "WAY PEER\n" to a GET, the body itself to a POST with Content-Length, and keeps the connection alive. Each way accepts as
 * often as its API asks for: one missed wake-up, and a client waits for ever. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static const char* way;

static void fail(const char* what) {
  perror(what);
  exit(1);
}

static int listen_on(int port, int flags) {
  struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons((unsigned short)port)};
  int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | flags, 0), on = 1, off = 0;

  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (!strcmp(way, "reuseport")) setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
  setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
  setsockopt(fd, IPPROTO_TCP, 1 /* TCP_NODELAY */, &on, sizeof(on));
  if (!strcmp(way, "defer")) {
    int seconds = 5;

    setsockopt(fd, IPPROTO_TCP, 9 /* TCP_DEFER_ACCEPT */, &seconds, sizeof(seconds));
  }
  if (bind(fd, (struct sockaddr*)&any, sizeof(any)) < 0) fail("bind");
  if (listen(fd, 1024) < 0) fail("listen");
  return fd;
}

static bool send_all(int fd, const char* bytes, size_t length) {
  while (length > 0) {
    ssize_t sent = send(fd, bytes, length, MSG_NOSIGNAL);

    if (sent <= 0) return false;
    bytes += sent;
    length -= (size_t)sent;
  }
  return true;
}

static bool answer(int fd, const char* peer, const char* body, size_t length) {
  int nodelay = 0, cloexec = fcntl(fd, F_GETFD) & FD_CLOEXEC;
  socklen_t size = sizeof(nodelay);
  char head[512];

  getsockopt(fd, IPPROTO_TCP, 1 /* TCP_NODELAY */, &nodelay, &size);
  snprintf(head, sizeof(head),
           "HTTP/1.1 200 OK\r\nX-Peer: %s\r\nX-Nodelay: %d\r\nX-Cloexec: %d\r\nContent-Length: "
           "%zu\r\n\r\n",
           peer, nodelay != 0, cloexec != 0, length);
  return send_all(fd, head, strlen(head)) && send_all(fd, body, length);
}

/* Reads until `end` says so; the head and what came with it. */
static void serve_blocking(int fd, const char* peer) {
  char* buffer = malloc(1 << 20);
  size_t have = 0;

  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
  for (;;) {
    char* end = have ? memmem(buffer, have, "\r\n\r\n", 4) : NULL;
    size_t body = 0, head = end ? (size_t)(end - buffer) + 4 : 0;
    char* said = end ? memmem(buffer, head, "Content-Length: ", 16) : NULL;

    if (said) body = strtoul(said + 16, NULL, 10);
    if (end && have >= head + body) {
      char line[128];
      int length = snprintf(line, sizeof(line), "%s %s\n", way, peer);

      if (!(body ? answer(fd, peer, buffer + head, body) : answer(fd, peer, line, (size_t)length)))
        break;
      have -= head + body;
      memmove(buffer, buffer + head + body, have);
      continue;
    }
    ssize_t got = recv(fd, buffer + have, (1 << 20) - have, 0);

    if (got <= 0) break;
    have += (size_t)got;
  }
  close(fd);
  free(buffer);
}

struct client {
  int fd;
  char peer[INET6_ADDRSTRLEN + 8];
};

static void* serve_thread(void* argument) {
  struct client client = *(struct client*)argument;

  free(argument);
  serve_blocking(client.fd, client.peer);
  return NULL;
}

/* The clients are served in threads: what is under test is how they were accepted. */
static void start(int fd, const struct sockaddr_in6* from) {
  struct client* client = calloc(1, sizeof(*client));
  char address[INET6_ADDRSTRLEN];
  pthread_t thread;

  if (IN6_IS_ADDR_V4MAPPED(&from->sin6_addr)) {
    inet_ntop(AF_INET, &from->sin6_addr.s6_addr[12], address, sizeof(address));
    snprintf(client->peer, sizeof(client->peer), "%s:%d", address, ntohs(from->sin6_port));
  } else {
    inet_ntop(AF_INET6, &from->sin6_addr, address, sizeof(address));
    snprintf(client->peer, sizeof(client->peer), "[%s]:%d", address, ntohs(from->sin6_port));
  }
  client->fd = fd;
  if (pthread_create(&thread, NULL, serve_thread, client) != 0) fail("thread");
  pthread_detach(thread);
}

/* false: nothing there. */
static bool accept_one(int listener) {
  struct sockaddr_in6 from;
  socklen_t length = sizeof(from);
  int fd = accept4(listener, (struct sockaddr*)&from, &length, SOCK_CLOEXEC);

  if (fd < 0) return errno == ECONNABORTED || errno == EINTR;
  if (from.sin6_family != AF_INET6 || length != sizeof(from)) {
    close(fd); /* a dead connection */
    return true;
  }
  start(fd, &from);
  return true;
}

static void* block(void* listener) {
  for (;;) accept_one(*(int*)listener);
  return NULL;
}

static void* poll_loop(void* listener) {
  for (;;) {
    struct pollfd wait = {*(int*)listener, POLLIN, 0};

    if (poll(&wait, 1, -1) == 1) accept_one(*(int*)listener);
  }
  return NULL;
}

static void* select_loop(void* listener) {
  for (;;) {
    fd_set set;

    FD_ZERO(&set);
    FD_SET(*(int*)listener, &set);
    if (pselect(*(int*)listener + 1, &set, NULL, NULL, NULL, NULL) == 1)
      accept_one(*(int*)listener);
  }
  return NULL;
}

/* `events` as epoll_ctl takes them; edge-triggered and one-shot ways drain the queue. */
static void epoll_loop(int listener, unsigned events) {
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event = {.events = events};

  if (epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event) < 0) fail("epoll_ctl");
  for (;;) {
    if (epoll_wait(epoll, &event, 1, -1) != 1) continue;
    do {
      if (!accept_one(listener)) break;
    } while (events & (EPOLLET | EPOLLONESHOT));
    event.events = events;
    if (events & EPOLLONESHOT) epoll_ctl(epoll, EPOLL_CTL_MOD, listener, &event);
  }
}

static void* level(void* listener) { return epoll_loop(*(int*)listener, EPOLLIN), NULL; }
static void* edge(void* listener) { return epoll_loop(*(int*)listener, EPOLLIN | EPOLLET), NULL; }
static void* oneshot(void* listener) {
  return epoll_loop(*(int*)listener, EPOLLIN | EPOLLONESHOT), NULL;
}
static void* exclusive(void* listener) {
  return epoll_loop(*(int*)listener, EPOLLIN | EPOLLEXCLUSIVE | EPOLLET), NULL;
}

/* In three processes, or three threads. */
static void run(void* (*loop)(void*), int listener, bool processes) {
  for (int i = 0; i < 3; i++) {
    pthread_t thread;
    int* copy = malloc(sizeof(*copy));

    *copy = i % 2 ? dup(listener) : listener;
    if (processes && fork() == 0) loop(copy);
    if (!processes && pthread_create(&thread, NULL, loop, copy) != 0) fail("thread");
  }
  for (;;) pause();
}

int main(int count, char** arguments) {
  if (count != 3) return 2;
  way = arguments[1];
  signal(SIGPIPE, SIG_IGN);
  int port = atoi(arguments[2]);
  bool blocking = !strcmp(way, "threads") || !strcmp(way, "prefork") || !strcmp(way, "reuseport");
  int listener = listen_on(port, blocking ? 0 : SOCK_NONBLOCK);

  if (!strcmp(way, "threads")) run(block, listener, false);
  if (!strcmp(way, "prefork")) run(block, listener, true);
  if (!strcmp(way, "poll")) run(poll_loop, listener, false);
  if (!strcmp(way, "select")) run(select_loop, listener, true);
  if (!strcmp(way, "level")) run(level, listener, true);
  if (!strcmp(way, "edge") || !strcmp(way, "defer")) run(edge, listener, false);
  if (!strcmp(way, "oneshot")) run(oneshot, listener, false);
  if (!strcmp(way, "exclusive")) run(exclusive, listener, true);
  if (!strcmp(way, "reuseport")) {
    for (int i = 0; i < 2; i++)
      if (fork() == 0) listener = listen_on(port, 0);
    block(&listener);
  }
  return 2;
}
