// SPDX-License-Identifier: MIT
#pragma once
#include <string>

namespace tcpmig::dispatcher {

/// A whole HTTP/1.1 answer of the dispatcher's own: a short body, Connection: close. Statuses: 400, 404, 408, 431, 503, 504.
std::string own_answer(unsigned status, const std::string& why);

}  // namespace tcpmig::dispatcher
