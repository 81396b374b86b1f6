// SPDX-License-Identifier: MIT
#include <bpf/btf.h>

#include <memory>

#include "sys/bpf.hpp"

namespace tcpmig::sys {

std::string kfunc_missing(const std::string& name) {
  const std::unique_ptr<btf, void (*)(btf*)> kernel(btf__load_vmlinux_btf(), btf__free);
  if (!kernel) return "the kernel has no type information (/sys/kernel/btf/vmlinux)";
  if (btf__find_by_name_kind(kernel.get(), name.c_str(), BTF_KIND_FUNC) < 0)
    return "the kernel has no " + name + "()";
  return {};
}

}  // namespace tcpmig::sys
