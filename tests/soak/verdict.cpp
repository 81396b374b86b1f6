// SPDX-License-Identifier: MIT
#include "soak/verdict.hpp"

#include <arpa/inet.h>

#include <sstream>

#include "shared/flow.h"

namespace tcpmig::soak {
namespace {

constexpr std::size_t kWords = 40;

abi::flow_key key_of(const Failure& failure) {
  abi::flow_key key{};
  key.client = failure.client.address.raw();
  key.vip = failure.vip.address.raw();
  key.client_port = htons(failure.client.port);
  key.vip_port = htons(failure.vip.port);
  key.family = failure.vip.address.is_ipv4() ? abi::FAMILY_IPV4 : abi::FAMILY_IPV6;
  return key;
}

double seconds(Clock::duration time) { return std::chrono::duration<double>(time).count(); }

/// bpf_ktime_get_ns() and steady_clock are the same clock.
std::uint64_t ns_of(Clock::time_point time) {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count());
}

}  // namespace

struct Verdict::Known {
  std::string dispatcher, owner;  ///< names; empty: not known
  bool owned = false;             ///< there is an entry of this connection
  bool spoke = false;
  std::uint64_t committed_ns = 0;
  std::uint64_t bound_ns = 0;  ///< the last SYN of this name, or a packet up to a second later
  bool acked = false;          ///< the client has answered its dispatcher
};

Verdict::Verdict(const lab::Lab& lab, const Chaos& chaos)
    : lab_(lab), chaos_(chaos), pins_(lab.config().paths("switch1").pins("switch")) {}

Verdict::Known Verdict::look_up(const Failure& failure) const {
  Known known;
  const auto name = [&](unsigned id) {
    const config::Node* node = lab_.config().find_node(static_cast<config::NodeId>(id));
    return node != nullptr ? node->name : std::string();
  };
  const abi::flow_key key = key_of(failure);
  // Opened anew each time: `switch run` may have made other maps.
  const auto affinity = pins_.open("affinity"), flows = pins_.open("flows");
  if (affinity)
    if (const auto found = sys::map_lookup<abi::affinity_value>(affinity->get(), key)) {
      known.dispatcher = name(found->dispatcher);
      known.bound_ns = found->last_seen_ns;
      known.acked = found->acked == 1;
    }
  if (!flows) return known;
  const auto flow = sys::map_lookup<abi::flow_value>(flows->get(), key);
  if (!flow || flow->committed_ns < ns_of(failure.begun)) return known;  // an earlier connection's
  known.owned = true;
  known.owner = name(static_cast<unsigned>(flow->owner.is.owner));
  known.spoke = flow->owner.is.spoke == 1;
  known.committed_ns = flow->committed_ns;
  return known;
}

std::string Verdict::excuse(const Failure& failure, const Known& known) const {
  // Whoever died, the client is told: silence has no excuse.
  if (failure.how == How::kWrong || failure.how == How::kMixed || failure.how == How::kHung)
    return {};
  const auto how = [](const Outage& outage) {
    return outage.role + (outage.killed ? " killed" : " ended");
  };
  const bool with_dispatcher = !failure.any_byte || !failure.migrated;
  if (const auto outage = chaos_.outage(known.dispatcher, failure.begun, failure.ended);
      outage && with_dispatcher) {
    // What was committed long before is confirmed, or was given up: not the dispatcher's any more.
    const auto settled = known.committed_ns + std::uint64_t{3} * 1'000'000'000;
    if (!known.owned || !known.spoke || failure.status != 0 || settled > ns_of(outage->from))
      return how(*outage);
  }
  // A binding is taken away from a client that is reset: so it is not known any more to which dispatcher.
  if (known.dispatcher.empty() && !known.owned && !failure.any_byte && !failure.migrated)
    for (const lab::Node& node : lab_.nodes())
      if (node.role == "dispatcher")
        if (const auto outage = chaos_.outage(node.name, failure.begun, failure.ended))
          return how(*outage) + ", binding gone";
  if (!failure.any_byte && !known.owner.empty())
    if (const auto outage = chaos_.outage(known.owner, failure.begun, failure.ended))
      return how(*outage) + " before the first byte";
  if (failure.how == How::kStatus && failure.status >= 502 && failure.status <= 504)
    for (const lab::Node& node : lab_.nodes())
      if (node.role == "server")
        if (const auto outage =
                chaos_.outage(node.name, failure.begun - std::chrono::seconds(1), failure.ended))
          return how(*outage) + " (answer " + std::to_string(failure.status) + ")";
  return {};
}

std::string Verdict::in_words(const Failure& failure, const Known& known) const {
  std::ostringstream text;
  text << to_string(failure.how) << ": " << failure.client.str() << " -> " << failure.vip.str()
       << (failure.post ? " POST " : " GET ") << failure.detail << "; lived "
       << seconds(failure.ended - failure.begun) << " s, " << failure.replies << " replies before"
       << (failure.connected ? "" : ", not connected") << (failure.any_byte ? "" : ", no byte")
       << (failure.migrated ? ", migrated" : "") << "; dispatcher "
       << (known.dispatcher.empty() ? "unknown" : known.dispatcher)
       << (known.acked ? ", answered" : ", not answered") << ", last bound after "
       << (static_cast<double>(known.bound_ns) - static_cast<double>(ns_of(failure.begun))) / 1e9
       << " s, owner "
       << (known.owned ? (known.owner.empty() ? "none any more" : known.owner) : "no entry")
       << (known.spoke ? " that spoke" : "");
  if (known.owned)
    text << ", committed after "
         << static_cast<double>(known.committed_ns - ns_of(failure.begun)) / 1e9 << " s";
  for (const Outage& outage : chaos_.outages())
    if (outage.to >= failure.begun - std::chrono::seconds(3) && outage.from <= failure.ended)
      text << "; " << outage.node << (outage.killed ? " killed " : " ended ")
           << seconds(outage.from - failure.begun) << ".."
           << (outage.to == Clock::time_point::max()
                   ? std::string("now")
                   : std::to_string(seconds(outage.to - failure.begun)))
           << " s";
  return text.str();
}

void Verdict::judge(const Failure& failure) {
  const Known known = look_up(failure);
  const std::string why = excuse(failure, known);
  const std::lock_guard lock(mutex_);
  ++totals_.by_how[to_string(failure.how)];
  totals_.wrong += failure.how == How::kWrong ? 1 : 0;
  totals_.mixed += failure.how == How::kMixed ? 1 : 0;
  totals_.hung += failure.how == How::kHung ? 1 : 0;
  if (!why.empty()) {
    ++totals_.excused[std::string(to_string(failure.how)) + ": " + why];
    return;
  }
  ++totals_.unexcused;
  if (totals_.words.size() < kWords) totals_.words.push_back(in_words(failure, known));
}

Verdict::Totals Verdict::totals() const {
  const std::lock_guard lock(mutex_);
  return totals_;
}

}  // namespace tcpmig::soak
