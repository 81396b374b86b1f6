// SPDX-License-Identifier: MIT
#include "agent/claim_socket.hpp"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "sys/check.hpp"

namespace tcpmig::agent {
namespace {

constexpr int kBacklog = 4096;

sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path)
    throw std::system_error(ENAMETOOLONG, std::generic_category(), path);
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  return address;
}

sys::UniqueFd open_socket() {
  return sys::UniqueFd(
      sys::check("socket", ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)));
}

/// Whatever the umask of who started us: servers that have dropped root must get through.
void let_through(const std::filesystem::path& directory) {
  const auto mode = std::filesystem::perms::others_exec | std::filesystem::perms::group_exec;
  for (const auto& part :
       {directory, directory.parent_path(), directory.parent_path().parent_path()})
    std::filesystem::permissions(part, mode, std::filesystem::perm_options::add);
}

}  // namespace

sys::UniqueFd listen_for_claims(const std::filesystem::path& path) {
  const sockaddr_un address = address_of(path.string());
  sys::UniqueFd fd = open_socket();
  std::filesystem::remove(path);
  sys::check("bind " + path.string(),
             ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address));
  sys::check("chmod " + path.string(), ::chmod(path.c_str(), 0666));
  let_through(path.parent_path());
  sys::check("listen " + path.string(), ::listen(fd.get(), kBacklog));
  return fd;
}

sys::UniqueFd connect_to_program(const std::string& path) {
  const sockaddr_un address = address_of(path);
  sys::UniqueFd fd = open_socket();
  sys::check("connect " + path,
             ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address));
  return fd;
}

}  // namespace tcpmig::agent
