/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* Arithmetic of the Internet checksum for rewriting (RFC 1071, RFC 1624 equation 3): nothing is
 * ever added up anew, only the change of what is replaced is. A change is kept in 64 bits and
 * folded once at the end, so changes may simply be added to each other.
 *
 * A stored checksum can come out as 0x0000 but never as 0xffff, as with the kernel's own; for UDP,
 * where 0 means "none", see csum_apply_udp. */
#ifndef TCPMIG_LIB_REWRITE_H
#define TCPMIG_LIB_REWRITE_H

#include "lib/address.h"

TCPMIG_ABI_BEGIN

#define REWRITE_INLINE static inline __attribute__((always_inline))

/* Of the 16-bit word TTL | protocol when the TTL goes down by one: ~word + (word - 1), in memory
 * order the TTL is the low byte. */
#define CSUM_CHANGE_TTL 0xfffeull

REWRITE_INLINE __u64 csum_change_16(__u16 from, __u16 to)
{
	return (__u64)(__u16)~from + to;
}

REWRITE_INLINE __u64 csum_change_32(__u32 from, __u32 to)
{
	return (__u64)(__u32)~from + to;
}

/* For IPv4 the other twelve bytes are the same on both sides. */
REWRITE_INLINE __u64 csum_change_address(__u8 family, const struct ip_address *from,
					 const struct ip_address *to)
{
	const address_word *a = (const address_word *)from, *b = (const address_word *)to;
	__u64 change = csum_change_32(a[3], b[3]);

	if (family == FAMILY_IPV6)
		change += csum_change_32(a[0], b[0]) + csum_change_32(a[1], b[1]) +
			  csum_change_32(a[2], b[2]);
	return change;
}

/* To 32 bits, as the kernel's helpers want it. */
REWRITE_INLINE __u32 csum_fold_32(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	return (__u32)((sum & 0xffffffff) + (sum >> 32));
}

REWRITE_INLINE __u16 csum_fold_16(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__u16)((sum & 0xffff) + (sum >> 16));
}

/* The new value of a checksum field. */
REWRITE_INLINE __u16 csum_apply(__u16 check, __u64 change)
{
	return (__u16)~csum_fold_16((__u16)~check + change);
}

REWRITE_INLINE __u16 csum_apply_udp(__u16 check, __u64 change)
{
	if (check == 0)
		return 0;
	check = csum_apply(check, change);
	return check ? check : 0xffff;
}

TCPMIG_ABI_END
#endif
