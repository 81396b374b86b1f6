/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* From bytes to `struct packet`: what the programs want to know of a packet, in one flat value, so
 * that nothing after it touches packet memory to decide. Works on a pair of pointers, so it serves
 * XDP and tc alike.
 *
 * VLAN tags, ARP, everything that is not IP: PARSE_NOT_IP, the kernel's business. A packet whose IP
 * header is in order but whose inside is not (truncated, a TCP offset below 5, flags that TCP never
 * sends) is PARSE_OK with PACKET_MALFORMED: whether that matters depends on whose packet it is, and
 * the addresses say so. */
#ifndef TCPMIG_LIB_PARSE_H
#define TCPMIG_LIB_PARSE_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include "lib/address.h"

TCPMIG_ABI_BEGIN

enum {
	PACKET_OFFSET_MASK =
	    0x3fff, /* above the largest offset parse can find; bounds l4 for the verifier */
	PARSE_MAX_EXTENSIONS = 4, /* IPv6 extension headers that are walked */
	PARSE_PULL =
	    256, /* bytes that hold all headers of an ordinary packet and a control header */
	ICMP_HEADER_SIZE =
	    8, /* both families; linux/icmp.h drags in libc's headers, which have no BPF target */
};

enum parse_result {
	PARSE_OK,
	PARSE_NOT_IP,
	PARSE_SHORT, /* headers end beyond data_end although the packet goes on: pull (tc) and parse
			again */
};

enum tcp_flags {
	TCP_FIN = 1,
	TCP_SYN = 2,
	TCP_RST = 4,
	TCP_PSH = 8,
	TCP_ACK = 16,
	TCP_URG = 32,
	TCP_FLAGS = 63
};

enum packet_state {
	PACKET_FRAGMENT =
	    1, /* any fragment, the first one too (an IPv6 "atomic fragment" is none, RFC 6946) */
	PACKET_NO_TRANSPORT = 2, /* no transport header in here: a later fragment */
	PACKET_MALFORMED = 4,
	PACKET_MAY_FRAGMENT = 8, /* IPv4 without DF */
};

struct packet {
	struct ip_address source;
	struct ip_address destination;
	__u32 length;  /* of the IP packet; of a GSO packet: all of it */
	__u32 payload; /* TCP: bytes of data; UDP: bytes after the UDP header by its own length
			  field */
	__u32 seq;     /* TCP, host order */
	__u32 ack;
	__be16 source_port; /* TCP, UDP */
	__be16 destination_port;
	__u16 l4;    /* offset of the transport header from the start of the frame */
	__u8 family; /* enum ip_family */
	__u8 protocol;
	__u8 ttl;
	__u8 tos;
	__u8 state;      /* enum packet_state */
	__u8 tcp_flags;  /* enum tcp_flags */
	__u8 tcp_header; /* bytes */
	__u8 icmp_type;
	__u8 pad[6];
} __attribute__((aligned(8)));
TCPMIG_ASSERT_SIZE(struct packet, 72);

#define PARSE_INLINE static inline __attribute__((always_inline))

/* A flag byte that no TCP ever sends: to be dropped before it can open or close anything. */
PARSE_INLINE bool tcp_flags_absurd(__u8 flags)
{
	if (flags & TCP_SYN)
		return flags & (TCP_FIN | TCP_RST);
	return !(flags & TCP_FLAGS);
}

PARSE_INLINE enum parse_result parse_tcp(const void *data, const void *end, __u32 room,
					 struct packet *p)
{
	const struct tcphdr *tcp = data + p->l4;

	if (room < sizeof(*tcp)) {
		p->state |= PACKET_MALFORMED;
		return PARSE_OK;
	}
	if ((const void *)(tcp + 1) > end)
		return PARSE_SHORT;
	p->source_port = tcp->source;
	p->destination_port = tcp->dest;
	p->seq = __builtin_bswap32(tcp->seq);
	p->ack = __builtin_bswap32(tcp->ack_seq);
	p->tcp_flags = ((const __u8 *)tcp)[13] & TCP_FLAGS;
	p->tcp_header = (((const __u8 *)tcp)[12] >> 4) * 4;
	if (p->tcp_header < sizeof(*tcp) || p->tcp_header > room || tcp_flags_absurd(p->tcp_flags))
		p->state |= PACKET_MALFORMED;
	else
		p->payload = room - p->tcp_header;
	return PARSE_OK;
}

