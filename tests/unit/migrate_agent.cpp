// SPDX-License-Identifier: MIT
// The program's side of giving a connection away, and of taking one, against an agent that the test plays.
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>

#include <tcpmig.h>
#include <tcpmig/migrate.hpp>

#include "catch.hpp"
#include "conn/parcel.hpp"
#include "handover/handover.h"

using namespace tcpmig;
using namespace std::chrono_literals;

namespace {

/// Listens where an agent does; each connection is answered by the next of `answers`, which gets it with the verb that came over it.
class PlayedAgent {
 public:
  using Answer = std::function<void(const UniqueFd& channel, char verb)>;
  explicit PlayedAgent(std::vector<Answer> answers) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::filesystem::remove(path_);
    path_.copy(address.sun_path, sizeof address.sun_path - 1);
    REQUIRE(::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) ==
            0);
    REQUIRE(::listen(listener_.get(), 8) == 0);
    thread_ = std::thread([this, answers = std::move(answers)] {
      for (const Answer& answer : answers) {
        const UniqueFd channel(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
        if (!channel) return;
        const auto parcel = conn::receive_parcel(channel.get());
        handover_message head{};
        if (parcel && parcel->bytes.size() >= sizeof head)
          std::memcpy(&head, parcel->bytes.data(), sizeof head);
        answer(channel, head.verb);
      }
    });
  }
  ~PlayedAgent() {
    ::shutdown(listener_.get(), SHUT_RDWR);
    thread_.join();
    std::filesystem::remove(path_);
  }
  PlayedAgent(const PlayedAgent&) = delete;
  PlayedAgent& operator=(const PlayedAgent&) = delete;
  [[nodiscard]] const std::string& path() const noexcept { return path_; }

 private:
  std::string path_ =
      (std::filesystem::temp_directory_path() / ("tcpmig-agent-" + std::to_string(::getpid())))
          .string();
  UniqueFd listener_{::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)};
  std::thread thread_;
};

void say(const UniqueFd& channel, int error, bool here) {
  handover_verdict verdict{};
  std::memcpy(verdict.head.magic, HANDOVER_MAGIC, sizeof verdict.head.magic);
  verdict.head.version = HANDOVER_VERSION;
  verdict.head.verb = HANDOVER_VERDICT;
  verdict.error = error;
  verdict.here = here ? 1 : 0;
  conn::send_parcel(channel.get(), std::as_bytes(std::span(&verdict, 1)), {});
}

