// SPDX-License-Identifier: (MIT OR GPL-2.0-only)
/* The switch at XDP: one program for interfaces towards clients, one for those towards nodes,
 * and two that user space runs: to sweep the table, and to end what is dead. */
#include "lib/frame_xdp.h"
#include "switch_core.h"
#include "switch_core_forget.h"
#include "switch_core_reap.h"

SEC("xdp") int switch_xdp_clients(frame_context *ctx)
{
	return switch_clients(ctx);
}

SEC("xdp") int switch_xdp_nodes(frame_context *ctx)
{
	return switch_nodes(ctx);
}

SEC("syscall") int switch_xdp_forget(struct forget_request *request)
{
	return forget(request);
}

SEC("syscall") int switch_xdp_reap(struct reap_request *request)
{
	return reap(request);
}

char _license[] SEC("license") = "Dual MIT/GPL";
