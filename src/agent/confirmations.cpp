// SPDX-License-Identifier: MIT
#include "agent/confirmations.hpp"

#include <arpa/inet.h>
#include <linux/bpf.h>  // the TCP states

#include <algorithm>
#include <utility>

#include "agent/guarded.hpp"

namespace tcpmig::agent {

namespace {

bool is_full(const sys::SocketInfo& listener) { return listener.recv_queue > listener.send_queue; }

/// A child may be late, and where transfers are refused for a full backlog they come in crowds: so this must be cheap. A list
/// of listeners is not: the kernel walks all buckets of a machine's table, once for each family. It is for those that one question does not
/// find, as one that is bound to a device.
bool would_drop(sys::SockDiag& diag, const sys::Endpoint& local, const sys::Endpoint& client) {
  const auto listener = diag.find_listener(local, client);
  return listener ? is_full(*listener) : backlog_full(diag, local);
}

}  // namespace

bool Confirmations::look(Search& search, TimePoint now) {
  const Opened& opened = search.opened;
  const auto local = local_of(opened.flow, ntohs(opened.question.target_port));
  if (diag_.find(local, client_of(opened.flow))) {
    found_(opened);
    return true;
  }
  if (tombstones_.child_seen(opened.flow, ntohl(opened.question.generation))) {
    ++counters_.child_gone_early;
    found_(opened);
    return true;
  }
  search.backlog_full = search.backlog_full || would_drop(diag_, local, client_of(opened.flow));
  if (++search.looks >= kLooks && (search.backlog_full || now >= search.give_up)) {
    absent_(opened, search.backlog_full);
    return true;
  }
  ++counters_.child_looked_for_again;
  search.next = now + search.pause;
  search.pause = std::min(2 * search.pause, kLongestPause);
  return false;
}

void Confirmations::look(const Opened& opened, TimePoint now) {
  Search search{.opened = opened, .give_up = now + patience_, .next = now};
  if (!look(search, now)) searches_.push_back(search);
}

bool Confirmations::ask(const abi::flow_key& flow, const abi::wire_header& question,
                        const sys::Endpoint& from) {
  for (Search& search : searches_) {
    if (!FlowEqual{}(search.opened.flow, flow) ||
        search.opened.question.generation != question.generation)
      continue;
    const auto port = search.opened.question.target_port;
    search.opened.question = question;
    search.opened.question.target_port = port;
    search.opened.from = from;
    return true;
  }
  return false;
}

TimePoint Confirmations::due() const {
  TimePoint first = TimePoint::max();
  for (const Search& search : searches_) first = std::min(first, search.next);
  return first;
}

void Confirmations::run(TimePoint now) {
  const std::vector<Search> searches = std::exchange(searches_, {});
  for (Search search : searches) {
    bool answered = false;
    if (search.next <= now) {
      search.next = now + search.pause;  // also where this look fails
      const bool looked = guarded("look for a child", [&] { answered = look(search, now); });
      if (!looked && now >= search.give_up) continue;  // the dispatcher asks again
    }
    if (!answered) searches_.push_back(search);
  }
}

bool backlog_full(sys::SockDiag& diag, const sys::Endpoint& local) {
  bool full = false;
  diag.for_each(1U << BPF_TCP_LISTEN, [&](const sys::SocketInfo& socket) {
    const bool takes = socket.local.port == local.port &&
                       (!socket.local.address.is_set() || socket.local.address == local.address ||
                        socket.local.address.str() == "0.0.0.0");
    if (takes && is_full(socket)) full = true;
  });
  return full;
}

}  // namespace tcpmig::agent
