// SPDX-License-Identifier: MIT
// Real sockets through the attached programs, over veth: what BPF_PROG_TEST_RUN cannot make,
// checksums that are not finished (CHECKSUM_PARTIAL), GSO packets, neighbours that are asked for.
//
//   client --- clients0 [switch] nodes0 --- dispatcher (node 1)
//                                nodes1 --- server (node 4)
#include <bpf/libbpf.h>
#include <linux/ethtool.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <chrono>
#include <cstring>
#include <future>
#include <thread>

#include "bpf/switch_rig.hpp"
#include "sys/check.hpp"
#include "sys/netlink.hpp"

using namespace rig;
using packets::Bytes;
using tcpmig::sys::check;
using tcpmig::sys::EnterNetns;
using tcpmig::sys::UniqueFd;

namespace {

UniqueFd new_namespace() {
  return std::async(std::launch::async,
                    [] {
                      check("unshare the network namespace", ::unshare(CLONE_NEWNET));
                      iproute("link set lo up\n");
                      return tcpmig::sys::current_netns();
                    })
      .get();
}

/// ETHTOOL_S*: one value of one interface.
void ethtool(const std::string& interface, std::uint32_t command, std::uint32_t value) {
  const UniqueFd socket(check("socket", ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)));
  ethtool_value what{command, value};
  ifreq request{};
  interface.copy(request.ifr_name, IFNAMSIZ - 1);
  request.ifr_data = reinterpret_cast<char*>(&what);
  check("ethtool " + interface, ::ioctl(socket.get(), SIOCETHTOOL, &request));
}

/// The four hosts. One for each backend, as the one's program must not see the other's packets.
class Network {
 public:
  explicit Network(Backend backend) {
    const EnterNetns enter(switch_.get());
    for (const char* file : {"ipv4/ip_forward", "ipv6/conf/all/forwarding"})
      write_file(std::string("/proc/sys/net/") + file, "1");
    for (const char* which : {"all", "default"})
      write_file(std::string("/proc/sys/net/ipv4/conf/") + which + "/rp_filter", "0");
    join("clients0", client_.get(), {family(4).own_clients, family(4).client},
         {family(6).own_clients, family(6).client}, backend);
    join("nodes0", dispatcher_.get(), {family(4).own_nodes, family(4).node(1)},
         {family(6).own_nodes, family(6).node(1)}, backend);
    join("nodes1", server_.get(), {family(4).own_nodes1, family(4).node(4)},
         {family(6).own_nodes1, family(6).node(4)}, backend);
    for (const int version : {4, 6}) {
      const Family& f = family(version);
      const std::string block = f.vpa(4, 0).str() + (version == 4 ? "/18" : "/112");
      iproute("route add " + block + " via " + f.node(4).str() + "\n");
      const EnterNetns there(server_.get());
      iproute("route add local " + block + " dev lo\n");
    }
    attach(Rig::get(backend));
  }

  [[nodiscard]] int the_switch() const { return switch_.get(); }
  [[nodiscard]] int client() const { return client_.get(); }
  [[nodiscard]] int dispatcher() const { return dispatcher_.get(); }
  [[nodiscard]] int server() const { return server_.get(); }

 private:
  struct Ends {
    Address here, there;
  };

  static std::string address(const Ends& ends, bool here, const std::string& interface) {
    const Address& a = here ? ends.here : ends.there;
    return "addr add " + a.str() + (a.is_ipv4() ? "/24" : "/64") + " dev " + interface +
           (a.is_ipv4() ? "\n" : " nodad\n");
  }

  static void join(const std::string& name, int netns, const Ends& v4, const Ends& v6,
                   Backend backend) {
    tcpmig::sys::Netlink().create_veth(name, "eth0", netns);
    iproute("link set " + name + " up\n" + address(v4, true, name) + address(v6, true, name));
    const EnterNetns there(netns);
    iproute("link set eth0 up\n" + address(v4, false, "eth0") + address(v6, false, "eth0") +
            "route add default via " + v4.here.str() + "\nroute add default via " + v6.here.str() +
            "\n");
    if (backend == Backend::kTc) return;
    ethtool("eth0", ETHTOOL_STXCSUM, 0);  // XDP sees frames, which must be finished
    ethtool("eth0", ETHTOOL_SGRO, 1);     // NAPI, without which veth takes no redirected frames
  }

