// SPDX-License-Identifier: MIT
// A server of the tests that gives its connections away while it serves them. It listens at a `handoff` only:
//   roaming SOCKET AGENT NODE
// GET /down?size=N&moves=M&to=A&to=B..   N bytes, byte i is pattern(i); after each N/(M+1) of them it moves, to A, B, A, ..
// POST /up?moves=M&to=..                 reads Content-Length bytes, moves likewise, answers with their count and sum
// &blob=K: K bytes go along, what the program knows among them; &twice=1: two threads give the connection away at the same time.
//   roaming probe AGENT TARGET
// tries to give away what cannot be given away, and says what it hears.
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <charconv>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <string>
#include <tcpmig/migrate.hpp>
#include <tcpmig/resume.hpp>
#include <thread>
#include <vector>

namespace {

using tcpmig::UniqueFd;

std::string own_agent;
std::string own_node;

unsigned char pattern(std::uint64_t i) {
  return static_cast<unsigned char>((i * 2654435761U) >> 24);
}

/// All that the program knows of a connection.
struct State {
  char kind = 'd';
  std::uint64_t size = 0;
  std::uint64_t done = 0;
  std::uint64_t moves = 0;
  std::uint64_t moved = 0;
  std::uint64_t sum = 0;
  std::uint64_t blob = 0;  ///< bytes that go along besides
  bool twice = false;
  std::string targets;  ///< "A,B"

