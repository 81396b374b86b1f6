// SPDX-License-Identifier: MIT
// The program's side of giving a connection away (handover/handover.h): it asks, and waits. The work is the agent's.
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <new>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include <tcpmig/migrate.hpp>

#include "conn/parcel.hpp"
#include "conn/repair_mode.hpp"
#include "handover/handover.h"
#include "sys/check.hpp"

namespace tcpmig {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr milliseconds kPause{50};  // between two looks for an agent that is away
constexpr milliseconds kLeastPatience{5 * HANDOVER_SIGN_MS};
constexpr std::size_t kLongestName = 255;

struct Verdict {
  int error = 0;
  bool here = false;
  std::string reason;
};

std::string path_of_agent(const MigrateOptions& options) {
  if (!options.agent.empty()) return options.agent;
  const char* place = std::getenv(HANDOVER_ENVIRONMENT);
  const std::string path =
      place == nullptr ? std::string() : std::string(place).substr(0, std::strcspn(place, ","));
  if (path.empty())
    throw std::system_error(
        ENOENT, std::generic_category(),
        "no agent is known: name its socket, or start the program under `tcpmig exec`");
  return path;
}

/// Each step with it may take as long as there is until the deadline: to connect, to say something, to hear something.
sys::UniqueFd connect_to(const std::string& path, Clock::time_point deadline) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path)
    throw std::system_error(ENAMETOOLONG, std::generic_category(), path);
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  sys::UniqueFd fd(sys::check("socket", ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)));
  const auto left =
      std::max(milliseconds(1), std::chrono::duration_cast<milliseconds>(deadline - Clock::now()));
  const timeval limit{left.count() / 1000, left.count() % 1000 * 1000};
  for (const int direction : {SO_SNDTIMEO, SO_RCVTIMEO})
    ::setsockopt(fd.get(), SOL_SOCKET, direction, &limit, sizeof limit);
  sys::check("connect to the agent at " + path,
             ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address));
  return fd;
}

void say(int agent, char verb, std::string_view text, std::span<const int> descriptors) {
  conn::send_parcel(agent, conn::handover_frame(verb, text), descriptors);
}

/// Nobody says what becomes of it.
Verdict unanswered(int fd) {
  const bool here = !conn::is_in_repair(fd);
  return {here ? ETIMEDOUT : ENOTRECOVERABLE, here,
          here ? "the agent does not answer"
               : "the agent was ended or stopped in the middle, and did not come back"};
}

Verdict verdict_in(const conn::Parcel& parcel) {
  handover_verdict verdict{};
  std::memcpy(&verdict, parcel.bytes.data(), sizeof verdict);
  const auto* text = reinterpret_cast<const char*>(parcel.bytes.data()) + sizeof verdict;
  return {verdict.error, verdict.here != 0,
          std::string(text, parcel.bytes.size() - sizeof verdict)};
}

/// As long as the agent shows signs of life; what it does has deadlines. nullopt: it has ended.
std::optional<Verdict> hear(int agent, int fd) {
  bool silent = false;
  for (;;) {
    std::optional<conn::Parcel> parcel;
    try {
      parcel = conn::receive_parcel(agent);
    } catch (const std::system_error& error) {
      if (silent || error.code().value() != EAGAIN) return std::nullopt;
      silent = true;
      ::shutdown(agent,
                 SHUT_RDWR);  // it begins with nothing from now on; what it has said is there
      continue;
    }
    const char verb = parcel ? conn::verb_of(*parcel) : '\0';
    if (verb == HANDOVER_VERDICT && parcel->bytes.size() >= sizeof(handover_verdict))
      return verdict_in(*parcel);
    if (verb != HANDOVER_WORKING) return silent ? std::optional(unanswered(fd)) : std::nullopt;
  }
}

std::optional<Verdict> ask(const std::string& path, int fd, Clock::time_point deadline) {
  try {
    const sys::UniqueFd agent = connect_to(path, deadline);
    say(agent.get(), HANDOVER_RECOVER, {}, std::span(&fd, 1));
    return hear(agent.get(), fd);
  } catch (const std::system_error&) {
    return std::nullopt;
  }
}

/// The agent was ended in the middle. Its successor knows what it had begun, or finds out.
Verdict recover(const std::string& path, int fd, milliseconds patience) {
  const auto deadline = Clock::now() + patience;
  while (Clock::now() < deadline) {
    if (auto verdict = ask(path, fd, deadline)) return *verdict;
    std::this_thread::sleep_for(kPause);
  }
  return unanswered(fd);
}

Verdict ask_to_move(int fd, std::string_view target, std::span<const std::byte> blob,
                    const MigrateOptions& options) {
  if (blob.size() > kMaxBlob)
    throw std::system_error(EMSGSIZE, std::generic_category(), "the blob is larger than 1 MB");
  if (target.size() > kLongestName)
    throw std::system_error(EADDRNOTAVAIL, std::generic_category(),
                            "there is no node with so long a name");
  const std::string path = path_of_agent(options);
  const milliseconds patience = std::max(options.patience, kLeastPatience);
  const sys::UniqueFd agent = connect_to(path, Clock::now() + patience);
  const sys::UniqueFd along = conn::make_blob(blob);
  const int descriptors[]{fd, along.get()};
  say(agent.get(), HANDOVER_MIGRATE, target, descriptors);
  if (auto verdict = hear(agent.get(), fd)) return *verdict;
  return recover(path, fd, patience);
}

}  // namespace

std::expected<void, MigrateRefused> migrate(UniqueFd fd, std::string_view target,
                                            std::span<const std::byte> blob,
                                            const MigrateOptions& options) {
  Verdict verdict;
  try {
    verdict = ask_to_move(fd.get(), target, blob, options);
  } catch (const std::system_error& error) {  // nothing has happened yet
    verdict = {error.code().value(), true, error.what()};
  } catch (const std::bad_alloc&) {
    verdict = {ENOMEM, true, "out of memory"};
  }
  if (verdict.error == 0) return {};
  if (!verdict.here) fd.reset();
  return std::unexpected(MigrateRefused{std::move(fd), std::move(verdict.reason), verdict.error});
}

}  // namespace tcpmig