PARSE_INLINE enum parse_result parse_udp(const void *data, const void *end, __u32 room,
					 struct packet *p)
{
	const struct udphdr *udp = data + p->l4;
	__u32 length;

	if (room < sizeof(*udp)) {
		p->state |= PACKET_MALFORMED;
		return PARSE_OK;
	}
	if ((const void *)(udp + 1) > end)
		return PARSE_SHORT;
	p->source_port = udp->source;
	p->destination_port = udp->dest;
	length = __builtin_bswap16(udp->len);
	if (length < sizeof(*udp) || (length > room && !(p->state & PACKET_FRAGMENT)))
		p->state |= PACKET_MALFORMED;
	else
		p->payload = length - sizeof(*udp);
	return PARSE_OK;
}

/* The transport header. `room`: bytes from there to the end of the IP packet. */
PARSE_INLINE enum parse_result parse_transport(const void *data, const void *end, __u32 room,
					       struct packet *p)
{
	if (p->state & PACKET_NO_TRANSPORT)
		return PARSE_OK;
	if (p->protocol == IPPROTO_TCP)
		return parse_tcp(data, end, room, p);
	if (p->protocol == IPPROTO_UDP)
		return parse_udp(data, end, room, p);
	if (p->protocol == IPPROTO_ICMP || p->protocol == IPPROTO_ICMPV6) {
		if (room < ICMP_HEADER_SIZE) {
			p->state |= PACKET_MALFORMED;
			return PARSE_OK;
		}
		if (data + p->l4 + ICMP_HEADER_SIZE > end)
			return PARSE_SHORT;
		p->icmp_type = *(const __u8 *)(data + p->l4);
	}
	return PARSE_OK;
}

/* `total`: bytes from the IP header to the end of the frame (padding included); `l3`: a constant.
 */
PARSE_INLINE enum parse_result parse_ipv4(const void *data, const void *end, __u32 l3, __u32 total,
					  struct packet *p)
{
	const struct iphdr *ip = data + l3;
	__u32 header, fragment;

	if ((const void *)(ip + 1) > end)
		return total < sizeof(*ip) ? PARSE_NOT_IP : PARSE_SHORT;
	header = ip->ihl * 4;
	if (ip->version != 4 || header < sizeof(*ip))
		return PARSE_NOT_IP;
	address_from_v4(&p->source, ip->saddr);
	address_from_v4(&p->destination, ip->daddr);
	p->family = FAMILY_IPV4;
	p->protocol = ip->protocol;
	p->ttl = ip->ttl;
	p->tos = ip->tos;
	p->l4 = l3 + header;
	p->length = __builtin_bswap16(ip->tot_len);
	if (p->length == 0) /* a GSO packet above 64 KB ("BIG TCP") */
		p->length = total;
	fragment = __builtin_bswap16(ip->frag_off);
	if (!(fragment & 0x4000))
		p->state |= PACKET_MAY_FRAGMENT;
	if (fragment & 0x3fff)
		p->state |= PACKET_FRAGMENT;
	if (fragment & 0x1fff)
		p->state |= PACKET_NO_TRANSPORT;
	if (p->length > total || p->length < header) {
		p->state |= PACKET_MALFORMED | PACKET_NO_TRANSPORT;
		return PARSE_OK;
	}
	return parse_transport(data, end, p->length - header, p);
}

/* Walks the extension headers. Returns the offset of the transport header from the start of the
 * frame, 0 when data_end is in the way, and sets p->protocol to what follows, or to the extension
 * header it cannot step over. */
