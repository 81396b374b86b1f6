// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* The whole state of a TCP connection by one system call: getsockopt(fd, DUMP_LEVEL, DUMP_OPTNAME) on a socket that was
 * made in our cgroup is answered here, under the socket's lock, from struct tcp_sock. It takes the place of some two
 * dozen system calls of the TCP_REPAIR recipe and knows what that one does not (ts_recent, what cannot be carried).
 *
 * bpf_skc_to_tcp_sock() is not allowed in this type of program, bpf_rdonly_cast() (Linux 6.2) is. Before that the whole struct is copied, and
 * the copy is read. It is an object of its own, so that a kernel that refuses it costs only this. */
#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/socket.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "shared/kernel_types.h"
#include "shared/node_maps.h"

extern void *bpf_rdonly_cast(const void *object, __u32 btf_id) __ksym __weak;

/* (congestion.bpf.c has one of its own, with what it fills in) */
struct tcp_congestion_ops {
	char name[16];
} __attribute__((preserve_access_index));

/* Set by the loader where the kernel has no bpf_rdonly_cast(). */
const volatile __u8 copies;

enum { KERNEL_TCP_NAGLE_OFF = 1, KERNEL_TCP_NAGLE_CORK = 2 }; /* include/net/tcp.h */
enum { KERNEL_AF_INET6 = 10 }; /* include/linux/socket.h, not in the user API */
enum { NSEC_PER_USEC = 1000, NSEC_PER_MSEC = 1000000 };
/* include/net/tcp.h: bits of tcp_sock.ecn_flags */
enum { KERNEL_TCP_ECN_OK = 1, KERNEL_TCP_ECN_MODE_ACCECN = 16 };

/* Memory of the socket's own, under whose lock we are: another task may take a per-CPU array from us at any moment. struct tcp_sock has
 * some 2,300 bytes. */
struct copy {
	__u8 bytes[4096];
};
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct copy);
} copied SEC(".maps");

static __always_inline int uses_usec_timestamps(struct tcp_sock *tp)
{
	if (!bpf_core_field_exists(tp->tcp_usec_ts))
		return 0;
	return BPF_CORE_READ_BITFIELD(tp, tcp_usec_ts);
}

static __always_inline void map_ipv4(__be32 address, struct ip_address *out)
{
	__builtin_memset(out->bytes, 0, 10);
	out->bytes[10] = out->bytes[11] = 0xff;
	__builtin_memcpy(out->bytes + 12, &address, sizeof(address));
}

static __always_inline void copy_ipv6(const struct in6_addr *address, struct ip_address *out)
{
	for (int i = 0; i < 4; i++)
		((__be32 *)out->bytes)[i] = address->in6_u.u6_addr32[i];
}

/* An AF_INET6 socket that talks IPv4 holds v4-mapped addresses: the form we want. */
static __always_inline void dump_endpoints(struct sock_common *sk, struct tcp_dump *out)
{
	out->local_port = bpf_htons(sk->skc_num);
	out->peer_port = sk->skc_dport;
	out->ipv6_socket = sk->skc_family == KERNEL_AF_INET6;
	if (sk->skc_family == KERNEL_AF_INET6 && bpf_core_field_exists(sk->skc_v6_daddr)) {
		copy_ipv6(&sk->skc_v6_rcv_saddr, &out->local);
		copy_ipv6(&sk->skc_v6_daddr, &out->peer);
	} else {
		map_ipv4(sk->skc_rcv_saddr, &out->local);
		map_ipv4(sk->skc_daddr, &out->peer);
	}
}

static __always_inline void dump_sequence(struct tcp_sock *tp, struct tcp_dump *out)
{
	out->rcv_nxt = tp->rcv_nxt;
	out->copied_seq = tp->copied_seq;
	out->snd_una = tp->snd_una;
	out->snd_nxt = tp->snd_nxt;
	out->write_seq = tp->write_seq;
	out->packets_out = tp->packets_out;
	out->snd_cwnd = tp->snd_cwnd;
	out->snd_ssthresh = tp->snd_ssthresh;
}

static __always_inline void dump_window(struct tcp_sock *tp, struct tcp_dump *out)
{
	out->rcv_wup = tp->rcv_wup;
	out->rcv_wnd = tp->rcv_wnd;
	out->snd_wnd = tp->snd_wnd;
	out->snd_wl1 = tp->snd_wl1;
	out->max_window = tp->max_window;
}

/* The clock of the timestamps option: CLOCK_MONOTONIC in ms or us plus an offset of this connection (net/ipv4/tcp.h, tcp_clock_ts). */
static __always_inline void dump_timestamps(struct tcp_sock *tp, struct tcp_dump *out)
{
	__u64 unit = uses_usec_timestamps(tp) ? NSEC_PER_USEC : NSEC_PER_MSEC;

	out->ts_recent = tp->rx_opt.ts_recent;
	out->tsval_now = (__u32)(out->now_ns / unit) + tp->tsoffset;
}

