// SPDX-License-Identifier: MIT
#include "exec/exec.hpp"

#include <unistd.h>

#include <cstdlib>

#include "exec/program_file.hpp"
#include "sys/check.hpp"
#include "sys/errors.hpp"

namespace tcpmig::exec {
namespace {

constexpr const char* kLibrary = "libtcpmig-preload.so";

void set_environment(const char* name, const std::string& value) {
  sys::check(std::string("setenv ") + name, ::setenv(name, value.c_str(), 1));
}

}  // namespace

std::string place_text(const config::Config& config, const config::Node& self) {
  const auto address = [&](bool ipv4) {
    return (ipv4 ? self.address4 : self.address6).is_set()
               ? config::own_vpa(config, self.id, ipv4).str()
               : std::string();
  };
  return config.paths(self.name).handover_socket().string() + "," + address(true) + "," +
         address(false);
}

handover_place place_of(const config::Config& config, const config::Node& self) {
  handover_place place{};
  if (!handover_parse(place_text(config, self).c_str(), &place))
    throw sys::WrongSetup(config.paths(self.name).handover_socket().string() +
                          " is too long for a Unix socket: give the node or the cluster a shorter "
                          "name");
  return place;
}

std::filesystem::path preload_library() {
  namespace fs = std::filesystem;
  const fs::path here = fs::read_symlink("/proc/self/exe").parent_path();
  const fs::path beside = here / kLibrary;
  const fs::path installed = here.parent_path() / "lib" / "tcpmig" / kLibrary;
  for (const fs::path& file : {beside, installed})
    if (fs::exists(file)) return fs::weakly_canonical(file);
  throw sys::NotFound(std::string("there is no ") + kLibrary + " at " + beside.string() + " or " +
                      installed.string() + ": build or install it with tcpmig");
}

void become(const config::Config& config, const config::Node& self,
            const std::vector<std::string>& command) {
  const auto program = find_program(command.at(0));
  if (const std::string why = why_no_preload(program); !why.empty()) throw sys::WrongSetup(why);
  static_cast<void>(place_of(config, self));  // it fits
  set_environment(HANDOVER_ENVIRONMENT, place_text(config, self));
  const char* others = std::getenv("LD_PRELOAD");
  const bool alone = others == nullptr || *others == '\0';
  set_environment("LD_PRELOAD",
                  preload_library().string() + (alone ? "" : ":" + std::string(others)));
  std::vector<char*> arguments;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  ::execv(program.c_str(), arguments.data());
  sys::check("cannot run " + program.string(), -1);
}

}  // namespace tcpmig::exec
