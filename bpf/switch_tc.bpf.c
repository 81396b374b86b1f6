// SPDX-License-Identifier: (MIT OR GPL-2.0-only)
/* The switch at tc: one program for interfaces towards clients, one for those towards nodes,
 * and one that user space runs to sweep the table. */
#include "lib/frame_tc.h"
#include "switch_core.h"
#include "switch_core_forget.h"

SEC("tc") int switch_tc_clients(frame_context *ctx)
{
	return switch_clients(ctx);
}

SEC("tc") int switch_tc_nodes(frame_context *ctx)
{
	return switch_nodes(ctx);
}

SEC("syscall") int switch_tc_forget(struct forget_request *request)
{
	return forget(request);
}

char _license[] SEC("license") = "Dual MIT/GPL";