static __always_inline void dump_options(struct tcp_sock *tp, struct tcp_dump *out)
{
	struct tcp_options_received *options = &tp->rx_opt;
	__u8 mask = 0;

	if (BPF_CORE_READ_BITFIELD(options, wscale_ok)) {
		mask |= WIRE_OPT_WSCALE;
		out->snd_wscale = BPF_CORE_READ_BITFIELD(options, snd_wscale);
		out->rcv_wscale = BPF_CORE_READ_BITFIELD(options, rcv_wscale);
	}
	if (BPF_CORE_READ_BITFIELD(options, sack_ok))
		mask |= WIRE_OPT_SACK;
	if (BPF_CORE_READ_BITFIELD(options, tstamp_ok)) {
		mask |= WIRE_OPT_TIMESTAMPS;
		if (uses_usec_timestamps(tp))
			mask |= WIRE_OPT_USEC_TS;
		dump_timestamps(tp, out);
	}
	if (tp->ecn_flags & KERNEL_TCP_ECN_OK)
		mask |= WIRE_OPT_ECN;
	out->options = mask;
	out->mss_clamp = options->mss_clamp;
}

static __always_inline __u8 refusals(struct tcp_sock *tp)
{
	__u8 refused = 0;

	if (tp->out_of_order_queue.rb_node)
		refused |= DUMP_OUT_OF_ORDER;
	if (tp->urg_data)
		refused |= DUMP_URGENT;
	if (tp->inet_conn.icsk_ulp_ops)
		refused |= DUMP_ULP;
	if (bpf_core_field_exists(tp->is_mptcp) && tp->is_mptcp)
		refused |= DUMP_MPTCP;
	if (bpf_core_field_exists(tp->md5sig_info) && tp->md5sig_info)
		refused |= DUMP_MD5_AO;
	if (bpf_core_field_exists(tp->ao_info) && tp->ao_info)
		refused |= DUMP_MD5_AO;
	if (tp->ecn_flags & KERNEL_TCP_ECN_MODE_ACCECN)
		refused |= DUMP_ACCECN;
	return refused;
}

static __always_inline void dump(struct tcp_sock *tp, struct tcp_dump *out)
{
	__builtin_memset(out, 0, sizeof(*out));
	out->now_ns = bpf_ktime_get_ns();
	dump_endpoints(&tp->inet_conn.icsk_inet.sk.__sk_common, out);
	dump_sequence(tp, out);
	dump_window(tp, out);
	dump_options(tp, out);
	out->srtt_us = tp->srtt_us >> 3;
	out->state = tp->inet_conn.icsk_inet.sk.__sk_common.skc_state;
	out->repair = BPF_CORE_READ_BITFIELD(tp, repair);
	out->refused = refusals(tp);
}

static __always_inline __u32 flag(__u64 flags, __u64 number, __u32 setting)
{
	return flags >> number & 1 ? setting : 0;
}

static __always_inline void dump_flags(struct tcp_sock *tp, struct tcp_settings *out)
{
	struct sock *sk = &tp->inet_conn.icsk_inet.sk;
	__u64 flags = sk->__sk_common.skc_flags;
	__u8 nonagle = BPF_CORE_READ_BITFIELD(tp, nonagle);
	__u8 fixed = BPF_CORE_READ_BITFIELD(sk, sk_userlocks);

	out->flags =
	    (nonagle & KERNEL_TCP_NAGLE_OFF ? DUMP_NODELAY : 0) |
	    (nonagle & KERNEL_TCP_NAGLE_CORK ? DUMP_CORK : 0) |
	    flag(flags, bpf_core_enum_value(enum sock_flags, SOCK_KEEPOPEN), DUMP_KEEPALIVE) |
	    flag(flags, bpf_core_enum_value(enum sock_flags, SOCK_LINGER), DUMP_LINGER) |
	    flag(flags, bpf_core_enum_value(enum sock_flags, SOCK_ZEROCOPY), DUMP_ZEROCOPY) |
	    (fixed & SOCK_SNDBUF_LOCK ? DUMP_SEND_BUFFER_FIXED : 0) |
	    (fixed & SOCK_RCVBUF_LOCK ? DUMP_RECEIVE_BUFFER_FIXED : 0);
}

/* What IP_TTL and IPV6_UNICAST_HOPS say (net/ipv4/ip_sockglue.c, net/ipv6/ipv6_sockglue.c). */
static __always_inline void dump_ip(struct inet_sock *inet, struct net *net, int ipv6,
				    struct tcp_settings *out)
{
	struct ipv6_pinfo *pinet6;

