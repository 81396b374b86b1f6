// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tcpmig/snapshot.hpp>
#include <tcpmig/unique_fd.hpp>

namespace tcpmig {

/// Gives one whole IP packet to this kernel as if it had been received.
using Deliver = std::function<void(std::span<const std::byte>)>;

/// For packets to `local`, by a raw socket of the calling thread's network namespace: they leave by the loopback device and come back as
/// received, whatever their source (the route that they left by is kept: no reverse path filter, no check for martians). Needs CAP_NET_RAW.
/// Throws std::system_error, and so does what it returns.
Deliver raw_delivery(const Endpoint& local);

/// The BPF program that repair_resume() can work with, loaded once for a process: it gives the new socket the congestion window and the slow
/// start threshold of the old one (Snapshot::snd_cwnd, snd_ssthresh), so that a long transfer does not start slowly again, and ECN (RFC 3168) where it was
/// negotiated (Snapshot::ecn). Linux 6.4 or newer, with
/// CAP_NET_ADMIN and CAP_BPF in the first user namespace. As long as a kit lives the kernel knows one congestion control more ("tcpmig_" and
/// eight digits), which nobody is given but, for a moment, the sockets that are resumed.
class ResumeKit {
 public:
  ResumeKit();
  ~ResumeKit();
  ResumeKit(const ResumeKit&) = delete;
  ResumeKit& operator=(const ResumeKit&) = delete;

  [[nodiscard]] bool has_congestion_program() const noexcept;
  /// What is missing and what that costs, one sentence each; empty = everything works.
  [[nodiscard]] const std::vector<std::string>& warnings() const noexcept;

  /// Used by repair_resume(): what is known of both numbers, and ECN, to a connected socket; which congestion control it uses stays. Nothing without the program.
  void restore_congestion(int fd, const Snapshot& snapshot) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Repair resume: a new socket that goes on with `snapshot` by TCP_REPAIR (any kernel >= 4.8 that has it): every state, the bytes of all
/// queues, the settings. `local` replaces snapshot.local (NAT on the way; of the same family). Needs CAP_NET_ADMIN in the user namespace of
/// the network namespace, or a repair helper there (repair_helper.hpp), which makes up the packet below as well where `deliver` is empty. The local address need not be on an interface: a local route to it is enough (IP_FREEBIND,
/// IPV6_FREEBIND); connect() wants that much. No packet leaves before everything is restored. Then what was not sent is sent, and where the
/// peer may have more to say (bytes that it has not acknowledged), or waits for an acknowledgement, a window probe asks and acknowledges; else one
/// pure ACK may be sent by the kernel when it likes.
/// That the peer has closed, that it has acknowledged our FIN, and what its clock has shown last (ts_recent), a kernel learns from a packet only: one is
/// made up in the peer's name and given to `deliver` (a TUN device, say); empty: to raw_delivery(). The clock alone is not told where that takes a
/// right that is not here.
/// What is not carried: the congestion window and ECN without a kit, the round-trip time (docs/kernel-notes.md), and of what an application sets all that
/// SocketSettings does not name (SO_RCVLOWAT, timeouts of its calls, TCP_LINGER2, ..).
/// Throws std::invalid_argument on a snapshot that contradicts itself, std::system_error or std::runtime_error naming the step that failed; the
/// connection is then closed without a packet, and may be resumed again. (But where a repair helper ended in the middle and for more than 3 s, the peer
/// may get a FIN or RST.)
UniqueFd repair_resume(const Snapshot& snapshot, std::optional<Endpoint> local = {},
                       const Deliver& deliver = {}, const ResumeKit* kit = nullptr);

/// Hands a descriptor over a connected Unix socket (SCM_RIGHTS), with `note` (at most 4096 bytes) as the message.
void send_descriptor(int unix_socket, int fd, std::string_view note);
/// The counterpart: nullopt on an orderly end of the peer.
std::optional<std::pair<UniqueFd, std::string>> receive_descriptor(int unix_socket);

/// The program's side of a pool server with `handoff`: takes one live connection from the agent that has connected to the program's
/// SOCK_SEQPACKET socket (one connection of that kind for each TCP connection: accept it, call this, close it). Receives it, says so, and
/// waits (at most two seconds) for the agent's word: until then the agent may give it to another server, afterwards it is this program's
/// alone, and if the agent is killed in between it is whichever the kernel says. The second member is the client, "192.0.2.1:4711".
/// nullopt: there is nothing to serve (the agent has ended, or changed its mind). Throws std::runtime_error where the message is no
/// connection, std::system_error where the socket fails.
std::optional<std::pair<UniqueFd, std::string>> take_connection(int unix_socket);

/// What take_any_connection() takes.
struct TakenConnection {
  UniqueFd fd;
  std::string client;  ///< "192.0.2.1:4711"
  /// What migrate() (migrate.hpp) was given with it; nullopt: a new connection, whose request has not been read.
  std::optional<std::vector<std::byte>> blob;
};
/// The same for a program that also takes connections in the middle, which the programs of other servers give away by migrate(). (take_connection()
/// throws std::runtime_error for such a one; when its Unix socket is closed, the connection goes back to where it came from.)
std::optional<TakenConnection> take_any_connection(int unix_socket);

}  // namespace tcpmig
