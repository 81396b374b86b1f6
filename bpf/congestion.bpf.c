// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Gives a socket the congestion window, the slow start threshold and ECN (RFC 3168) of the connection that it goes on with: a congestion control
 * (RFC 5681) that is chosen by setsockopt TCP_CONGESTION for a moment. Its init() sets them from the socket's entry in `windows`; the one that is chosen
 * next keeps them. No other way in has the kernel: TCP_REPAIR does not know them, TCP_BPF_IW sets the window alone, and asks for a cgroup.
 *
 * What a congestion control must have besides (net/ipv4/tcp_cong.c, tcp_validate_congestion_control) changes nothing. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "shared/kernel_types.h"

/* by the name and the members of the kernel's own, in any order (libbpf, bpf_map__init_kern_struct_ops) */
struct tcp_congestion_ops {
	__u32 (*ssthresh)(struct sock *sk);
	void (*cong_avoid)(struct sock *sk, __u32 ack, __u32 acked);
	__u32 (*undo_cwnd)(struct sock *sk);
	void (*init)(struct sock *sk);
	char name[16];
};

struct congestion_window {
	__u32 snd_cwnd, snd_ssthresh; /* segments; 0: leave it */
	__u32 ecn;                    /* 1: was negotiated; 0: leave it */
};

/* include/net/tcp.h: TCP_ECN_OK, since Linux 6.18 TCP_ECN_MODE_RFC3168 */
#define ECN_NEGOTIATED 1

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct congestion_window);
} windows SEC(".maps");

/* The kernel's arguments come as an array of 64-bit words, a socket as a tcp_sock (net/ipv4/bpf_tcp_ca.c, bpf_tcp_ca_is_valid_access). */
typedef __u64 words;
#define SOCKET(arguments) ((struct tcp_sock *)(arguments)[0])

SEC("struct_ops/restore_window")
void restore_window(words *arguments)
{
	struct tcp_sock *tp = SOCKET(arguments);
	struct congestion_window *window = bpf_sk_storage_get(&windows, tp, 0, 0);

	if (!window)
		return;
	if (window->snd_cwnd)
		tp->snd_cwnd = window->snd_cwnd;
	if (window->snd_ssthresh)
		tp->snd_ssthresh = window->snd_ssthresh;
	if (window->ecn)
		tp->ecn_flags |= ECN_NEGOTIATED;
}

SEC("struct_ops/keep_threshold")
__u32 keep_threshold(words *arguments)
{
	return SOCKET(arguments)->snd_ssthresh;
}

SEC("struct_ops/keep_avoiding")
void keep_avoiding(words *arguments)
{
	(void)arguments;
}

SEC("struct_ops/keep_window")
__u32 keep_window(words *arguments)
{
	return SOCKET(arguments)->snd_cwnd;
}

SEC(".struct_ops")
struct tcp_congestion_ops restore = {
    .ssthresh = (void *)keep_threshold,
    .cong_avoid = (void *)keep_avoiding,
    .undo_cwnd = (void *)keep_window,
    .init = (void *)restore_window,
    .name =
	"tcpmig_00000000", /* the loader puts in digits of its own: the kernel wants each name once */
};

char program_license[] SEC("license") = "Dual MIT/GPL";
