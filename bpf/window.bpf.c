// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Keeps small what accepted connections acknowledge while nobody reads: the client never sends acknowledged bytes again, so they
 * must all travel in the snapshot, and the new owner's first window is about 64 KB. By default 127,500 bytes are acknowledged.
 *
 * It takes both: a first window of 10 segments, asked for while the SYN is answered, and a small buffer from the first moment of the
 * connection. Later is too late (after accept() 114,000 bytes may be there), and SO_RCVBUF on the listener would shrink
 * the window scale, which is fixed on the SYN for the life of the connection. With both: 29,984 bytes, window scale kept. */
#include <linux/bpf.h>

#include <asm-generic/socket.h>

#include <bpf/bpf_helpers.h>

enum { FIRST_WINDOW_SEGMENTS = 10, RECEIVE_BUFFER = 16384 /* the kernel doubles it */ };

SEC("sockops")
int keep_window_small(struct bpf_sock_ops *ops)
{
	int buffer = RECEIVE_BUFFER;

	if (ops->op == BPF_SOCK_OPS_RWND_INIT)
		ops->reply = FIRST_WINDOW_SEGMENTS;
	else if (ops->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		bpf_setsockopt(ops, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof(buffer));
	return 1;
}

char program_license[] SEC("license") = "Dual MIT/GPL";
