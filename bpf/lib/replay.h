/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* The sliding window against replayed messages (RFC 6479): a ring of bits in words, of which whole
 * words are cleared as the newest number moves on, so that nothing is ever shifted. Also compiled
 * on the host by the tests. */
#ifndef TCPMIG_LIB_REPLAY_H
#define TCPMIG_LIB_REPLAY_H

#include <stdbool.h>

#include "shared/base.h"

TCPMIG_ABI_BEGIN

enum {
	REPLAY_WINDOW = 512, /* a number this much older than the newest is refused unseen */
	REPLAY_WORDS =
	    16, /* a power of two, with room for the window and a word that is partly cleared */
};

struct replay_bits {
	__u64 newest;
	__u64 words[REPLAY_WORDS];
};

/* True, and remembered, if `number` is new; false if it was seen before or is too old to know. */
static inline __attribute__((always_inline)) bool replay_accept(struct replay_bits *window,
								__u64 number)
{
	__u64 word = number >> 6, bit = 1ull << (number & 63);

	if (number > window->newest) {
		__u64 current = window->newest >> 6;
		__u64 steps = word - current;

		for (__u64 i = 1; i <= REPLAY_WORDS; i++)
			if (i <= steps)
				window->words[(current + i) & (REPLAY_WORDS - 1)] = 0;
		window->newest = number;
	} else if (window->newest - number >= REPLAY_WINDOW) {
		return false;
	}
	if (window->words[word & (REPLAY_WORDS - 1)] & bit)
		return false;
	window->words[word & (REPLAY_WORDS - 1)] |= bit;
	return true;
}

TCPMIG_ABI_END
#endif
