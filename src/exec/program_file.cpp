// SPDX-License-Identifier: MIT
#include "exec/program_file.hpp"

#include <elf.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <optional>
#include <sstream>
#include <vector>

#include "sys/check.hpp"
#include "sys/errors.hpp"
#include "sys/unique_fd.hpp"

namespace tcpmig::exec {
namespace {

namespace fs = std::filesystem;
constexpr int kInterpretersDeep = 4;  // as the kernel (BINPRM_MAX_RECURSION)

bool is_program(const fs::path& file) {
  return fs::is_regular_file(file) && ::access(file.c_str(), X_OK) == 0;
}

/// At most `size` bytes from `offset` on; fewer where the file ends.
std::string read_at(int fd, std::size_t size, std::size_t offset) {
  std::string bytes(size, '\0');
  const ssize_t got = ::pread(fd, bytes.data(), size, static_cast<off_t>(offset));
  bytes.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  return bytes;
}

template <typename Value>
std::optional<Value> value_at(int fd, std::size_t offset) {
  const std::string bytes = read_at(fd, sizeof(Value), offset);
  if (bytes.size() != sizeof(Value)) return std::nullopt;
  Value value;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

/// The dynamic linker that the program asks for; empty: it is static.
std::string linker_of(int fd, const Elf64_Ehdr& header) {
  for (unsigned i = 0; i < header.e_phnum; ++i) {
    const auto segment = value_at<Elf64_Phdr>(fd, header.e_phoff + i * sizeof(Elf64_Phdr));
    if (segment && segment->p_type == PT_INTERP && segment->p_filesz <= PATH_MAX)
      return read_at(fd, segment->p_filesz, segment->p_offset).c_str();
  }
  return {};
}

/// Go leaves a note of its own; its programs make system calls by themselves, dynamically linked or not.
bool is_go(int fd, const Elf64_Ehdr& header) {
  for (unsigned i = 0; i < header.e_phnum; ++i) {
    const auto segment = value_at<Elf64_Phdr>(fd, header.e_phoff + i * sizeof(Elf64_Phdr));
    if (segment && segment->p_type == PT_NOTE && segment->p_filesz <= 65'536 &&
        read_at(fd, segment->p_filesz, segment->p_offset).find(std::string("Go\0\0", 4)) !=
            std::string::npos)
      return true;
  }
  return false;
}

constexpr const char* kInstead =
    ": run it on a kernel with kernel resume, or let it take its connections by `handoff` or "
    "`tcpmig exec "
    "--inetd`";

std::string why_not_elf(int fd, const fs::path& program) {
  const auto header = value_at<Elf64_Ehdr>(fd, 0);
  const std::string name = program.string();
  if (!header || std::memcmp(header->e_ident, ELFMAG, SELFMAG) != 0)
    return name + " is neither an ELF program nor a script";
  if (header->e_ident[EI_CLASS] != ELFCLASS64)
    return name + " is a 32-bit program, the preload library is not" + kInstead;
  if (is_go(fd, *header))
    return name + " is a Go program, which makes its system calls without the C library" + kInstead;
  const std::string linker = linker_of(fd, *header);
  if (linker.empty()) return name + " is statically linked" + kInstead;
  if (linker.find("musl") != std::string::npos)
    return name + " is linked with musl, the preload library with glibc" + kInstead;
  return {};
}

/// The interpreter of a script, empty: none named. "#!/usr/bin/env python3" is python3.
fs::path interpreter_of(const std::string& start) {
  std::istringstream line(start.substr(2, start.find('\n') - 2));
  std::string first;
  std::string second;
  line >> first >> second;
  const bool is_env = fs::path(first).filename() == "env" && !second.empty() && second[0] != '-';
  return is_env ? find_program(second) : fs::path(first);
}

}  // namespace

fs::path find_program(const std::string& name) {
  if (name.find('/') != std::string::npos) {
    if (fs::exists(name)) return name;
    throw sys::NotFound("there is no program " + name);
  }
  const char* path = std::getenv("PATH");
  std::istringstream directories(path == nullptr ? "/usr/sbin:/usr/bin:/sbin:/bin" : path);
  for (std::string directory; std::getline(directories, directory, ':');)
    if (const fs::path file = fs::path(directory.empty() ? "." : directory) / name;
        is_program(file))
      return file;
  throw sys::NotFound("there is no program " + name + " in PATH");
}

std::string why_no_preload(const fs::path& program) {
  fs::path file = program;
  for (int depth = 0; depth <= kInterpretersDeep; ++depth) {
    const sys::UniqueFd fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) return {};  // executable but not readable: exec says what else is wrong
    struct stat about{};
    sys::check("fstat " + file.string(), ::fstat(fd.get(), &about));
    const bool other_user = (about.st_mode & S_ISUID) != 0 && about.st_uid != ::geteuid();
    const bool other_group = (about.st_mode & S_ISGID) != 0 && about.st_gid != ::getegid();
    if (other_user || other_group)
      return file.string() +
             " is set-user-ID or set-group-ID, and so ignores LD_PRELOAD: start it as that user";
    const std::string start = read_at(fd.get(), 256, 0);
    if (!start.starts_with("#!")) return why_not_elf(fd.get(), file);
    file = interpreter_of(start);
  }
  return program.string() + ": too many interpreters";
}

}  // namespace tcpmig::exec
