// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <cstddef>
#include <new>
#include <type_traits>

namespace tcpmig::sim {

/// Something to be done later: a callable of plain values, kept in place. As std::function it would be an allocation for each
/// event, and these were most of the time of a run.
class Task {
 public:
  static constexpr std::size_t kRoom = 104;

  template <typename Callable>
  Task(
      const Callable& what)  // NOLINT(google-explicit-constructor): a lambda is meant to become one
    requires(!std::is_same_v<Callable, Task>)
      : call_([](const std::byte* place) { (*reinterpret_cast<const Callable*>(place))(); }) {
    static_assert(std::is_trivially_copyable_v<Callable> && sizeof(Callable) <= kRoom);
    new (place_.data()) Callable(what);
  }
  void operator()() const { call_(place_.data()); }

 private:
  alignas(std::max_align_t) std::array<std::byte, kRoom> place_;
  void (*call_)(const std::byte*);
};

}  // namespace tcpmig::sim
