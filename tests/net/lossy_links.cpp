// SPDX-License-Identifier: MIT
#include "net/lossy_links.hpp"

#include <net/if.h>

#include <string_view>

#include "catch.hpp"
#include "lossy_links.skel.h"
#include "sys/bpf_clsact.hpp"

namespace conn_test {

LossyLinks::LossyLinks(const World& world, std::uint32_t lost_of_1000)
    : program_(lossy_links__open()) {
  REQUIRE(program_ != nullptr);
  program_->rodata->lost_of_1000 = lost_of_1000;
  REQUIRE(lossy_links__load(program_) == 0);
  for (const Namespace* where : {&world.client, &world.a, &world.b}) attach(*where);
}

LossyLinks::~LossyLinks() { lossy_links__destroy(program_); }

std::uint64_t LossyLinks::lost() const { return program_->bss->lost; }

void LossyLinks::attach(const Namespace& where) const {
  const auto in = where.enter();
  const std::unique_ptr<struct if_nameindex[], decltype(&::if_freenameindex)> links(
      ::if_nameindex(), ::if_freenameindex);
  REQUIRE(links);
  for (const struct if_nameindex* link = links.get(); link->if_index != 0; ++link)
    if (std::string_view(link->if_name) != "lo")
      tcpmig::sys::attach_clsact_unrecorded(static_cast<int>(link->if_index),
                                            tcpmig::sys::TcHook::kEgress,
                                            bpf_program__fd(program_->progs.lose), 1);
}

}  // namespace conn_test