  static void attach(const Rig& rig) {
    if (rig.backend() == Backend::kXdp) return rig.attach_xdp();
    for (const char* name : {"clients0", "nodes0", "nodes1"}) {
      LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = static_cast<int>(::if_nametoindex(name)),
                  .attach_point = BPF_TC_INGRESS);
      LIBBPF_OPTS(bpf_tc_opts, options,
                  .prog_fd = rig.program(std::string(name) == "clients0" ? "clients" : "nodes"));
      tcpmig::sys::check_errno("clsact", bpf_tc_hook_create(&hook));
      tcpmig::sys::check_errno("attach at tc", bpf_tc_attach(&hook, &options));
    }
  }

  UniqueFd switch_ = new_namespace(), client_ = new_namespace(), dispatcher_ = new_namespace(),
           server_ = new_namespace();
};

Network& network(Backend backend) {
  static Network tc(Backend::kTc);
  static Network xdp(Backend::kXdp);
  return backend == Backend::kTc ? tc : xdp;
}

/// A socket of `netns` bound to a port (0: any), with deadlines.
UniqueFd socket_in(int netns, int version, int type, std::uint16_t port) {
  const EnterNetns enter(netns);
  UniqueFd fd(check("socket", ::socket(version == 4 ? AF_INET : AF_INET6, type | SOCK_CLOEXEC, 0)));
  const timeval deadline{20, 0};
  const int on = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &deadline, sizeof deadline);
  ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &deadline, sizeof deadline);
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in v4{};
  sockaddr_in6 v6{};
  v4.sin_family = AF_INET;
  v6.sin6_family = AF_INET6;
  v4.sin_port = v6.sin6_port = htons(port);
  check("bind", version == 4 ? ::bind(fd.get(), reinterpret_cast<sockaddr*>(&v4), sizeof v4)
                             : ::bind(fd.get(), reinterpret_cast<sockaddr*>(&v6), sizeof v6));
  return fd;
}

void connect_to(const UniqueFd& fd, const Address& address, std::uint16_t port) {
  const auto [storage, length] = tcpmig::sys::Endpoint{address, port}.to_sockaddr();
  check("connect", ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&storage), length));
}

constexpr std::size_t kTotal = 24U << 20;

std::uint8_t pattern(std::size_t at) { return static_cast<std::uint8_t>(at * 31 + (at >> 13)); }

bool send_pattern(int fd) {
  Bytes block(1U << 18);
  for (std::size_t done = 0; done < kTotal;) {
    for (std::size_t i = 0; i < block.size(); i++) block[i] = pattern(done + i);
    for (std::size_t sent = 0; sent < block.size();) {
      const auto n = ::send(fd, block.data() + sent, block.size() - sent, MSG_NOSIGNAL);
      if (n <= 0) return false;
      sent += static_cast<std::size_t>(n);
    }
    done += block.size();
  }
  return true;
}

/// Bytes that came and were right, up to the end.
std::size_t receive_pattern(int fd) {
  Bytes block(1U << 18);
  std::size_t done = 0;
  for (;;) {
    const auto n = ::recv(fd, block.data(), block.size(), 0);
    if (n <= 0) return done;
    for (std::size_t i = 0; i < static_cast<std::size_t>(n); i++)
      if (block[i] != pattern(done + i)) return done + i;
    done += static_cast<std::size_t>(n);
  }
}

/// Sends a frame from the client's interface as it is. Of one larger than a page only the first 64
/// bytes are linear in the kernel's buffer: the programs do not see the rest at first.
void send_frame(int netns, const Bytes& frame) {
  const EnterNetns enter(netns);
  const UniqueFd fd(check("socket", ::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0)));
  const int on = 1;
  check("PACKET_VNET_HDR", ::setsockopt(fd.get(), SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on));
  sockaddr_ll to{};
  to.sll_family = AF_PACKET;
  to.sll_ifindex = static_cast<int>(::if_nametoindex("eth0"));
  Bytes bytes(10);  // struct virtio_net_hdr (its header is no C++)
  bytes[2] = 64;    // hdr_len
  bytes.insert(bytes.end(), frame.begin(), frame.end());
  check("send a frame", ::sendto(fd.get(), bytes.data(), bytes.size(), 0,
                                 reinterpret_cast<const sockaddr*>(&to), sizeof to));
}

