// SPDX-License-Identifier: MIT
#pragma once
/// bpf/lib compiled for the host: the very code that runs in the kernel.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wshadow"
#include "lib/replay.h"
#include "lib/rewrite.h"
#include "lib/siphash.h"
#include "lib/vpa.h"
#pragma GCC diagnostic pop