  [[nodiscard]] std::string target() const {
    std::vector<std::string> all;
    std::size_t begin = 0;
    for (std::size_t end = targets.find(','); begin <= targets.size();
         end = targets.find(',', begin)) {
      all.push_back(targets.substr(begin, end - begin));
      if (end == std::string::npos) break;
      begin = end + 1;
    }
    return all[moved % all.size()];
  }
  [[nodiscard]] std::uint64_t next_move() const {
    return moved >= moves ? UINT64_MAX : size / (moves + 1) * (moved + 1);
  }
};

std::vector<std::byte> pack(const State& state) {
  const std::string head = std::string(1, state.kind) + " " + std::to_string(state.size) + " " +
                           std::to_string(state.done) + " " + std::to_string(state.moves) + " " +
                           std::to_string(state.moved) + " " + std::to_string(state.sum) + " " +
                           std::to_string(state.blob) + " " + state.targets + "\n";
  std::vector<std::byte> bytes(std::max<std::size_t>(head.size(), state.blob));
  std::memcpy(bytes.data(), head.data(), head.size());
  for (std::size_t i = head.size(); i < bytes.size(); ++i)
    bytes[i] = static_cast<std::byte>(pattern(i * 31 + state.done));
  return bytes;
}

/// Ends the program where a byte is wrong.
State unpack(const std::vector<std::byte>& bytes) {
  const std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const std::size_t end = text.find('\n') + 1;
  State state;
  char targets[256] = "";
  unsigned long long number[6] = {};
  std::sscanf(text.c_str(), "%c %llu %llu %llu %llu %llu %llu %255s", &state.kind, &number[0],
              &number[1], &number[2], &number[3], &number[4], &number[5], targets);
  state.size = number[0], state.done = number[1], state.moves = number[2];
  state.moved = number[3], state.sum = number[4], state.blob = number[5];
  state.targets = targets;
  for (std::size_t i = end; i < bytes.size(); ++i)
    if (bytes[i] != static_cast<std::byte>(pattern(i * 31 + state.done))) {
      std::fprintf(stderr, "the blob is not as it was\n");
      std::_Exit(9);
    }
  return state;
}

/// False: it has gone.
bool move_away(UniqueFd& fd, State& state) {
  const std::string target = state.target();
  ++state.moved;
  std::fprintf(stderr, "%s: to %s at %llu\n", own_node.c_str(), target.c_str(),
               static_cast<unsigned long long>(state.done));
  std::thread second;
  if (state.twice)
    second = std::thread([target, bytes = pack(state), copy = UniqueFd(::dup(fd.get()))]() mutable {
      const auto other = tcpmig::migrate(std::move(copy), target, bytes, {.agent = own_agent});
      std::fprintf(stderr, "%s: the second: %d\n", own_node.c_str(),
                   other ? 0 : other.error().error);
    });
  auto result = tcpmig::migrate(std::move(fd), target, pack(state), {.agent = own_agent});
  if (second.joinable()) second.join();
  if (result) return false;
  fd = std::move(result.error().fd);
  std::fprintf(stderr, "%s: refused %d: %s\n", own_node.c_str(), result.error().error,
               result.error().reason.c_str());
  if (!fd) throw std::runtime_error("lost");
  return true;
}

bool send_all(int fd, const char* bytes, std::size_t size) {
  while (size > 0) {
    const ssize_t sent = ::send(fd, bytes, size, MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes += sent;
    size -= static_cast<std::size_t>(sent);
  }
  return true;
}

/// True: served to its end, or broken; false: it has gone to another node.
bool go_on_down(UniqueFd& fd, State& state) {
  std::vector<char> chunk(65536);
  while (state.done < state.size) {
    if (state.done >= state.next_move() && !move_away(fd, state)) return false;
    const std::uint64_t end = std::min(state.size, state.next_move());
    const std::size_t count = std::min<std::uint64_t>(chunk.size(), end - state.done);
    for (std::size_t i = 0; i < count; ++i) chunk[i] = static_cast<char>(pattern(state.done + i));
    if (!send_all(fd.get(), chunk.data(), count)) return true;
    state.done += count;
  }
  return true;
}

bool go_on_up(UniqueFd& fd, State& state) {
  std::vector<char> chunk(65536);
  while (state.done < state.size) {
    if (state.done >= state.next_move() && !move_away(fd, state)) return false;
    const std::uint64_t end = std::min(state.size, state.next_move());
    const ssize_t got =
        ::recv(fd.get(), chunk.data(), std::min<std::uint64_t>(chunk.size(), end - state.done), 0);
    if (got <= 0) return true;
    for (ssize_t i = 0; i < got; ++i)
      state.sum = state.sum * 31 + static_cast<unsigned char>(chunk[static_cast<std::size_t>(i)]);
    state.done += static_cast<std::uint64_t>(got);
  }
  const std::string body =
      std::to_string(state.done) + " " + std::to_string(state.sum) + " " + own_node;
  const std::string answer =
      "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
  send_all(fd.get(), answer.data(), answer.size());
  return true;
}

bool go_on(UniqueFd& fd, State& state) {
  return state.kind == 'u' ? go_on_up(fd, state) : go_on_down(fd, state);
}

std::uint64_t number_in(const std::string& head, const std::string& name) {
  const std::size_t at = head.find(name);
  std::uint64_t value = 0;
  if (at != std::string::npos)
    std::from_chars(head.data() + at + name.size(), head.data() + head.size(), value);
  return value;
}

std::string read_head(int fd, State& state) {
  std::string head;
  char byte = 0;
  while (head.find("\r\n\r\n") == std::string::npos) {
    if (::recv(fd, &byte, 1, 0) != 1) return {};
    head.push_back(byte);
  }
  state.kind = head.starts_with("POST") ? 'u' : 'd';
  state.size = number_in(head, state.kind == 'u' ? "Content-Length: " : "size=");
  state.moves = number_in(head, "moves=");
  state.blob = number_in(head, "blob=");
  state.twice = number_in(head, "twice=") != 0;
  for (std::size_t at = head.find("to="); at != std::string::npos; at = head.find("to=", at + 3)) {
    const std::size_t end = head.find_first_of("& ", at);
    state.targets += (state.targets.empty() ? "" : ",") + head.substr(at + 3, end - at - 3);
  }
  return head;
}

void serve(tcpmig::TakenConnection taken) {
  State state;
  if (taken.blob) {
    state = unpack(*taken.blob);
  } else {
    const std::string head = read_head(taken.fd.get(), state);
    if (head.empty()) return;
    if (state.kind == 'd') {
      const std::string answer =
          "HTTP/1.1 200 OK\r\nServer: " + own_node +
          "\r\nConnection: close\r\nContent-Length: " + std::to_string(state.size) + "\r\n\r\n";
      send_all(taken.fd.get(), answer.data(), answer.size());
    }
  }
  if (!go_on(taken.fd, state)) return;
  ::shutdown(taken.fd.get(), SHUT_WR);
  char ignored[4096];
  while (::recv(taken.fd.get(), ignored, sizeof ignored, 0) > 0) continue;
}

void take(UniqueFd agent) {
  try {
    auto taken = tcpmig::take_any_connection(agent.get());
    agent.reset();
    if (taken) serve(std::move(*taken));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", own_node.c_str(), error.what());
  }
}

void try_one(const char* what, UniqueFd fd, const char* agent, const char* target) {
  const auto result = tcpmig::migrate(std::move(fd), target, {}, {.agent = agent});
  std::printf("%s: %d %s: %s\n", what, result ? 0 : result.error().error,
              !result && result.error().fd ? "kept" : "gone",
              result ? "" : result.error().reason.c_str());
}

UniqueFd connected_to_itself(bool mptcp) {
  const UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  auto* name = reinterpret_cast<sockaddr*>(&address);
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, mptcp ? IPPROTO_MPTCP : 0));
  if (::bind(listener.get(), name, length) < 0 || ::listen(listener.get(), 1) < 0 ||
      ::getsockname(listener.get(), name, &length) < 0 || ::connect(fd.get(), name, length) < 0)
    std::perror("connect");
  return fd;
}

int probe(const char* agent, const char* target) {
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) return 1;
  const UniqueFd other(pair[1]);
  try_one("unix", UniqueFd(pair[0]), agent, target);
  try_one("listener", UniqueFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)), agent, target);
  try_one("stranger", connected_to_itself(false), agent, target);
  try_one("mptcp", connected_to_itself(true), agent, target);
  try_one("no agent", connected_to_itself(false), "/nonexistent/agent", target);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  ::signal(SIGPIPE, SIG_IGN);
  if (argv[1] == std::string("probe")) return probe(argv[2], argv[3]);
  own_agent = argv[2];
  own_node = argv[3];
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, argv[1], sizeof address.sun_path - 1);
  ::unlink(argv[1]);
  const UniqueFd listener(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) < 0 ||
      ::listen(listener.get(), 64) < 0)
    return 1;
  for (;;) {
    UniqueFd agent(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (agent) std::thread(take, std::move(agent)).detach();
  }
}
