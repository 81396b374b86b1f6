/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* Generations of a flow are compared serially (RFC 1982) in GENERATION_BITS bits: half of the circle
 * behind a number is older. */
#ifndef TCPMIG_LIB_GENERATION_H
#define TCPMIG_LIB_GENERATION_H

#include <stdbool.h>

#include "shared/flow.h"

TCPMIG_ABI_BEGIN

static inline bool generation_newer(__u32 a, __u32 b)
{
	__u32 distance = (a - b) & GENERATION_MASK;

	return distance != 0 && distance < 1u << (GENERATION_BITS - 1);
}

TCPMIG_ABI_END
#endif
