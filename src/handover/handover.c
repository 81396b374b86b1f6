/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "handover/handover.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

/* One field of a text that ends at `end` or at the text's own end. false: too long. */
static bool copy_field(const char** text, char end, char* field, size_t size) {
  size_t length = strcspn(*text, (char[]){end, '\0'});

  if (length >= size) return false;
  memcpy(field, *text, length);
  field[length] = '\0';
  *text += length + ((*text)[length] != '\0');
  return true;
}

bool handover_parse(const char* text, struct handover_place* place) {
  char ipv4[INET_ADDRSTRLEN], ipv6[INET6_ADDRSTRLEN];
  struct handover_place read = {.path = ""};

  memset(place, 0, sizeof(*place));
  if (!text || !copy_field(&text, ',', read.path, sizeof(read.path)) ||
      !copy_field(&text, ',', ipv4, sizeof(ipv4)) || !copy_field(&text, ',', ipv6, sizeof(ipv6)) ||
      *text != '\0' || read.path[0] != '/')
    return false;
  if ((*ipv4 && inet_pton(AF_INET, ipv4, &read.from4) != 1) ||
      (*ipv6 && inet_pton(AF_INET6, ipv6, &read.from6) != 1))
    return false;
  *place = read;
  return true;
}

static bool is_own4(const struct handover_place* place, const void* address) {
  return place->from4.s_addr != 0 && memcmp(address, &place->from4, sizeof(place->from4)) == 0;
}

bool handover_may_be_ticket(const struct handover_place* place, const struct sockaddr* peer) {
  if (place->path[0] == '\0') return false;
  if (peer->sa_family == AF_INET)
    return is_own4(place, &((const struct sockaddr_in*)peer)->sin_addr);
  if (peer->sa_family != AF_INET6) return false;
  const struct in6_addr* address = &((const struct sockaddr_in6*)peer)->sin6_addr;
  if (IN6_IS_ADDR_V4MAPPED(address)) return is_own4(place, &address->s6_addr[12]);
  return !IN6_IS_ADDR_UNSPECIFIED(&place->from6) && IN6_ARE_ADDR_EQUAL(address, &place->from6);
}

union one_descriptor {
  struct cmsghdr header;
  char bytes[CMSG_SPACE(sizeof(int))];
};

int handover_send(int unix_socket, char verb, int fd) {
  struct handover_message message = {.version = HANDOVER_VERSION, .verb = verb};
  struct iovec part = {&message, sizeof(message)};
  union one_descriptor control = {.bytes = {0}};
  struct msghdr frame = {.msg_iov = &part, .msg_iovlen = 1};
  ssize_t sent;

  memcpy(message.magic, HANDOVER_MAGIC, sizeof(message.magic));
  if (fd >= 0) {
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(sizeof(fd));
    memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
    frame.msg_control = &control;
    frame.msg_controllen = sizeof(control);
  }
  do sent = sendmsg(unix_socket, &frame, MSG_NOSIGNAL);
  while (sent < 0 && errno == EINTR);
  if (sent < 0) return -errno;
  return sent == sizeof(message) ? 0 : -EPROTO;
}

int handover_receive(int unix_socket, int* fd) {
  struct handover_message message;
  struct iovec part = {&message, sizeof(message)};
  union one_descriptor control;
  struct msghdr frame = {.msg_iov = &part,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = CMSG_LEN(sizeof(int))};
  int received = -1;
  ssize_t got;

  if (fd) *fd = -1;
  do got = recvmsg(unix_socket, &frame, MSG_CMSG_CLOEXEC);
  while (got < 0 && errno == EINTR);
  if (got < 0) return -errno;
  for (struct cmsghdr* header = CMSG_FIRSTHDR(&frame); header; header = CMSG_NXTHDR(&frame, header))
    if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS)
      memcpy(&received, CMSG_DATA(header), sizeof(received));
  if (got == 0) return 0;
  if (got != sizeof(message) || (frame.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0 ||
      memcmp(message.magic, HANDOVER_MAGIC, sizeof(message.magic)) != 0 ||
      message.version != HANDOVER_VERSION) {
    if (received >= 0) close(received);
    return -EPROTO;
  }
  if (fd)
    *fd = received;
  else if (received >= 0)
    close(received);
  return message.verb;
}