/// Ethernet header of a frame from the client to the switch.
packets::Ethernet to_switch(const Network& net) {
  const EnterNetns enter(net.the_switch());
  const std::string mac = tcpmig::sys::Netlink().find_link("clients0").value().mac;
  packets::Ethernet header{{}, mac_of_client(), {}};
  std::copy(mac.begin(), mac.end(), header.destination.begin());
  return header;
}

template <typename Condition>
bool eventually(Condition condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

}  // namespace

namespace {

/// The sequence number of the next byte that a socket sends.
std::uint32_t next_to_send(int fd) {
  const auto set = [&](int option, int value) {
    check("setsockopt of repair mode", ::setsockopt(fd, IPPROTO_TCP, option, &value, sizeof value));
  };
  std::uint32_t number = 0;
  socklen_t length = sizeof number;
  set(TCP_REPAIR, TCP_REPAIR_ON);
  set(TCP_REPAIR_QUEUE, TCP_SEND_QUEUE);
  check("getsockopt TCP_QUEUE_SEQ", ::getsockopt(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, &number, &length));
  set(TCP_REPAIR, TCP_REPAIR_OFF_NO_WP);
  return number;
}

}  // namespace

TEST_CASE("live: a connection to the owner, both ways, to its end") {
  if (!can_run()) return;
  const Case c = any_case();
  const Network& net = network(c.backend);
  Rig& s = Rig::get(c.backend);
  const Family& f = family(c.version);
  INFO((c.backend == Backend::kTc ? "tc" : "XDP") << ", IPv" << c.version);
  {
    const EnterNetns enter(net.the_switch());
    s.reset();
  }
  const UniqueFd listener = socket_in(net.server(), c.version, SOCK_STREAM, kTargetPort);
  check("listen", ::listen(listener.get(), 1));
  s.set_flow(f, Rig::owned(4, 1, 7, true));  // so that the handshake itself gets through
  const auto before = s.counters();
  UniqueFd client = socket_in(net.client(), c.version, SOCK_STREAM, kClientPort);
  connect_to(client, f.vip, kPort);
  UniqueFd server(check("accept", ::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC)));
  auto entry = Rig::owned(4, 1, 7, false);  // as a COMMIT leaves it
  entry.snd_nxt = next_to_send(server.get());
  s.set_flow(f, entry);

  auto up = std::async(std::launch::async, [&] {
    const bool sent = send_pattern(client.get());
    ::shutdown(client.get(), SHUT_WR);
    return sent;
  });
  CHECK(receive_pattern(server.get()) == kTotal);
  CHECK(up.get());
  auto down = std::async(std::launch::async, [&] {
    const bool sent = send_pattern(server.get());
    server.reset();
    return sent;
  });
  CHECK(receive_pattern(client.get()) == kTotal);
  CHECK(down.get());

  CHECK(eventually([&] { return s.flow(f)->marks.is.closing; }));
  const auto flow = s.flow(f).value();
  CHECK(flow.owner.is.spoke);
  CHECK(flow.bytes_in > kTotal);
  CHECK(flow.bytes_out > kTotal);
  if (c.backend == Backend::kTc) {  // GSO packets stay whole
    CHECK(flow.bytes_in / flow.packets_in > 3000);
    CHECK(flow.bytes_out / flow.packets_out > 3000);
  }
  Counts counted = s.counters();
  for (auto& [name, value] : counted) value -= before.at(name);
  CHECK(counted["spoke"] == 1);
  CHECK(counted["closed"] == 1);
  CHECK(counted["to_dispatcher"] == 0);
  for (const auto& [name, value] : counted) {
    INFO(name);
    if (name.starts_with("drop_")) CHECK(value == 0);
  }
}

