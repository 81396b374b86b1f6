// SPDX-License-Identifier: MIT
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <stdexcept>
#include <string_view>

#include <tcpmig/resume.hpp>

#include "congestion.skel.h"
#include "conn/settings.hpp"
#include "sys/bpf.hpp"
#include "sys/check.hpp"
#include "sys/uapi_compat.h"

namespace tcpmig {
namespace {

/// As in bpf/congestion.bpf.c.
constexpr std::string_view kPlaceholder = "tcpmig_00000000";
struct CongestionWindow {
  std::uint32_t snd_cwnd, snd_ssthresh, ecn;
};

/// What a snapshot says is no reason to send more at a time than any path holds.
constexpr std::uint32_t kMostSegments = 1U << 20;

struct Destroy {
  void operator()(bpf_object* object) const noexcept { bpf_object__close(object); }
  void operator()(bpf_link* link) const noexcept { bpf_link__destroy(link); }
};

std::string fresh_name() {
  std::uint32_t number = 0;
  sys::check("getrandom", ::getrandom(&number, sizeof number, 0));
  constexpr std::string_view digits = "0123456789abcdef";
  std::string name(kPlaceholder);
  for (char& c : std::span(name).last(8)) {
    c = digits[number & 15];
    number >>= 4;
  }
  return name;
}

/// The object with this name in it: libbpf 1.1 has no call to change the value of a struct_ops map before it is loaded.
std::string image_with(const std::string& name) {
  std::size_t size = 0;
  const void* bytes = congestion__elf_bytes(&size);
  std::string image(static_cast<const char*>(bytes), size);
  const std::size_t at = image.find(kPlaceholder);
  if (at == std::string::npos) throw std::logic_error("the congestion program has no name");
  image.replace(at, name.size(), name);
  return image;
}

/// libbpf 1.1 fills the map and leaves it at that; a later one makes the link itself.
bool libbpf_makes_link() { return libbpf_major_version() > 1 || libbpf_minor_version() > 1; }

sys::UniqueFd create_link(int map_fd) {
  bpf_attr attributes{};
  attributes.link_create.prog_fd = static_cast<std::uint32_t>(map_fd);
  attributes.link_create.attach_type = TCPMIG_BPF_STRUCT_OPS;
  return sys::UniqueFd(static_cast<int>(
      sys::check("register the congestion program",
                 ::syscall(SYS_bpf, BPF_LINK_CREATE, &attributes, sizeof attributes))));
}

}  // namespace

struct ResumeKit::State {
  std::string name = fresh_name();
  std::unique_ptr<bpf_object, Destroy> object;
  std::unique_ptr<bpf_link, Destroy> filled;  // before Linux 6.4 such a thing would outlive us
  sys::UniqueFd link;
  int windows = -1;
  std::vector<std::string> warnings;

  void load();
};

void ResumeKit::State::load() {
  const std::string image = image_with(name);
  bpf_object* opened = bpf_object__open_mem(image.data(), image.size(), nullptr);
  if (opened == nullptr) sys::check("open the congestion program", -1);
  std::unique_ptr<bpf_object, Destroy> made(opened);
  bpf_map* operations = bpf_object__find_map_by_name(opened, "restore");
  sys::check_errno("mark the congestion program's map",
                   bpf_map__set_map_flags(operations, TCPMIG_BPF_F_LINK));
  sys::check_errno("load the congestion program (Linux 6.4 or newer)", bpf_object__load(opened));
  filled.reset(bpf_map__attach_struct_ops(operations));
  if (!filled) sys::check("fill the congestion program's map", -1);
  if (!libbpf_makes_link()) link = create_link(bpf_map__fd(operations));
  windows = bpf_object__find_map_fd_by_name(opened, "windows");
  object = std::move(made);
}

ResumeKit::ResumeKit() : state_(std::make_unique<State>()) {
  try {
    state_->load();
  } catch (const std::system_error& error) {
    state_->filled.reset();
    state_->warnings.push_back(std::string(error.what()) +
                               ": a resumed connection starts slowly again, and without ECN");
  }
}

ResumeKit::~ResumeKit() = default;

bool ResumeKit::has_congestion_program() const noexcept { return state_->object != nullptr; }
const std::vector<std::string>& ResumeKit::warnings() const noexcept { return state_->warnings; }

void ResumeKit::restore_congestion(int fd, const Snapshot& snapshot) const {
  const bool known = snapshot.snd_cwnd != 0;
  const CongestionWindow window{.snd_cwnd = std::min(snapshot.snd_cwnd, kMostSegments),
                                .snd_ssthresh = known ? snapshot.snd_ssthresh : 0,
                                .ecn = snapshot.ecn ? 1U : 0U};
  if (!has_congestion_program() || (!known && !snapshot.ecn)) return;
  const std::string own = conn::dump_congestion(fd);
  sys::map_update(state_->windows, fd, window);
  conn::restore_congestion(fd, state_->name);
  conn::restore_congestion(fd, own);
  sys::map_delete(state_->windows, fd);
}

}  // namespace tcpmig
