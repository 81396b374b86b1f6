// SPDX-License-Identifier: MIT
#include "switch/revoker.hpp"

#include <arpa/inet.h>
#include <bpf/libbpf.h>
#include <spdlog/spdlog.h>

#include <cerrno>
#include <cstring>
#include <system_error>

#include "switch/sweep.hpp"

namespace tcpmig::steering {
namespace {

constexpr std::uint8_t kRevokingLane = 0;

int take(void* list, void* record, std::size_t size) {
  abi::revocation one{};
  if (size < sizeof one) return 0;
  std::memcpy(&one, record, sizeof one);
  static_cast<std::vector<abi::revocation>*>(list)->push_back(one);
  return 0;
}

control::Outgoing message_of(const abi::revocation& revocation) {
  control::Outgoing message;
  abi::wire_header& header = message.header;
  header.type = abi::WIRE_REVOKED;
  header.target = htons(revocation.node);
  header.family = revocation.flow.family;
  header.service = htons(revocation.service);
  header.generation = header.current_generation = htonl(revocation.generation);
  header.client = revocation.flow.client;
  header.client_port = revocation.flow.client_port;
  return message;
}

}  // namespace

Revoker::Revoker(const config::Config& config, const control::Secret& secret, int ring_fd)
    : config_(config),
      port_(config, secret, kRevokingLane),
      ring_(ring_buffer__new(ring_fd, take, &waiting_, nullptr), ring_buffer__free) {
  if (!ring_) throw std::system_error(errno, std::generic_category(), "map the revocations");
}

int Revoker::fd() const noexcept { return ring_buffer__epoll_fd(ring_.get()); }

void Revoker::tell() {
  ring_buffer__consume(ring_.get());
  std::vector<abi::revocation> all;
  all.swap(waiting_);
  const std::uint64_t now = monotonic_ns(), old = nanoseconds(config_.timeouts.transfer);
  for (const abi::revocation& revocation : all)
    if (revocation.seen_ns + old > now) tell(revocation);
}

/// Not repeated: it is an advice, and the packets of who does not hear it are dropped all the same.
void Revoker::tell(const abi::revocation& revocation) {
  const config::Node* node = config_.find_node(config::NodeId{revocation.node});
  if (node == nullptr) return;
  const bool sent = port_.send(message_of(revocation));
  spdlog::debug("node {}: REVOKED, generation {}{}", node->name, revocation.generation,
                sent ? "" : std::string(" not sent: ") + std::strerror(errno));
}

}  // namespace tcpmig::steering
