/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* What user space tells the driver program (driver.bpf.c). */
#ifndef TCPMIG_BENCH_DRIVER_H
#define TCPMIG_BENCH_DRIVER_H

#include "shared/switch_maps.h"
#include "shared/wire.h"

TCPMIG_ABI_BEGIN

enum driver_mode {
  DRIVE_INWARD = 0,  /* the client is the source of a TCP segment */
  DRIVE_OUTWARD = 1, /* the client is its destination */
  DRIVE_COMMIT = 2,  /* the client stands in a COMMIT, which is numbered and tagged anew */
};

enum driver_order { ORDER_RANDOM = 0, ORDER_NEXT = 1 };

enum { DRIVER_HEAD = 54, DRIVER_PORTS = 32768, DRIVER_FIRST_PORT = 20000 };

struct driver_plan {
  __u8 head[56];           /* Ethernet, IPv4, and TCP or UDP, as it is written at each repeat */
  struct wire_header wire; /* with DRIVE_COMMIT */
  struct siphash_key key;  /* of its sender */
  __u64 random;            /* state of the generator, not 0 */
  __u64 sequence;          /* of the last COMMIT */
  __u32 mode, order;
  __u32 first,
      clients;   /* clients first .. first + clients - 1; with ORDER_NEXT `clients` counts up */
  __u32 network; /* host order: client n has address network + n / DRIVER_PORTS */
  __u32 pad;
};

/* Value of the reference's table: 64 bytes, as a balancer might have it. */
struct reference_value {
  __be32 address;
  __be16 port;
  __u16 pad;
  __u64 packets, bytes, seen_ns, fill[4];
};
TCPMIG_ASSERT_SIZE(struct reference_value, 64);

TCPMIG_ABI_END
#endif
