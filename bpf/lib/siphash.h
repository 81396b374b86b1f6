/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* SipHash-2-4 (Aumasson, Bernstein: SipHash, a fast short-input PRF, 2012), in words.
 *
 * Everything we authenticate begins at a multiple of eight bytes: a flow key is 5 words, the tagged
 * part of a header 13, and a payload follows the header at once. So there is one way in: begin,
 * absorb words, and end with what is left over (0..7 bytes). Backend- independent; also compiled on
 * the host by the tests, which hold it against the 64 vectors of the reference implementation. */
#ifndef TCPMIG_LIB_SIPHASH_H
#define TCPMIG_LIB_SIPHASH_H

#include "lib/address.h"
#include "shared/switch_maps.h"

TCPMIG_ABI_BEGIN

struct siphash {
	__u64 v0, v1, v2, v3;
};

static inline __attribute__((always_inline)) __u64 siphash_rotate(__u64 x, int bits)
{
	return x << bits | x >> (64 - bits);
}

static inline __attribute__((always_inline)) void siphash_round(struct siphash *s)
{
	s->v0 += s->v1;
	s->v1 = siphash_rotate(s->v1, 13) ^ s->v0;
	s->v0 = siphash_rotate(s->v0, 32);
	s->v2 += s->v3;
	s->v3 = siphash_rotate(s->v3, 16) ^ s->v2;
	s->v0 += s->v3;
	s->v3 = siphash_rotate(s->v3, 21) ^ s->v0;
	s->v2 += s->v1;
	s->v1 = siphash_rotate(s->v1, 17) ^ s->v2;
	s->v2 = siphash_rotate(s->v2, 32);
}

static inline __attribute__((always_inline)) void siphash_begin(struct siphash *s,
								const struct siphash_key *key)
{
	s->v0 = key->k0 ^ 0x736f6d6570736575ull;
	s->v1 = key->k1 ^ 0x646f72616e646f6dull;
	s->v2 = key->k0 ^ 0x6c7967656e657261ull;
	s->v3 = key->k1 ^ 0x7465646279746573ull;
}

/* The next eight bytes of the message, as a little-endian number (that is, as they are read on this
 * machine). */
static inline __attribute__((always_inline)) void siphash_absorb(struct siphash *s, __u64 word)
{
	s->v3 ^= word;
	siphash_round(s);
	siphash_round(s);
	s->v0 ^= word;
}

/* `rest`: the last length % 8 bytes as a little-endian number, zero above; `length`: bytes of the
 * whole message. */
static inline __attribute__((always_inline)) __u64 siphash_end(struct siphash *s, __u64 rest,
							       __u32 length)
{
	siphash_absorb(s, (__u64)(length & 0xff) << 56 | rest);
	s->v2 ^= 0xff;
	for (int i = 0; i < 4; i++)
		siphash_round(s);
	return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

/* A message of `count` whole words; `count` is a constant wherever this is used, so that the loop
 * unrolls. */
static inline __attribute__((always_inline)) __u64 siphash_words(const struct siphash_key *key,
								 const void *words, int count)
{
	struct siphash s;

	siphash_begin(&s, key);
	for (int i = 0; i < count; i++)
		siphash_absorb(&s, ((const address_half *)words)[i]);
	return siphash_end(&s, 0, (__u32)count * 8);
}

TCPMIG_ABI_END
#endif
