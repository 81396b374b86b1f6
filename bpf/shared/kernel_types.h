/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* The few kernel structures that our BPF programs look into, reduced to the fields they read. preserve_access_index makes the loader
 * put in the offsets of the running kernel (CO-RE), so neither order nor completeness matters here: this file stands in
 * for a vmlinux.h of 3 MB. A field that not every kernel has is asked for with bpf_core_field_exists() first. For BPF only. */
#ifndef TCPMIG_SHARED_KERNEL_TYPES_H
#define TCPMIG_SHARED_KERNEL_TYPES_H

#ifdef __cplusplus
#error "kernel_types.h is for BPF programs only"
#endif

#include <linux/in6.h>
#include <linux/types.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* The fields of struct net and below it are read from outside of our copy of a socket: by BPF_CORE_READ. */
struct netns_ipv4 {
	int sysctl_tcp_keepalive_time, sysctl_tcp_keepalive_intvl; /* jiffies */
	__u8 sysctl_tcp_keepalive_probes;
	__u8 sysctl_ip_default_ttl;
};

struct net {
	struct netns_ipv4 ipv4;
};

typedef struct {
	struct net *net;
} possible_net_t;

/* The numbers differ between kernels: bpf_core_enum_value(). */
enum sock_flags { SOCK_KEEPOPEN, SOCK_LINGER, SOCK_ZEROCOPY };

struct sock_common {
	unsigned long skc_flags; /* bits: enum sock_flags */
	possible_net_t skc_net;
	unsigned short skc_family;
	volatile unsigned char skc_state; /* TCP_ESTABLISHED .. */
	__be32 skc_daddr, skc_rcv_saddr;                    /* peer, local */
	struct in6_addr skc_v6_daddr, skc_v6_rcv_saddr; /* CONFIG_IPV6 */
	__be16 skc_dport;                                   /* the peer's port */
	__u16 skc_num;                                      /* the local port */
};

struct sock {
	struct sock_common __sk_common;
	__u32 sk_priority, sk_mark;
	int sk_sndbuf, sk_rcvbuf;
	int sk_peek_off;
	unsigned long sk_lingertime; /* jiffies */
	__u8 sk_userlocks : 4;       /* SOCK_SNDBUF_LOCK, SOCK_RCVBUF_LOCK */
};

struct ipv6_pinfo {
	__s16 hop_limit; /* -1: the route's; a bit-field before Linux 6.8 */
	__u8 tclass;
};

struct inet_sock {
	struct sock sk;
	struct ipv6_pinfo *pinet6; /* CONFIG_IPV6 */
	__s16 uc_ttl;              /* -1: the namespace's */
	__u8 tos;
};

struct tcp_ulp_ops;
struct tcp_congestion_ops;

struct inet_connection_sock {
	struct inet_sock icsk_inet;
	const struct tcp_ulp_ops *icsk_ulp_ops; /* kTLS and friends */
	const struct tcp_congestion_ops *icsk_ca_ops;
	__u32 icsk_user_timeout; /* milliseconds */
};

/* The bit-fields are read with BPF_CORE_READ_BITFIELD: their place differs between kernels. */
struct tcp_options_received {
	__u32 ts_recent; /* the peer's latest TSval that was in order */
	__u16 tstamp_ok : 1, wscale_ok : 1, sack_ok : 3, snd_wscale : 4, rcv_wscale : 4;
	__u16 mss_clamp; /* the peer's MSS */
};

struct rb_node;
struct rb_root {
	struct rb_node *rb_node;
};

struct tcp_md5sig_info;
struct tcp_ao_info;

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u32 rcv_nxt, copied_seq, rcv_wup, rcv_wnd;
	__u32 snd_una, snd_nxt, write_seq, snd_wnd, snd_wl1, max_window;
	__u32 tsoffset;
	__u32 srtt_us; /* smoothed round-trip time in microseconds, times 8 */
	__u32 packets_out;
	__u32 snd_cwnd, snd_ssthresh; /* segments */
	struct tcp_options_received rx_opt;
	__u8 nonagle : 4; /* TCP_NAGLE_OFF, TCP_NAGLE_CORK */
	unsigned int keepalive_time, keepalive_intvl; /* jiffies; 0: the namespace's */
	__u8 keepalive_probes;
	__u32 notsent_lowat; /* 0: the namespace's */
	__u8 repair : 1;
	__u8 tcp_usec_ts : 1; /* Linux 6.7 */
	__u8 ecn_flags;
	__u16 urg_data;
	struct rb_root out_of_order_queue;
	_Bool is_mptcp;                             /* CONFIG_MPTCP */
	const struct tcp_md5sig_info *md5sig_info; /* CONFIG_TCP_MD5SIG */
	struct tcp_ao_info *ao_info;                /* Linux 6.7, CONFIG_TCP_AO */
};

#pragma clang attribute pop

/* The argument of the kfunc bpf_sk_assign_tcp_reqsk (Linux 6.9): passed by address and size, so its layout is the kernel's, byte by byte. */
struct bpf_tcp_req_attrs {
	__u32 rcv_tsval; /* ts_recent of the child */
	__u32 rcv_tsecr; /* the TSval that the child sends now */
	__u16 mss;
	__u8 rcv_wscale;
	__u8 snd_wscale;
	__u8 ecn_ok;
	__u8 wscale_ok;
	__u8 sack_ok;
	__u8 tstamp_ok;
	__u8 usec_ts_ok;
	__u8 reserved[3];
};
_Static_assert(sizeof(struct bpf_tcp_req_attrs) == 20, "struct bpf_tcp_req_attrs");

#endif
