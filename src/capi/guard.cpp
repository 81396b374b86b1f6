// SPDX-License-Identifier: MIT
#include "capi/guard.hpp"

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>
#include <system_error>

#include <tcpmig/freeze.hpp>

namespace tcpmig::capi {
namespace {

// Of a fixed size: saying that memory is out must not take memory.
thread_local std::array<char, 512> last_error{};

}  // namespace

int fail(int error, const char* text) noexcept {
  std::snprintf(last_error.data(), last_error.size(), "%s", text);
  return error > 0 ? -error : -EIO;
}

int fail_by_exception() noexcept {
  try {
    throw;
  } catch (const Unsupported& error) {
    return fail(EOPNOTSUPP, error.what());
  } catch (const std::system_error& error) {
    return fail(error.code().value(), error.what());
  } catch (const std::invalid_argument& error) {
    return fail(EINVAL, error.what());
  } catch (const std::bad_alloc&) {
    return fail(ENOMEM, "out of memory");
  } catch (const std::length_error&) {  // of a container: more than memory could hold
    return fail(ENOMEM, "out of memory");
  } catch (const std::exception& error) {
    return fail(EIO, error.what());
  } catch (...) {
    return fail(EIO, "unknown exception");
  }
}

int refuse(const char* argument, const char* what) noexcept {
  std::array<char, 128> text;
  std::snprintf(text.data(), text.size(), "%s: %s", argument, what);
  return fail(EINVAL, text.data());
}

void* copy_for_caller(std::span<const std::byte> bytes) {
  if (bytes.empty()) return nullptr;
  void* copy = std::malloc(bytes.size());
  if (copy == nullptr) throw std::bad_alloc();
  return std::memcpy(copy, bytes.data(), bytes.size());
}

Deliver to_deliver(tcpmig_deliver_fn deliver, void* context) {
  if (deliver == nullptr) return {};
  return [deliver, context](std::span<const std::byte> packet) {
    const int result = deliver(context, packet.data(), packet.size());
    if (result < 0)
      throw std::system_error(-result, std::generic_category(), "the caller's deliver function");
  };
}

}  // namespace tcpmig::capi

#define TCPMIG_TEXT_OF(value) #value
#define TCPMIG_TEXT(value) TCPMIG_TEXT_OF(value)

extern "C" {

std::uint32_t tcpmig_version() noexcept {
  return TCPMIG_VERSION_MAJOR << 16 | TCPMIG_VERSION_MINOR << 8 | TCPMIG_VERSION_PATCH;
}

const char* tcpmig_version_string() noexcept {
  return TCPMIG_TEXT(TCPMIG_VERSION_MAJOR) "." TCPMIG_TEXT(TCPMIG_VERSION_MINOR) "." TCPMIG_TEXT(
      TCPMIG_VERSION_PATCH);
}

const char* tcpmig_last_error() noexcept { return tcpmig::capi::last_error.data(); }

void tcpmig_free(void* memory) noexcept { std::free(memory); }

}  // extern "C"
