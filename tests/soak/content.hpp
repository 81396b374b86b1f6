// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

/// What clients ask and servers answer. Everything follows from the request's id, so that both sides
/// find a wrong byte, and a reply that belongs to another request, by themselves.
namespace tcpmig::soak {

std::uint64_t mix(std::uint64_t value);  ///< splitmix64's last step

/// The bytes of one body.
class Stream {
 public:
  Stream(std::uint64_t id, bool of_request) : key_(mix(id * 2 + (of_request ? 1 : 0))) {}
  void fill(std::size_t offset, char* to, std::size_t size) const;
  /// Where the first byte is that is not as it should be.
  [[nodiscard]] std::optional<std::size_t> differs(std::size_t offset,
                                                   std::string_view bytes) const;

 private:
  std::uint64_t key_;
};

std::size_t reply_size(std::uint64_t id);    ///< 100 B to 400 KB, most are small
std::size_t request_size(std::uint64_t id);  ///< of a POST: 100 B to 100 KB

/// "/3f2-9c1e...": with a check, since a path that was changed on the way must not be taken for
/// another request.
std::string path_of(std::uint64_t id);
std::optional<std::uint64_t> id_of(std::string_view path);

/// FNV-1a of what has been added.
class Hash {
 public:
  void add(std::string_view bytes);
  [[nodiscard]] std::string hex() const;

 private:
  std::uint64_t value_ = 14695981039346656037ULL;
};
/// Of the whole body of a POST.
std::string request_hash(std::uint64_t id);

/// The value of a header in a head ("X-Id" finds "\r\nX-Id: 7\r\n"); empty: not there.
std::string header(std::string_view head, std::string_view name);

}  // namespace tcpmig::soak
