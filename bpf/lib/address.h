/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* Addresses as they stand in keys: 16 bytes, IPv4 mapped.
 *
 * struct ip_address is bytes, so clang would move it byte by byte. Whatever these functions are
 * given must lie on 8 bytes (or 4, where the name says so): map values and the members of the
 * shared structs do, locals need KEY_ALIGNED. The verifier rejects a misaligned access to the
 * stack, so a mistake does not go unseen. */
#ifndef TCPMIG_LIB_ADDRESS_H
#define TCPMIG_LIB_ADDRESS_H

#include <stdbool.h>

#include "shared/base.h"

TCPMIG_ABI_BEGIN

#define KEY_ALIGNED __attribute__((aligned(8)))

typedef __u64 __attribute__((may_alias)) address_half;
typedef __u32 __attribute__((may_alias)) address_word;

/* ::ffff:0:0/96 as the third 32-bit word, in memory order */
#define ADDRESS_V4_WORD __builtin_bswap32(0x0000ffff)

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the BPF library is written for little endian"
#endif

static inline void address_copy(void *to, const void *from)
{
	((address_half *)to)[0] = ((const address_half *)from)[0];
	((address_half *)to)[1] = ((const address_half *)from)[1];
}

/* For what lies on 4 bytes only: packets after a copy to the stack, struct bpf_fib_lookup. */
static inline void address_copy_words(void *to, const void *from)
{
	for (int i = 0; i < 4; i++)
		((address_word *)to)[i] = ((const address_word *)from)[i];
}

static inline void address_from_v4(struct ip_address *to, __be32 v4)
{
	((address_half *)to)[0] = 0;
	((address_half *)to)[1] = (__u64)v4 << 32 | ADDRESS_V4_WORD;
}

static inline __be32 address_v4(const struct ip_address *address)
{
	return ((const address_word *)address)[3];
}

static inline bool address_equal(const struct ip_address *a, const struct ip_address *b)
{
	const address_half *x = (const address_half *)a, *y = (const address_half *)b;

	return ((x[0] ^ y[0]) | (x[1] ^ y[1])) == 0;
}

static inline bool address_is_zero(const struct ip_address *a)
{
	const address_half *x = (const address_half *)a;

	return (x[0] | x[1]) == 0;
}

TCPMIG_ABI_END
#endif
