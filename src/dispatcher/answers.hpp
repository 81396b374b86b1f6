// SPDX-License-Identifier: MIT
#pragma once
#include <string>

namespace tcpmig::dispatcher {

/// An answer of the dispatcher's own.
struct OwnAnswer {
  unsigned status = 0;   ///< 400, 404, 408, 431, 503, 504
  std::string why;       ///< the body says it
  bool to_head = false;  ///< the request was a HEAD: the body is left out (RFC 9110, 9.3.2)
};

/// The whole HTTP/1.1 message: a short body, Connection: close.
std::string to_message(const OwnAnswer& answer);

}  // namespace tcpmig::dispatcher
