// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* What the doctor tries of the kernel resume: whatever comes from the device is given to its listener with bpf_sk_assign_tcp_reqsk(), with
 * the attributes that the doctor asks for. IPv4 without options, from a TUN; one segment at a time. */
#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>

#include <bpf/bpf_helpers.h>

#include "shared/kernel_types.h"

extern int bpf_sk_assign_tcp_reqsk(struct __sk_buff *skb, struct sock *sk,
				   struct bpf_tcp_req_attrs *attrs, int attrs__sz) __weak __ksym;

enum { NO_LISTENER = 1 }; /* `answer`: not the kernel's -errno */

/* struct bpf_tcp_req_attrs, as far as the doctor asks for it */
__u16 mss = 0;
__u8 wscale_ok = 0, sack_ok = 0, tstamp_ok = 0;
int answer = 0;

SEC("tc")
int trial_resume(struct __sk_buff *skb)
{
	struct bpf_tcp_req_attrs attrs = {
	    .mss = mss, .wscale_ok = wscale_ok, .sack_ok = sack_ok, .tstamp_ok = tstamp_ok};
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *listener;
	struct tcp_sock *tcp;
	struct iphdr ip;
	struct tcphdr header;

	answer = NO_LISTENER;
	if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)) || ip.version != 4 ||
	    ip.protocol != IPPROTO_TCP ||
	    bpf_skb_load_bytes(skb, sizeof(ip), &header, sizeof(header)))
		return TC_ACT_SHOT;
	tuple.ipv4.saddr = ip.saddr;
	tuple.ipv4.daddr = ip.daddr;
	tuple.ipv4.sport = header.source;
	tuple.ipv4.dport = header.dest;
	listener = bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	if (!listener)
		return TC_ACT_SHOT;
	tcp = bpf_skc_to_tcp_sock(listener);
	if (tcp)
		answer = bpf_sk_assign_tcp_reqsk(skb, (struct sock *)tcp, &attrs, sizeof(attrs));
	bpf_sk_release(listener);
	return answer == 0 ? TC_ACT_OK : TC_ACT_SHOT;
}

char _license[] SEC("license") = "Dual MIT/GPL";