TEST_CASE("live: headers beyond what is pulled together do not get round the rules") {
  if (!can_run()) return;
  const Network& net = network(Backend::kTc);
  Rig& s = Rig::get(Backend::kTc);
  const Family& f = family(6);
  {
    const EnterNetns enter(net.the_switch());
    s.reset();
    iproute("link set clients0 mtu 9000\n");
    const EnterNetns there(net.client());
    iproute("link set eth0 mtu 9000\n");
  }
  Bytes options(40 * 8 + 7);
  options[0] = 40;
  for (const auto& [to, counter] : {std::pair{f.vpa(4), "drop_to_vpa"},
                                    {f.vip, "drop_malformed"},
                                    {f.node(4), "drop_control_from_clients"}}) {
    INFO(counter);
    const auto before = s.counters();
    send_frame(net.client(), (to_switch(net) /
                              packets::IPv6{.source = f.client,
                                            .destination = to,
                                            .extensions = {{60, options}},
                                            .protocol = {},
                                            .payload_length = {}} /
                              packets::Udp{50000, kControlPort, Bytes(5000), true, {}})
                                 .bytes());
    const std::string name = counter;
    CHECK(eventually([&] { return s.counters().at(name) == before.at(name) + 1; }));
  }
}

TEST_CASE("live: a frame with a VLAN tag is the VLAN interface's") {
  if (!can_run()) return;
  const auto backend = GENERATE(Backend::kTc, Backend::kXdp);
  const Network& net = network(backend);
  Rig& s = Rig::get(backend);
  const Family& f = family(4);
  {
    const EnterNetns enter(net.the_switch());
    s.reset();
  }
  const auto before = s.counters();
  const Bytes plain = (to_switch(net) / packets::ip(f.client, f.vpa(4)) /
                       packets::Udp{50000, kControlPort, Bytes(100), true, {}})
                          .bytes();
  Bytes tagged = plain;
  const std::uint8_t tag[] = {0x81, 0, 0, 5};
  tagged.insert(tagged.begin() + 12, std::begin(tag), std::end(tag));
  send_frame(net.client(), tagged);
  send_frame(net.client(), plain);
  CHECK(eventually([&] { return s.counters().at("drop_to_vpa") > before.at("drop_to_vpa"); }));
  CHECK(eventually([&] { return s.counters().at("passed") > before.at("passed"); }));
  CHECK(s.counters().at("drop_to_vpa") == before.at("drop_to_vpa") + 1);
}

TEST_CASE("live: control datagrams of real sockets") {
  if (!can_run()) return;
  const Case c = any_case();
  const Network& net = network(c.backend);
  Rig& s = Rig::get(c.backend);
  const Family& f = family(c.version);
  INFO((c.backend == Backend::kTc ? "tc" : "XDP") << ", IPv" << c.version);
  {
    const EnterNetns enter(net.the_switch());
    s.reset();
  }
  const UniqueFd dispatcher = socket_in(net.dispatcher(), c.version, SOCK_DGRAM, 0);
  const UniqueFd server = socket_in(net.server(), c.version, SOCK_DGRAM, kControlPort);
  connect_to(dispatcher, f.own_nodes, kControlPort);
  const auto datagram = [&](unsigned generation) {
    const auto packet =
        control(f, transfer(f, abi::WIRE_COMMIT, 1, 4, generation), Bytes(999, 'x'));
    return std::get<packets::Udp>(packet.transport).payload;
  };
  Bytes buffer(2000);

  Bytes sent = datagram(1000);
  check("send", ::send(dispatcher.get(), sent.data(), sent.size(), 0));
  REQUIRE(::recv(server.get(), buffer.data(), buffer.size(), 0) ==
          static_cast<ssize_t>(sent.size()));
  CHECK(std::memcmp(buffer.data(), sent.data(), 120) == 0);  // all but the stamp
  CHECK(std::memcmp(buffer.data() + 128, sent.data() + 128, 999) == 0);
  REQUIRE(s.flow(f));
  CHECK(s.flow(f)->owner.is.owner == 4);

  sent = datagram(900);
  check("send", ::send(dispatcher.get(), sent.data(), sent.size(), 0));
  REQUIRE(::recv(dispatcher.get(), buffer.data(), buffer.size(), 0) ==
          static_cast<ssize_t>(sent.size()));
  abi::wire_header refusal{};
  std::memcpy(&refusal, buffer.data(), sizeof refusal);
  CHECK(refusal.type == abi::WIRE_REFUSED);
  CHECK(refusal.reason == abi::REASON_STALE_GENERATION);
  CHECK(ntohl(refusal.current_generation) == 1000);
  CHECK(tagged_for(refusal, 1));
}
