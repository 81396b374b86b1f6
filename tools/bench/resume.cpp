// SPDX-License-Identifier: MIT
// What moving a connection is made of, each part alone, with 0, 16, 64 and 128 KB that go along:
//   - freeze, encode, decode and repair resume by the library: a connection whose receive queue holds that much;
//   - a request with a body of that size through dispatcher and switch to a stock accept(), by the dispatcher's stamps. (A dispatcher
//     keeps what it acknowledges below 32 KB: what is beyond has not come when the connection moves, and comes to the server itself);
//   - migrate() from the program of one server to that of another, with that much of the application's state.
#include <linux/sockios.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <nlohmann/json.hpp>
#include <tcpmig/codec.hpp>
#include <tcpmig/freeze.hpp>
#include <tcpmig/resume.hpp>

#include "acceptor.hpp"
#include "bench/tcp_pair.hpp"
#include "fetch.hpp"
#include "figures.hpp"
#include "lab/interrupt.hpp"
#include "lab/process.hpp"
#include "migrations.hpp"
#include "stage.hpp"
#include "stamps.hpp"
#include "sys/check.hpp"
#include "sys/netns.hpp"

namespace tcpmig::bench {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr std::size_t kSizes[] = {0, 16 * 1024, 64 * 1024, 128 * 1024};

constexpr int kRoom = 1 << 20;  // of a socket that holds the largest

/// The server has `size` unread bytes when this returns.
void fill(const TcpPair& pair, std::size_t size) {
  const std::string bytes(size, 'b');
  if (::send(pair.client.get(), bytes.data(), size, 0) != static_cast<ssize_t>(size))
    sys::check("send", -1);
  const bool there = lab::wait_until(
      milliseconds(2000),
      [&] {
        int queued = 0;
        ::ioctl(pair.server.get(), SIOCINQ, &queued);
        return queued == static_cast<int>(size);
      },
      milliseconds(1));
  if (!there) throw std::runtime_error("bytes on the loopback device do not arrive");
}

struct Parts {
  std::vector<double> freeze, encode, decode, resume;
};

void move_once(std::size_t size, Scope scope, const FreezeKit& kit, const ResumeKit& resumer,
               Parts& parts) {
  TcpPair pair(kRoom);
  fill(pair, size);
  const auto begun = Clock::now();
  Frozen frozen = freeze(std::move(pair.server), {}, kit, scope);
  const auto frozen_at = Clock::now();
  parts.freeze.push_back(microseconds(frozen_at - begun));
  if (scope == Scope::kRequest) return frozen.commit();  // nothing that repair_resume() takes
  const auto bytes = encode(frozen.snapshot());
  const auto encoded_at = Clock::now();
  frozen.commit();
  const auto closed_at = Clock::now();
  const Snapshot snapshot = decode(bytes).value();
  const auto decoded_at = Clock::now();
  const UniqueFd fresh = repair_resume(snapshot, {}, {}, &resumer);
  parts.resume.push_back(microseconds(Clock::now() - decoded_at));
  parts.encode.push_back(microseconds(encoded_at - frozen_at));
  parts.decode.push_back(microseconds(decoded_at - closed_at));
}

json percentiles(const std::vector<double>& values) {
  return {{"p50_us", percentile(values, 0.5)},
          {"p90_us", percentile(values, 0.9)},
          {"p99_us", percentile(values, 0.99)},
          {"count", values.size()}};
}

json by_library(const Plan& plan, const std::string& netns) {
  const sys::EnterNetns inside(netns);
  const FreezeKit kit(
      {.use_dump_program = true, .cgroup_name = "tcpmig-bench", .keep_window_small = false});
  const ResumeKit resumer;
  std::vector<Parts> request(std::size(kSizes)), whole(std::size(kSizes));
  for (unsigned i = 0; i < plan.amount(300); ++i)
    for (std::size_t size = 0; size < std::size(kSizes); ++size) {
      lab::throw_if_interrupted();
      move_once(kSizes[size], Scope::kRequest, kit, resumer, request[size]);
      move_once(kSizes[size], Scope::kWhole, kit, resumer, whole[size]);
    }
  json result = {{"one_call_dump", kit.has_dump_program()}};
  for (std::size_t size = 0; size < std::size(kSizes); ++size)
    result["sizes"].push_back({{"bytes", kSizes[size]},
                               {"freeze_request", percentiles(request[size].freeze)},
                               {"freeze_whole", percentiles(whole[size].freeze)},
                               {"encode", percentiles(whole[size].encode)},
                               {"decode", percentiles(whole[size].decode)},
                               {"repair_resume", percentiles(whole[size].resume)}});
  return result;
}

std::string post(std::size_t size) {
  return "POST /post HTTP/1.1\r\nHost: bench\r\nConnection: close\r\nContent-Length: " +
         std::to_string(size) + "\r\n\r\n" + std::string(size, 'b');
}

json by_dispatcher(const Plan& plan) {
  const Stage stage(plan, {.name = "bn-resume"});
  Acceptor acceptor(stage.lab().node("server1").netns, kOwnPort, 16, false, all_processors());
  std::vector<Phases> phases(std::size(kSizes));
  for (unsigned done = 0; done < plan.amount(600); done += kKeptStamps)
    for (std::size_t size = 0; size < std::size(kSizes); ++size) {
      lab::throw_if_interrupted();
      const std::string request = post(kSizes[size]);
      {
        const sys::EnterNetns inside(stage.lab().node("client1").netns);
        for (unsigned i = 0; i < kKeptStamps; ++i)
          fetch(stage.own_service(), request, stage.ports());
      }
      lab::wait_until(milliseconds(100), [] { return false; });  // the last ones are confirmed
      take_stamps(stage.lab(), acceptor.take(), phases[size]);
    }
  json result;
  for (std::size_t size = 0; size < std::size(kSizes); ++size) {
    json& entry = result["sizes"].emplace_back(json{{"bytes", kSizes[size]}});
    for (const auto& [name, values] : phases[size]) entry[name] = percentiles(values);
  }
  return result;
}

json by_migrate(const Plan& plan) {
  Migrations migrations(plan, "bn-migrate");
  std::vector<std::vector<double>> times(std::size(kSizes));
  for (unsigned i = 0; i < plan.amount(200); ++i)
    for (std::size_t size = 0; size < std::size(kSizes); ++size) {
      lab::throw_if_interrupted();
      times[size].push_back(migrations.once(kSizes[size]));
    }
  json result;
  for (std::size_t size = 0; size < std::size(kSizes); ++size)
    result["sizes"].push_back({{"bytes", kSizes[size]}, {"migrate", percentiles(times[size])}});
  return result;
}

}  // namespace

json resume(const Plan& plan) {
  json result;
  say("resume: requests with a body, by the dispatcher");
  result["dispatcher"] = by_dispatcher(plan);
  say("resume: migrate() with state");
  result["migrate"] = by_migrate(plan);
  say("resume: freeze and repair resume, by the library");
  const BenchLab lab({.name = "bn-library", .servers = 1, .program = plan.program});
  result["library"] = by_library(plan, lab->node("client1").netns);
  return result;
}

}  // namespace tcpmig::bench
