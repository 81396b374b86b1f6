// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <cstddef>
#include <string_view>

namespace tcpmig::sim {

/// Bytes of the client. Each that it sends has its own letter, so one that is lost, doubled or out of its place shows. A plain
/// value of fixed size: messages are copied often.
class Letters {
 public:
  static constexpr unsigned kMost = 8;

  Letters() = default;
  explicit Letters(std::string_view text) {
    for (const char letter : text) append(letter);
  }
  void append(char letter) {
    if (size_ < kMost) text_[size_++] = letter;
  }
  [[nodiscard]] unsigned size() const noexcept { return size_; }
  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
  [[nodiscard]] char at(unsigned i) const { return text_.at(i); }
  [[nodiscard]] Letters part(unsigned from, unsigned length) const {
    return Letters(view().substr(from < size_ ? from : size_, length));
  }
  [[nodiscard]] std::string_view view() const { return {text_.data(), size_}; }

 private:
  std::array<char, kMost> text_{};
  unsigned char size_ = 0;
};

/// The receiving half of a TCP: takes each byte once, in its place, keeps what comes too early.
class Stream {
 public:
  Stream() = default;
  explicit Stream(const Letters& from_the_start) : taken_(from_the_start) {}

  /// False: there was nothing new in it.
  bool take(unsigned seq, const Letters& data) {
    bool fresh = false;
    for (unsigned i = 0; i < data.size() && seq + i < Letters::kMost; ++i) {
      if (seq + i < taken_.size() || early_[seq + i] != '\0') continue;
      early_[seq + i] = data.at(i);
      fresh = true;
    }
    while (taken_.size() < Letters::kMost && early_[taken_.size()] != '\0')
      taken_.append(early_[taken_.size()]);
    return fresh;
  }
  /// The next byte that it waits for: what it acknowledges.
  [[nodiscard]] unsigned next() const noexcept { return taken_.size(); }
  [[nodiscard]] const Letters& letters() const noexcept { return taken_; }
  [[nodiscard]] bool has_gap() const {
    for (unsigned i = taken_.size(); i < Letters::kMost; ++i)
      if (early_[i] != '\0') return true;
    return false;
  }

 private:
  Letters taken_;
  std::array<char, Letters::kMost> early_{};
};

}  // namespace tcpmig::sim