PARSE_INLINE __u32 parse_extensions(const void *data, const void *end, __u32 l3, struct packet *p)
{
	__u32 offset = l3 + sizeof(struct ipv6hdr);

	for (int i = 0; i < PARSE_MAX_EXTENSIONS; i++) {
		const struct ipv6_opt_hdr *extension = data + offset;
		__u8 kind = p->protocol;

		if (kind != IPPROTO_HOPOPTS && kind != IPPROTO_DSTOPTS &&
		    kind != IPPROTO_FRAGMENT && kind != IPPROTO_ROUTING)
			break;
		if ((const void *)extension + 8 > end)
			return 0;
		if (kind == IPPROTO_FRAGMENT) {
			__u16 fragment =
			    __builtin_bswap16(*(const __be16 *)((const void *)extension + 2));

			if (fragment & 0xfff9)
				p->state |= PACKET_FRAGMENT;
			if (fragment & 0xfff8)
				p->state |= PACKET_NO_TRANSPORT;
			p->protocol = extension->nexthdr;
			offset += 8;
			continue;
		}
		/* segments left: the transport checksum is for another destination than the
		 * header's */
		if (kind == IPPROTO_ROUTING && ((const __u8 *)extension)[3])
			break;
		p->protocol = extension->nexthdr;
		offset += (extension->hdrlen + 1) * 8;
	}
	return offset;
}

PARSE_INLINE enum parse_result parse_ipv6(const void *data, const void *end, __u32 l3, __u32 total,
					  struct packet *p)
{
	const struct ipv6hdr *ip = data + l3;
	__u32 l4, header;

	if ((const void *)(ip + 1) > end)
		return total < sizeof(*ip) ? PARSE_NOT_IP : PARSE_SHORT;
	if (ip->version != 6)
		return PARSE_NOT_IP;
	address_copy(&p->source, &ip->saddr);
	address_copy(&p->destination, &ip->daddr);
	p->family = FAMILY_IPV6;
	p->protocol = ip->nexthdr;
	p->ttl = ip->hop_limit;
	p->tos = ip->priority << 4 | ip->flow_lbl[0] >> 4;
	p->length = sizeof(*ip) + __builtin_bswap16(ip->payload_len);
	if (p->length == sizeof(*ip)) /* BIG TCP */
		p->length = total;
	l4 = parse_extensions(data, end, l3, p);
	if (l4 == 0 && p->length <= total && total > end - (data + l3))
		return PARSE_SHORT;
	header = l4 - l3;
	p->l4 = l4;
	if (l4 == 0 || p->length > total || p->length < header) {
		p->state |= PACKET_MALFORMED | PACKET_NO_TRANSPORT;
		return PARSE_OK;
	}
	return parse_transport(data, end, p->length - header, p);
}

/* An IP packet that begins `l3` bytes (a constant) after data: 0 on a TUN. `frame`: bytes of the
 * whole frame, data_end or not. */
PARSE_INLINE enum parse_result parse_ip(const void *data, const void *end, __u32 l3, __u32 frame,
					struct packet *p)
{
	const __u8 *first = data + l3;

	__builtin_memset(p, 0, sizeof(*p));
	if ((const void *)(first + 1) > end || frame <= l3)
		return frame > l3 ? PARSE_SHORT : PARSE_NOT_IP;
	if (*first >> 4 == 4)
		return parse_ipv4(data, end, l3, frame - l3, p);
	return parse_ipv6(data, end, l3, frame - l3, p);
}

/* An Ethernet frame. */
PARSE_INLINE enum parse_result parse_ethernet(const void *data, const void *end, __u32 frame,
					      struct packet *p)
{
	const struct ethhdr *ethernet = data;

	__builtin_memset(p, 0, sizeof(*p));
	if ((const void *)(ethernet + 1) > end)
		return frame < ETH_HLEN ? PARSE_NOT_IP : PARSE_SHORT;
	if (ethernet->h_proto == __builtin_bswap16(ETH_P_IP))
		return parse_ipv4(data, end, ETH_HLEN, frame - ETH_HLEN, p);
	if (ethernet->h_proto == __builtin_bswap16(ETH_P_IPV6))
		return parse_ipv6(data, end, ETH_HLEN, frame - ETH_HLEN, p);
	return PARSE_NOT_IP;
}

/* What is still PARSE_SHORT once the packet was pulled together: headers longer than PARSE_PULL, so
 * IPv6 extension headers that nobody sends in good faith. With its addresses known it is a packet
 * whose inside is not in order; the rules for addresses must hold for it, too. */
PARSE_INLINE enum parse_result parse_given_up(enum parse_result result, struct packet *p)
{
	if (result != PARSE_SHORT)
		return result;
	if (!p->family)
		return PARSE_NOT_IP;
	p->state |= PACKET_MALFORMED | PACKET_NO_TRANSPORT;
	return PARSE_OK;
}

TCPMIG_ABI_END
#endif
