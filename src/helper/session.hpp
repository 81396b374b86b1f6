// SPDX-License-Identifier: MIT
#pragma once
#include "helper/operations.hpp"

namespace tcpmig::helper {

/// Reads one question, for at most a second, does what it asks, and answers; 0, or the errno that was answered: EBADMSG where it was none.
int serve(int client, const Operations& operations) noexcept;
/// One errno, without waiting.
void answer(int client, int error) noexcept;

}  // namespace tcpmig::helper