/* How far an agent has come that does not say so. The last that it does is to set SO_REUSEADDR, which is 2 in repair (nobody has given it to us: to close
 * it sends nothing) and 0 between the two: then something of it is not as it was, nor ever will be. The client gets a RST when the last descriptor is
 * closed. */
static int is_finished(int connection) {
  const struct linger at_once = {1, 0};
  int reuse = 0;
  socklen_t length = sizeof(reuse);

  if (getsockopt(connection, SOL_SOCKET, SO_REUSEADDR, &reuse, &length) < 0) return -errno;
  if (reuse == 1) return 0;
  setsockopt(connection, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  return reuse ? -EINPROGRESS : -ECONNRESET;
}

int handover_take(int unix_socket, int connection) {
  int result = handover_send(unix_socket, HANDOVER_TAKEN, -1);

  if (result < 0) return result;
  result = handover_receive(unix_socket, NULL);
  if (result == HANDOVER_GO) return 0;
  /* Killed, or too slow: it may have got to the end all the same. If not, it shall not go on when it wakes up. */
  shutdown(unix_socket, SHUT_RDWR);
  return is_finished(connection);
}

/* Connected, with deadlines; -errno. */
static int connect_to(const struct handover_place* place) {
  const struct timeval patience = {HANDOVER_PATIENCE_MS / 1000, HANDOVER_PATIENCE_MS % 1000 * 1000};
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  int unix_socket = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  int result;

  _Static_assert(sizeof(address.sun_path) == sizeof(place->path), "copied as a whole");
  if (unix_socket < 0) return -errno;
  memcpy(address.sun_path, place->path, sizeof(address.sun_path));
  setsockopt(unix_socket, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  setsockopt(unix_socket, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
  do result = connect(unix_socket, (const struct sockaddr*)&address, sizeof(address));
  while (result < 0 && errno == EINTR);
  if (result == 0) return unix_socket;
  result = -errno;
  close(unix_socket);
  return result;
}

/* A ticket whose agent has ended it. */
static bool is_dead(int fd) {
  struct sockaddr_storage peer;
  socklen_t length = sizeof(peer);

  return getpeername(fd, (struct sockaddr*)&peer, &length) < 0;
}

/* `connection` takes the number of `fd`, and its flag. */
static int replace(int fd, int connection) {
  int flags = fcntl(fd, F_GETFD);

  if (flags < 0 || dup3(connection, fd, flags & FD_CLOEXEC ? O_CLOEXEC : 0) < 0) return -errno;
  return 0;
}

static int claim_over(int unix_socket, int fd) {
  int connection = -1;
  int result = handover_send(unix_socket, HANDOVER_CLAIM, fd);

  if (result < 0) return is_dead(fd) ? -EAGAIN : -ENOENT;
  result = handover_receive(unix_socket, &connection);
  if (result == HANDOVER_OFFER && connection >= 0) {
    result = handover_take(unix_socket, connection);
    if (result == 0) result = replace(fd, connection);
    close(connection);
    return result == -ENOENT ? -EAGAIN : result;
  }
  if (connection >= 0) close(connection);
  if (result == HANDOVER_NOTHING) return -EAGAIN;
  return is_dead(fd) ? -EAGAIN : -ENOENT; /* STRANGER, or an agent that has gone */
}

int handover_claim(const struct handover_place* place, int fd) {
  int state, unix_socket, result;

  /* accept() may be a cancellation point before it has accepted something, not afterwards. */
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
  unix_socket = connect_to(place);
  if (unix_socket < 0) {
    result = is_dead(fd) ? -EAGAIN : -ENOENT;
    if (unix_socket == -EMFILE || unix_socket == -ENFILE || unix_socket == -ENOMEM)
      result = unix_socket;
  } else {
    result = claim_over(unix_socket, fd);
    close(unix_socket);
  }
  pthread_setcancelstate(state, NULL);
  return result;
}