	if (ipv6 && bpf_core_field_exists(inet->pinet6)) {
		pinet6 = inet->pinet6;
		out->tos = BPF_CORE_READ(pinet6, tclass);
		out->hops = BPF_CORE_READ_BITFIELD_PROBED(pinet6, hop_limit);
		return;
	}
	out->tos = inet->tos;
	out->hops = inet->uc_ttl;
	if (out->hops < 0)
		out->hops = BPF_CORE_READ(net, ipv4.sysctl_ip_default_ttl);
}

static __always_inline int talks_ipv6(const struct tcp_dump *state)
{
	return ((const __u64 *)state->peer.bytes)[0] != 0 ||
	       ((const __u32 *)state->peer.bytes)[2] != bpf_htonl(0xffff);
}

/* After dump(). */
static __always_inline void dump_settings(struct tcp_sock *tp, struct tcp_whole_dump *whole)
{
	struct inet_sock *inet = &tp->inet_conn.icsk_inet;
	struct net *net = inet->sk.__sk_common.skc_net.net;
	struct tcp_settings *out = &whole->settings;
	const struct tcp_congestion_ops *congestion = tp->inet_conn.icsk_ca_ops;

	__builtin_memset(out, 0, sizeof(*out));
	dump_flags(tp, out);
	dump_ip(inet, net, talks_ipv6(&whole->state), out);
	out->linger = inet->sk.sk_lingertime;
	out->keep_idle = tp->keepalive_time ?: BPF_CORE_READ(net, ipv4.sysctl_tcp_keepalive_time);
	out->keep_interval =
	    tp->keepalive_intvl ?: BPF_CORE_READ(net, ipv4.sysctl_tcp_keepalive_intvl);
	out->keep_count =
	    tp->keepalive_probes ?: BPF_CORE_READ(net, ipv4.sysctl_tcp_keepalive_probes);
	out->user_timeout = tp->inet_conn.icsk_user_timeout;
	out->notsent_lowat = tp->notsent_lowat;
	out->priority = inet->sk.sk_priority;
	out->mark = inet->sk.sk_mark;
	out->send_buffer = inet->sk.sk_sndbuf;
	out->receive_buffer = inet->sk.sk_rcvbuf;
	out->peek_offset = inet->sk.sk_peek_off;
	bpf_core_read(out->congestion, sizeof(out->congestion), &congestion->name);
}

/* Returns 0 where there is no memory. */
static __always_inline struct tcp_sock *look_at(struct bpf_sock *sk)
{
	struct copy *copy;

	if (!copies)
		return bpf_rdonly_cast(sk, bpf_core_type_id_kernel(struct tcp_sock));
	copy = bpf_sk_storage_get(&copied, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!copy || bpf_probe_read_kernel(copy->bytes, bpf_core_type_size(struct tcp_sock), sk))
		return 0;
	return (struct tcp_sock *)copy->bytes;
}

/* Everything that is not ours goes through as it is. One thing must be done for that: of an answer longer than a
 * page the program sees only the first page, and the kernel (before Linux 6.5) fails the call unless optlen says "unused". */
static __always_inline int leave_alone(struct bpf_sockopt *ctx)
{
	if (ctx->optlen > 4096)
		ctx->optlen = 0;
	return 1;
}

SEC("cgroup/getsockopt")
int dump_socket(struct bpf_sockopt *ctx)
{
	struct tcp_dump *out = ctx->optval;
	struct tcp_whole_dump *whole = ctx->optval;
	struct tcp_sock *tp;

	if (ctx->level != DUMP_LEVEL ||
	    (ctx->optname != DUMP_OPTNAME && ctx->optname != DUMP_WHOLE_OPTNAME))
		return leave_alone(ctx);
	/* An MPTCP socket says IPPROTO_MPTCP and is no tcp_sock: it keeps the kernel's ENOPROTOOPT. */
	if (!ctx->sk || ctx->sk->protocol != IPPROTO_TCP || (void *)(out + 1) > ctx->optval_end)
		return 1;
	if (ctx->optname == DUMP_WHOLE_OPTNAME && (void *)(whole + 1) > ctx->optval_end)
		return 1;
	tp = look_at(ctx->sk);
	if (!tp)
		return 1;
	dump(tp, out);
	ctx->optlen = sizeof(*out);
	if (ctx->optname == DUMP_WHOLE_OPTNAME && (void *)(whole + 1) <= ctx->optval_end) {
		dump_settings(tp, whole);
		ctx->optlen = sizeof(*whole);
	}
	if (copies)
		bpf_sk_storage_delete(&copied, ctx->sk);
	barrier(); /* one 64-bit store to optlen and retval would be refused */
	ctx->retval = 0;
	return 1;
}

char program_license[] SEC("license") = "Dual MIT/GPL";
