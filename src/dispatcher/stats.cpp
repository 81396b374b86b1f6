// SPDX-License-Identifier: MIT
#include "dispatcher/stats.hpp"

#include <time.h>

#include <algorithm>

#include <nlohmann/json.hpp>

#include "control/message.hpp"

namespace tcpmig::dispatcher {
namespace {

using nlohmann::json;

constexpr std::array kCounterNames{
#define X(name, json_name) json_name,
    DISPATCHER_COUNTERS(X)
#undef X
};

json percentiles(std::vector<std::uint64_t> values) {
  if (values.empty()) return nullptr;
  std::ranges::sort(values);
  const auto at = [&](double share) {
    return values[static_cast<std::size_t>(share * static_cast<double>(values.size() - 1))];
  };
  return {
      {"p50_ns", at(0.50)}, {"p90_ns", at(0.90)}, {"p99_ns", at(0.99)}, {"count", values.size()}};
}

/// Times since the head was complete; what has no stamp is left out.
json phases(const std::deque<TransferRecord>& records) {
  static constexpr std::array<std::pair<const char*, std::uint64_t Stamps::*>, 6> kPhases{{
      {"frozen", &Stamps::frozen},
      {"sent", &Stamps::sent},
      {"switch_committed", &Stamps::committed},
      {"server_received", &Stamps::received},
      {"resumed", &Stamps::opened},
      {"confirmed", &Stamps::confirmed},
  }};
  json result;
  for (const auto& [name, member] : kPhases) {
    std::vector<std::uint64_t> values;
    for (const TransferRecord& record : records)
      if (record.stamps.*member >= record.stamps.head)
        values.push_back(record.stamps.*member - record.stamps.head);
    result[name] = percentiles(std::move(values));
  }
  return result;
}

json to_json(const TransferRecord& record) {
  const Stamps& s = record.stamps;
  return {{"client", record.client.str()},
          {"service", record.service},
          {"server", record.server},
          {"port", record.port},
          {"generation", record.generation},
          {"stamps_ns",
           {{"accepted", s.accepted},
            {"head", s.head},
            {"frozen", s.frozen},
            {"sent", s.sent},
            {"switch_committed", s.committed},
            {"server_received", s.received},
            {"resumed", s.opened},
            {"confirmed", s.confirmed}}}};
}

}  // namespace

std::uint64_t monotonic_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000U +
         static_cast<std::uint64_t>(now.tv_nsec);
}

void Stats::answered(unsigned status) {
  const std::lock_guard lock(mutex_);
  ++answers_[status];
}

void Stats::refused(std::uint8_t reason) {
  const std::lock_guard lock(mutex_);
  ++refusals_[reason];
}

void Stats::freeze_refused(const std::string& why) {
  add(Counter::kFreezeRefused);
  const std::lock_guard lock(mutex_);
  ++freeze_refusals_[why];
}

void Stats::relayed(const std::string& why) {
  const std::lock_guard lock(mutex_);
  ++relays_[why];
}

void Stats::transferred(TransferRecord record) {
  add(Counter::kTransferred);
  const std::lock_guard lock(mutex_);
  records_.push_back(std::move(record));
  if (records_.size() > kKept) records_.pop_front();
}

json Stats::json() const {
  nlohmann::json result;
  for (std::size_t i = 0; i < kCounterNames.size(); ++i)
    result["counters"][kCounterNames[i]] = counters_[i].load(std::memory_order_relaxed);
  result["waiting"] = waiting.load();
  result["in_transfer"] = in_transfer.load();
  result["relaying"] = relaying.load();
  const std::lock_guard lock(mutex_);
  result["answers"] = nlohmann::json::object();
  for (const auto& [status, count] : answers_) result["answers"][std::to_string(status)] = count;
  result["refused"] = nlohmann::json::object();
  for (const auto& [reason, count] : refusals_)
    result["refused"][control::reason_text(reason)] = count;
  result["freeze_refused"] = freeze_refusals_;
  result["relayed"] = relays_;
  result["phases_since_head"] = phases(records_);
  result["recent"] = nlohmann::json::array();
  const std::size_t skip = records_.size() - std::min(records_.size(), kRecent);
  for (std::size_t i = skip; i < records_.size(); ++i)
    result["recent"].push_back(to_json(records_[i]));
  return result;
}

}  // namespace tcpmig::dispatcher
