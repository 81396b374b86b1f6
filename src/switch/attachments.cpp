// SPDX-License-Identifier: MIT
#include "switch/attachments.hpp"

#include <bpf/bpf.h>
#include <linux/bpf.h>

#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "switch/datapath.hpp"
#include "sys/check.hpp"

namespace tcpmig::steering {
namespace {

constexpr std::uint32_t kPriority = 100;  // clsact: before filters that name none (49152)
constexpr const char* kClsactMark = "clsact_";

/// bpffs refuses names with a dot, and an interface may be eth0.5.
std::string escaped(const std::string& interface) {
  std::string text;
  for (const char c : interface) text += c == '.' ? "%2e" : c == '%' ? "%25" : std::string(1, c);
  return text;
}

std::string unescaped(std::string text) {
  for (std::size_t at = 0; (at = text.find('%', at)) != std::string::npos && at + 3 <= text.size();
       ++at)
    text.replace(at, 3, text.compare(at, 3, "%2e") == 0 ? "." : "%");
  return text;
}

std::string pin_name(config::Datapath datapath, const std::string& interface) {
  return to_string(datapath) + "-" + escaped(interface);
}

bool is_xdp_link(int link_fd, int ifindex, int prog_fd) {
  bpf_link_info link{};
  std::uint32_t length = sizeof link;
  sys::check_errno("ask for BPF link info", bpf_obj_get_info_by_fd(link_fd, &link, &length));
  bpf_prog_info program{};
  length = sizeof program;
  sys::check_errno("ask for BPF program info", bpf_obj_get_info_by_fd(prog_fd, &program, &length));
  return link.type == BPF_LINK_TYPE_XDP &&
         link.xdp.ifindex == static_cast<std::uint32_t>(ifindex) && link.prog_id == program.id;
}

[[noreturn]] void explain_xdp(const std::string& interface, const std::system_error& error) {
  const int code = error.code().value();
  std::string why = "XDP cannot be attached";
  if (code == EOPNOTSUPP || code == EINVAL)
    why = "its driver has no native XDP (for this MTU and these queues)";
  if (code == EBUSY || code == EEXIST) why = "another XDP program is attached, and is left alone";
  throw std::system_error(error.code(),
                          "interface " + interface + ": " + why +
                              "; datapath = \"tc\" or \"auto\" in [[switch]] does without");
}

}  // namespace

std::string Attachments::attach(config::Datapath datapath, const std::string& interface,
                                int ifindex, int prog_fd) const {
  const std::string pin = pin_name(datapath, interface);
  if (datapath == config::Datapath::kTc)
    return sys::attach_tc(ifindex, sys::TcHook::kIngress, prog_fd, pins_, pin, kPriority);
  try {
    sys::attach_xdp(ifindex, prog_fd, pins_, pin);
  } catch (const std::system_error& error) {
    explain_xdp(interface, error);
  }
  return "xdp";
}

bool Attachments::is_attached(config::Datapath datapath, const std::string& interface, int ifindex,
                              int prog_fd) const {
  const std::string pin = pin_name(datapath, interface);
  if (datapath == config::Datapath::kTc)
    return sys::is_tc_attached(ifindex, sys::TcHook::kIngress, prog_fd, pins_, pin, kPriority);
  const auto link = pins_.open(pin);
  return link && is_xdp_link(link->get(), ifindex, prog_fd);
}

bool Attachments::is_there(config::Datapath datapath, const std::string& interface) const {
  return pins_.open(pin_name(datapath, interface)).has_value();
}

std::string Attachments::how(config::Datapath datapath, const std::string& interface) const {
  if (datapath == config::Datapath::kXdp) return "xdp";
  return pins_.open(pin_name(datapath, interface)) ? "tcx" : "clsact";
}

void Attachments::detach(config::Datapath datapath, const std::string& interface,
                         int ifindex) const {
  const std::string pin = pin_name(datapath, interface);
  if (datapath == config::Datapath::kXdp) {
    sys::detach_xdp(pins_, pin);
  } else if (ifindex != 0) {
    sys::detach_tc(ifindex, sys::TcHook::kIngress, pins_, pin, kPriority);
  } else {
    pins_.unpin(pin);  // the interface has gone, and the link with it
  }
}

std::vector<Attachments::Found> Attachments::found() const {
  std::vector<Found> all;
  for (const auto& entry : std::filesystem::directory_iterator(pins_.path())) {
    const std::string name = entry.path().filename();
    if (name.starts_with("tc-"))
      all.push_back({config::Datapath::kTc, unescaped(name.substr(3)), 0});
    if (name.starts_with("xdp-"))
      all.push_back({config::Datapath::kXdp, unescaped(name.substr(4)), 0});
    if (name.starts_with(kClsactMark))
      all.push_back(
          {config::Datapath::kTc, "", std::atoi(name.c_str() + std::string(kClsactMark).size())});
  }
  return all;
}

}  // namespace tcpmig::steering