/// The two ends of a connection over the loopback device.
struct Tcp {
  Tcp() {
    const UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    auto* raw = reinterpret_cast<sockaddr*>(&address);
    REQUIRE(::bind(listener.get(), raw, length) == 0);
    REQUIRE(::listen(listener.get(), 1) == 0);
    REQUIRE(::getsockname(listener.get(), raw, &length) == 0);
    REQUIRE(::connect(client.get(), raw, length) == 0);
    server.reset(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    REQUIRE(server);
  }
  UniqueFd client{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  UniqueFd server;
};

bool is_open(int fd) { return ::fcntl(fd, F_GETFD) >= 0; }

}  // namespace

TEST_CASE("migrate: a descriptor is the caller's, whatever the agent says, unless it has gone") {
  const auto outcome_of = [](int error, bool here, bool open_afterwards) {
    const PlayedAgent agent({[&](const UniqueFd& channel, char) { say(channel, error, here); }});
    Tcp tcp;
    const int fd = tcp.server.release();
    const int result = tcpmig_migrate(fd, "server2", "blob", 4, agent.path().c_str());
    CHECK(is_open(fd) == open_afterwards);
    if (is_open(fd)) ::close(fd);
    return result;
  };
  CHECK(outcome_of(0, false, false) == 0);
  CHECK(outcome_of(ECONNREFUSED, true, true) == -ECONNREFUSED);
  CHECK(outcome_of(ENOTRECOVERABLE, false, true) == -ENOTRECOVERABLE);
  // in C++ the object says it
  const PlayedAgent agent(
      {[](const UniqueFd& channel, char) { say(channel, ENOTRECOVERABLE, false); }});
  const auto lost = migrate(UniqueFd(Tcp().server.release()), "server2", {}, {agent.path()});
  REQUIRE_FALSE(lost);
  CHECK(lost.error().error == ENOTRECOVERABLE);
  CHECK_FALSE(lost.error().fd);
}

TEST_CASE("migrate: an agent that works is waited for, patience is for one that has gone") {
  const auto work = [](const UniqueFd& channel) {
    for (int i = 0; i < 12; ++i) {
      handover_send(channel.get(), HANDOVER_WORKING, -1);
      std::this_thread::sleep_for(100ms);
    }
    say(channel, 0, false);
  };
  std::atomic<int> recovers = 0;
  const PlayedAgent agent({[&](const UniqueFd& channel, char) { work(channel); },
                           [](const UniqueFd&, char) {},  // ends
                           [&](const UniqueFd& channel, char verb) {
                             recovers += verb == HANDOVER_RECOVER;
                             work(channel);
                           }});
  const MigrateOptions options{.agent = agent.path(), .patience = 1s};
  CHECK(migrate(UniqueFd(Tcp().server.release()), "server2", {}, options));
  CHECK(migrate(UniqueFd(Tcp().server.release()), "server2", {}, options));
  CHECK(recovers == 1);
}

TEST_CASE("migrate: an agent that says nothing is given up, and hears of it first") {
  std::atomic<bool> told = false;
  const PlayedAgent agent({[&](const UniqueFd& channel, char) {
    handover_send(channel.get(), HANDOVER_WORKING, -1);
    told = !conn::receive_parcel(channel.get());
  }});
  Tcp tcp;
  const int fd = tcp.server.get();
  const auto outcome = migrate(UniqueFd(tcp.server.release()), "server2", {},
                               {.agent = agent.path(), .patience = 1ms});
  REQUIRE_FALSE(outcome);
  CHECK(outcome.error().error == ETIMEDOUT);
  CHECK(outcome.error().reason == "the agent does not answer");
  CHECK(outcome.error().fd.get() == fd);
  for (int i = 0; i < 50 && !told; ++i) std::this_thread::sleep_for(100ms);
  CHECK(told);
}

TEST_CASE("migrate: a name that no server can have is the name of none") {
  const PlayedAgent agent({[](const UniqueFd&, char) {}});
  const auto outcome = migrate(UniqueFd(Tcp().server.release()), std::string(5'000, 's'), {},
                               {.agent = agent.path(), .patience = 100ms});
  REQUIRE_FALSE(outcome);
  CHECK(outcome.error().fd);
  CHECK(outcome.error().error == EADDRNOTAVAIL);
  const UniqueFd end(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  agent.path().copy(address.sun_path, sizeof address.sun_path - 1);
  ::connect(end.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
}

TEST_CASE("handover: a connection that the agent has not finished is none") {
  int ends[2] = {-1, -1};
  REQUIRE(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
  UniqueFd program(ends[0]), agent(ends[1]);
  Tcp tcp;
  char byte = 0;
  std::thread killed([&] {
    CHECK(handover_receive(agent.get(), nullptr) == HANDOVER_TAKEN);
    agent.reset();
  });
  SECTION("it has left repair, and not written what was to be sent") {
    CHECK(handover_take(program.get(), tcp.server.get()) < 0);
    tcp.server.reset();
    CHECK(::recv(tcp.client.get(), &byte, 1, 0) == -1);  // no orderly end of half an answer
    CHECK(errno == ECONNRESET);
  }
  SECTION("it has done all but to say so") {
    const int on = 1;
    REQUIRE(::setsockopt(tcp.server.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0);
    CHECK(handover_take(program.get(), tcp.server.get()) == 0);
    tcp.server.reset();
    CHECK(::recv(tcp.client.get(), &byte, 1, 0) == 0);
  }
  killed.join();
}
