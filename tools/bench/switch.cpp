// SPDX-License-Identifier: MIT
// Nanoseconds that the switch's programs take for a packet, by BPF_PROG_TEST_RUN: to the owner, from the owner, of a client that nobody owns,
// a transfer; tc and XDP; with 1,000, 100,000 and 1,000,000 live flows of a table made for 1,048,576; one hot flow, and flows by chance.
// Beside them, in turns, the two references of reference.bpf.c.
#define CATCH_CONFIG_RUNNER  // the rig has checks; here are no test cases
#include "catch.hpp"

#include <bpf/bpf.h>

#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "benchmark.hpp"
#include "config/config.hpp"
#include "figures.hpp"
#include "lab/interrupt.hpp"
#include "switch_driver.hpp"
#include "sys/netns.hpp"

namespace tcpmig::bench {
namespace {

using namespace rig;
using nlohmann::json;

constexpr std::uint32_t kSizes[] = {1'000, 100'000, 1'000'000};
/// Never live: their packets are of nobody's flows.
constexpr std::uint32_t kStrangers = 4'000'000;

/// What a map holds of the kernel's memory (/proc/self/fdinfo).
std::uint64_t memory_of(int map_fd) {
  std::ifstream file("/proc/self/fdinfo/" + std::to_string(map_fd));
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("memlock:")) return std::stoull(line.substr(8));
  return 0;
}

template <typename Value>
void insert(int map_fd, const Family& f, std::uint32_t from, std::uint32_t to, const Value& value) {
  std::vector<abi::flow_key> keys;
  for (std::uint32_t client = from; client < to; ++client) keys.push_back(key_of_client(f, client));
  const std::vector<Value> values(keys.size(), value);
  auto count = static_cast<std::uint32_t>(keys.size());
  sys::check_errno("fill a table",
                   bpf_map_update_batch(map_fd, keys.data(), values.data(), &count, nullptr));
}

void remove(int map_fd, const Family& f, std::uint32_t from, std::uint32_t to) {
  for (std::uint32_t client = from; client < to; ++client)
    sys::map_delete(map_fd, key_of_client(f, client));
}

abi::reference_value reference_entry(const Family& f) {
  abi::reference_value value{};
  const abi::ip_address address = f.vpa(2).raw();
  std::memcpy(&value.address, address.bytes + 12, 4);
  value.port = htons(kTargetPort);
  return value;
}

/// One kind of packet through one program, measured again and again.
struct Line {
  std::string name, pattern;
  std::function<double()> fire;
  std::vector<double> rounds{};
};

class Bench {
 public:
  Bench(const Plan& plan, Backend backend)
      : plan_(plan),
        f_(family(4)),
        rig_(Rig::make(backend, config::Limits().flows)),
        driver_(backend),
        repeat_(plan.quick ? 50'000 : 150'000),
        empty_(memory_of(rig_->map("flows"))) {
    if (backend == Backend::kXdp) rig_->attach_xdp();
  }

  json run() {
    json result;
    for (const std::uint32_t size : kSizes) {
      say("switch: " + std::string(rig_->backend() == Backend::kTc ? "tc" : "XDP") + ", " +
          std::to_string(size) + " live flows");
      insert(rig_->map("flows"), f_, live_, size, Rig::owned(2, 1, 5, true));
      insert(driver_.reference_table(), f_, live_, size, reference_entry(f_));
      live_ = size;
      result["sizes"].push_back({{"flows", size}, {"lines", measure()}});
    }
    const auto bytes = memory_of(rig_->map("flows"));
    result["bytes_per_flow"] = {
        {"flows_table", double(bytes - empty_) / live_},
        {"flows_table_empty", empty_},
        {"reference_table", double(memory_of(driver_.reference_table())) / config::Limits().flows},
        {"entry_key_and_value", sizeof(abi::flow_key) + sizeof(abi::flow_value)}};
    return result;
  }

 private:
  std::function<double()> through(int program, Shot shot) {
    return [this, program, shot = std::move(shot)] { return driver_.run(program, shot, repeat_); };
  }

  std::vector<Line> lines() {
    const int clients = rig_->program("clients"), nodes = rig_->program("nodes");
    std::vector<Line> result;
    for (const auto& [pattern, count] : {std::pair("hot", 1U), std::pair("random", live_)}) {
      const Shot in = inward(f_, 0, count), out = outward(f_, 0, count);
      result.push_back({"driver", pattern, [this, in] { return driver_.floor(in, repeat_); }});
      result.push_back({"forwarder", pattern, through(driver_.reference("forward"), in)});
      result.push_back({"hash and DNAT", pattern, through(driver_.reference("dnat"), in)});
      result.push_back({"inbound", pattern, through(clients, in)});
      result.push_back({"outbound", pattern, through(nodes, out)});
    }
    result.push_back({"miss, bound client", "hot", through(clients, inward(f_, kStrangers, 1))});
    result.push_back({"miss, new client", "random", new_clients(clients)});
    result.push_back({"driver of transfers", "next",
                      [this] { return driver_.floor(commits(f_, kStrangers), transfers()); }});
    result.push_back({"transfer", "next", [this, nodes] { return transfer_many(nodes); }});
    return result;
  }

  /// SYNs of 400,000 clients by chance: more than the table of bindings holds, so that each makes an entry and most evict one.
  std::function<double()> new_clients(int program) {
    const Shot shot = inward(f_, kStrangers, 400'000, packets::kSyn);
    return [this, program, shot] { return driver_.run(program, shot, repeat_ / 4); };
  }

  /// As many as the table has room for beside the live ones.
  [[nodiscard]] std::uint32_t transfers() const { return plan_.quick ? 10'000 : 40'000; }

  double transfer_many(int program) {
    const double time = driver_.run(program, commits(f_, kStrangers), transfers());
    remove(rig_->map("flows"), f_, kStrangers, kStrangers + transfers());
    return time;
  }

  json measure() {
    std::vector<Line> all = lines();
    for (Line& line : all) line.fire();  // warms up
    for (unsigned round = 0; round < plan_.rounds(7); ++round)
      for (Line& line : all) {
        lab::throw_if_interrupted();
        line.rounds.push_back(line.fire());
      }
    const auto find = [&](const std::string& name, const std::string& pattern) -> const Line& {
      for (const Line& line : all)
        if (line.name == name && line.pattern == pattern) return line;
      throw std::logic_error("no line " + name);
    };
    json result;
    for (const Line& line : all) {
      const bool transfer = line.pattern == "next";
      const Line& floor =
          transfer ? find("driver of transfers", "next") : find("driver", line.pattern);
      json entry = {{"name", line.name},
                    {"pattern", line.pattern},
                    {"ns", spread(line.rounds)},
                    {"net_ns", spread(differences(line.rounds, floor.rounds))}};
      if (!transfer)
        entry["to_reference"] =
            spread(ratios(line.rounds, find("hash and DNAT", line.pattern).rounds));
      result.push_back(entry);
    }
    return result;
  }

  const Plan& plan_;
  const Family& f_;
  std::unique_ptr<Rig> rig_;
  Driver driver_;
  std::uint32_t repeat_;
  std::uint64_t empty_;
  std::uint32_t live_ = 0;
};

}  // namespace

json switch_packets(const Plan& plan) {
  const sys::EnterNetns inside(topology());
  iproute("route replace 10.128.0.0/9 via 10.1.0.254\n");
  json result;
  for (const Backend backend : {Backend::kXdp, Backend::kTc})
    result[backend == Backend::kTc ? "tc" : "xdp"] = Bench(plan, backend).run();
  return result;
}

}  // namespace tcpmig::bench
