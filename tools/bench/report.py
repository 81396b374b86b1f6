#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""report.py RESULTS OUT: tables (OUT/benchmarks.md) and plots (OUT/benchmarks/*.svg) of what tcpmig-bench has measured.

Only what is in RESULTS/*.json is shown. What is explained by hand stands in notes.md beside this file."""
import json
import pathlib
import sys

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({"svg.hashsalt": "tcpmig", "svg.fonttype": "none", "font.size": 9,
                            "axes.spines.top": False, "axes.spines.right": False, "figure.constrained_layout.use": True})
from matplotlib import pyplot  # noqa: E402  (the backend comes first)

COLOURS = {"direct": "#555555", "tcpmig": "#0b6e4f", "haproxy": "#8fb8de", "haproxy-keep": "#2a6fb0",
           "nginx": "#f2b880", "nginx-keep": "#d1701e"}
NAMES = {"direct": "direct", "tcpmig": "tcpmig", "haproxy": "HAProxy", "haproxy-keep": "HAProxy, server kept alive",
         "nginx": "nginx", "nginx-keep": "nginx, server kept alive"}


def number(value, digits=None):
    if value is None:
        return "-"
    if digits is None:
        digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def spread(entry, digits=None):
    """The median of the rounds, and in brackets the lowest and the highest."""
    if not entry:
        return "-"
    return f"{number(entry['median'], digits)} ({number(entry['low'], digits)}..{number(entry['high'], digits)})"


def middle(entry):
    return entry["median"] if entry else None


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]) + "\n"


class Report:
    def __init__(self, results, out):
        self.results, self.out, self.text, self.goals = results, out, [], []
        self.plots = out / "benchmarks"

    def add(self, *parts):
        self.text.extend(part if part.endswith("\n") else part + "\n" for part in parts)

    def goal(self, what, goal, value, met):
        self.goals.append((what, goal, value, "yes" if met else "**no**"))

    def save(self, figure, name, alt):
        self.plots.mkdir(parents=True, exist_ok=True)
        figure.savefig(self.plots / f"{name}.svg", metadata={"Date": None})
        pyplot.close(figure)
        self.add(f"![{alt}](benchmarks/{name}.svg)\n")


def bars(axes, labels, series):
    width = 0.8 / len(series)
    for i, (name, values) in enumerate(series.items()):
        places = [x + (i - (len(series) - 1) / 2) * width for x in range(len(labels))]
        axes.bar(places, values, width, label=NAMES.get(name, name), color=COLOURS.get(name))
    axes.set_xticks(range(len(labels)), labels)
    axes.set_ylim(top=1.3 * max(max(values) for values in series.values()))  # room for the legend


def latency(report, result):
    places = result["placements"]
    report.add("Connect to the last byte of a reply of 1 KB, one request at a time, a new connection for each; nginx is the server. "
               "Microseconds; the median of the rounds (lowest..highest).\n")
    for name, place in places.items():
        sides = place["sides"]
        report.add(f"**Placement: {name}** ({place['what']})\n",
                   table(["", "p50", "added to direct, p50", "p99", "p99.9"],
                         [[NAMES[s], spread(v["p50_us"], 0), spread(v["added_p50_us"], 0) if s != "direct" else "", spread(v["p99_us"], 0),
                           number(v["p999_us"], 0)] for s, v in sides.items()]))
    free = places["free"]["sides"]["tcpmig"]
    part, added = free["addition_to"]["haproxy"], free["added_p50_us"]
    report.goal("added latency, 1 KB, p50, against what HAProxy adds", "at most 0.4 x", spread(part, 2) + " x", middle(part) <= 0.4)
    report.goal("the same in microseconds", "at most 60", spread(added, 0), middle(added) <= 60)
    figure, axes = pyplot.subplots(figsize=(7, 3))
    bars(axes, list(places), {s: [p["sides"][s]["p50_us"]["median"] for p in places.values()] for s in COLOURS})
    axes.set_ylabel("p50, microseconds")
    axes.legend(fontsize=7, ncols=2)
    report.save(figure, "latency", "p50 of one request of 1 KB, by side and placement")
    phases(report, places)


def phases(report, places):
    runs = [(name, place["phases"]) for name, place in places.items()]
    runs += [(name + ", a server that spins in accept()", place["phases_spinning"]) for name, place in places.items() if "phases_spinning" in place]
    names = {"frozen": "frozen: locked and dumped", "sent": "COMMIT sent", "committed": "the switch has changed the owner",
             "at_server": "COMMIT at the server's program", "resumed": "the server's kernel has the connection",
             "accepted": "the server's accept() has returned", "confirmed": "confirmed to the dispatcher"}
    report.add("One transfer of a request of 400 bytes, microseconds since the dispatcher had the whole head, p50 (p99). The stamps are of one clock, and of "
               "the product itself; the server is a plain one that looks at the clock after `accept()`.\n",
               table(["moment"] + [name for name, _ in runs],
                     [[text] + [f"{number(run[key]['p50_us'])} ({number(run[key]['p99_us'], 0)})" for _, run in runs] for key, text in names.items()]))
    for place, most in (("two cores", 45), ("one core", 20)):
        if place in places:
            value = places[place]["phases"]["accepted"]["p50_us"]
            report.goal(f"freeze begun to accept() returned, 400 bytes, p50, {place}", f"at most {most} us", number(value) + " us", value <= most)


def throughput(report, result):
    report.add(f"{result['in_flight']} connections in flight, closed loop; everything shares the cores of one machine. Requests a second, of direct, and "
               "microseconds of a processor that the dispatcher (or the proxy) spends on a request, by the scheduler's account.\n")
    loads = {load["load"]: load["sides"] for load in result["loads"]}
    for name, sides in loads.items():
        report.add(f"**{name}{', a new connection for each' if 'kept' not in name else ' (wrk)'}**\n", table(["", "requests a second", "of direct", "CPU us a request", "tcpmig's dispatcher against it", "failed"],
                                          [[NAMES[s], spread(v["per_second"], 0), spread(v["to_direct"], 2), spread(v.get("middle_cpu_us"), 2),
                                            spread(v.get("tcpmig_cpu_to_this"), 3) if s != "direct" else "", number(v["errors"], 0)] for s, v in sides.items()]))
    agents = [f"{name}: {spread(sides['tcpmig']['agent_cpu_us'], 1)}" for name, sides in loads.items()]
    report.add("tcpmig's agent on the server takes, in microseconds a request: " + "; ".join(agents) + ".\n")
    for load, least in (("1 MB", 0.95), ("1 KB", 0.75)):
        entry = loads[load]["tcpmig"]["to_direct"]
        report.goal(f"{load} replies, 8 in flight, against direct", f"at least {least} x", spread(entry, 2) + " x", middle(entry) >= least)
    for load, most in (("1 KB", 0.5), ("1 MB", 0.02)):
        entry = loads[load]["haproxy"]["tcpmig_cpu_to_this"]
        report.goal(f"dispatcher CPU a request, {load}, against HAProxy's", f"at most {most} x", spread(entry, 3) + " x", middle(entry) <= most)
    figure, axes = pyplot.subplots(figsize=(7, 3))
    bars(axes, list(loads), {s: [sides[s]["to_direct"]["median"] for sides in loads.values()] for s in COLOURS})
    axes.set_ylabel("requests a second, of direct")
    axes.legend(fontsize=7, ncols=3)
    report.save(figure, "throughput", "throughput against direct")


def paper(report, result):
    sizes = result["sizes"]
    sides = list(sizes[0]["sides"])
    report.add("mini_httpd, which starts a process for each request, and one client that fetches one file after the other. Microseconds that each way adds to the "
               "direct one. (The paper of 2006: about 1,000, whatever the size.)\n",
               table(["reply", "direct takes"] + [NAMES[s] for s in sides[1:]],
                     [[size["size"], spread(size["sides"]["direct"]["us"], 0)] + [spread(size["sides"][s]["added_us"], 0) for s in sides[1:]] for size in sizes]))
    figure, axes = pyplot.subplots(figsize=(7, 3.2))
    for side in sides[1:]:
        entries = [size["sides"][side]["added_us"] for size in sizes]
        at = [size["bytes"] for size in sizes]
        axes.plot(at, [e["median"] for e in entries], marker="o", label=NAMES[side], color=COLOURS[side])
        axes.fill_between(at, [e["low"] for e in entries], [e["high"] for e in entries], alpha=0.15, color=COLOURS[side])
    axes.axhline(1000, color="#aaaaaa", linestyle=":", label="the paper of 2006")
    axes.set_xscale("log")
    axes.set_yscale("symlog", linthresh=100)
    axes.set_xlabel("reply, bytes")
    axes.set_ylabel("added to direct, microseconds")
    axes.legend(fontsize=7)
    report.save(figure, "paper", "time added over direct against the size of the reply")


def switch(report, result):
    report.add("Nanoseconds for a packet by BPF_PROG_TEST_RUN, each repeat a fresh packet (a driver program writes the headers and tail-calls; its own cost is a line, and is in "
               "the other figures unless they say net). IPv4, 54 bytes. *Forwarder*: parse, `bpf_fib_lookup`, MAC addresses, TTL, redirect. *Hash and DNAT*: "
               "the same, a lookup in a hash of 40-byte keys, a new destination. *To it*: against hash and DNAT of the same pattern, in turns.\n")
    for backend in ("xdp", "tc"):
        sizes = {entry["flows"]: {(line["name"], line["pattern"]): line for line in entry["lines"]} for entry in result[backend]["sizes"]}
        rows = []
        for name, pattern in next(iter(sizes.values())):
            cells = []
            for lines in sizes.values():
                line = lines[name, pattern]
                to = f", {number(middle(line['to_reference']), 2)} x" if name in ("inbound", "outbound") else ""
                net = f", net {number(middle(line['net_ns']), 0)}" if "driver" not in name else ""
                cells.append(spread(line["ns"], 0) + net + to)
            rows.append([name, pattern] + cells)
        report.add(f"**{'XDP' if backend == 'xdp' else 'tc'}**\n", table(["packet", "flows"] + [f"{size:,} live" for size in sizes], rows))
        of_flow = result[backend]["bytes_per_flow"]
        report.add(f"A live flow takes {number(of_flow['flows_table'], 0)} bytes of the kernel's memory ({of_flow['entry_key_and_value']} of them key and value), and the "
                   f"empty table {number(of_flow['flows_table_empty'] / 2**20, 1)} MiB; an entry of the reference's preallocated table takes "
                   f"{number(of_flow['reference_table'], 0)}.\n")
        if backend == "xdp":
            switch_goals(report, sizes)
    figure, axes = pyplot.subplots(figsize=(7, 3))
    shown = [("forwarder", "hot"), ("hash and DNAT", "hot"), ("inbound", "hot"), ("outbound", "hot"), ("hash and DNAT", "random"), ("inbound", "random"), ("outbound", "random")]
    last = {b: {(x["name"], x["pattern"]): x["ns"]["median"] for x in result[b]["sizes"][-1]["lines"]} for b in ("xdp", "tc")}
    for i, backend in enumerate(("xdp", "tc")):
        axes.bar([x + (i - 0.5) * 0.4 for x in range(len(shown))], [last[backend][key] for key in shown], 0.4, label=backend.upper() if i == 0 else "tc")
    axes.set_xticks(range(len(shown)), [f"{name}\n{pattern}" for name, pattern in shown], fontsize=7)
    axes.set_ylabel("ns a packet, 1 M live flows")
    axes.legend(fontsize=7)
    report.save(figure, "switch", "nanoseconds a packet, a million live flows")


def switch_goals(report, sizes):
    last = list(sizes.values())[-1]
    for name, pattern, most in (("inbound", "hot", 1.25), ("outbound", "hot", 1.25), ("inbound", "random", 1.1), ("outbound", "random", 1.1)):
        where = "one hot flow" if pattern == "hot" else "random over 1 M flows"
        entry = (list(sizes.values())[0] if pattern == "hot" else last)[name, pattern]["to_reference"]
        report.goal(f"switch, XDP, {name}, {where}, against hash and DNAT", f"at most {most} x", spread(entry, 2) + " x", middle(entry) <= most)
    entry = last["transfer", "next"]["net_ns"]
    report.goal("a transfer in the switch's program (XDP, 1 M live flows)", "at most 1,000 ns", spread(entry, 0) + " ns", middle(entry) <= 1000)


def open_loop(report, result):
    sides = result["sides"]
    report.add("Arrivals at a fixed rate (Poisson, drawn before the run), replies of 1 KB, a new connection for each, given up after a second. The rate is a share of what "
               "the same side does in a closed loop of 32 connections. Latency counts from when a request was due. Placement: " + result["placement"] + ".\n")
    report.add(table(["", "capacity"] + [f"{number(p['share'] * 100, 0)} %" for p in next(iter(sides.values()))["points"]] + ["kept at 150 %"],
                     [[NAMES[s], number(v["capacity"], 0)] + [f"{number(middle(p['goodput']), 0)}/s, p99 {number(middle(p['p99_us']) / 1000, 1)} ms" for p in v["points"]]
                      + [number(v["kept_at_1.5"], 2)] for s, v in sides.items()]))
    kept = sides["tcpmig"]["kept_at_1.5"]
    report.goal("open loop at 1.5 x capacity, goodput against its peak", "at least 0.9 x", number(kept, 2) + " x", kept >= 0.9)
    figure, (good, slow) = pyplot.subplots(1, 2, figsize=(8, 3))
    for side, entry in sides.items():
        shares = [p["share"] for p in entry["points"]]
        good.plot(shares, [middle(p["goodput"]) / entry["capacity"] for p in entry["points"]], marker="o", label=NAMES[side], color=COLOURS[side])
        slow.plot(shares, [middle(p["p99_us"]) / 1000 for p in entry["points"]], marker="o", color=COLOURS[side])
    good.set(xlabel="arrivals, of capacity", ylabel="goodput, of capacity")
    slow.set(xlabel="arrivals, of capacity", ylabel="p99, milliseconds", yscale="log")
    good.legend(fontsize=7)
    report.save(figure, "open-loop", "goodput and p99 against the arrival rate")


def resume(report, result):
    parts = [("freeze_request", "freeze, as a dispatcher does"), ("freeze_whole", "freeze, whole"), ("encode", "encode"), ("decode", "decode"), ("repair_resume", "repair resume")]
    heads = [f"{size['bytes'] // 1024} KB" for size in result["library"]["sizes"]]
    cell = lambda entry: f"{number(entry['p50_us'])} ({number(entry['p99_us'], 0)})"  # noqa: E731
    rows = [[text] + [cell(size[key]) for size in result["library"]["sizes"]] for key, text in parts]
    for key, text in (("frozen", "dispatcher: head to frozen"), ("committed", "head to committed by the switch"), ("opening", "kernel resume alone: COMMIT at the server to opened"),
                      ("accepted", "head to accept() returned")):
        rows.append([text] + [cell(size[key]) if key in size else "-" for size in result["dispatcher"]["sizes"]])
    rows.append(["migrate(), program to program"] + [cell(size["migrate"]) for size in result["migrate"]["sizes"]])
    report.add("Microseconds, p50 (p99), by what goes along: bytes in the receive queue (the library's lines), a request's body (the dispatcher's lines; it acknowledges less than 32 KB, "
               "what is beyond comes to the server itself), the application's state (`migrate()`: two agents, the switch, both programs). For comparison: HA/TCP, FreeBSD: 38 us a "
               "migration; Capybara, its own TCP and a hardware switch: 11 us with nothing to 58 us with 128 KB.\n", table(["part"] + heads, rows))


def addresses(report, result):
    report.add("Requests go to all services in turns, 8 in flight; a lab with one service and one with many take turns.\n",
               table(["virtual addresses on the server", "requests a second", "the lab with one", "against one"],
                     [[f"{n['services']:,}", spread(n["per_second"], 0), spread(n["one_per_second"], 0), spread(n["to_one"], 3)] for n in result["numbers"]]))
    entry = result["numbers"][-1]["to_one"]
    report.goal(f"{result['numbers'][-1]['services']:,} virtual addresses against one", "at least 0.98 x", spread(entry, 3) + " x", middle(entry) >= 0.98)


def scale(report, result):
    live, waits, moved = result["live"], result["waiting"], result["transfers"]
    mib = lambda value: f"{number(value / 2**20, 1)} MiB"  # noqa: E731
    rows = [[role, mib(live["before"][role]["resident_bytes"]), mib(live["with"][role]["resident_bytes"]),
             f"{number(100 * live['before'][role]['cpu_share'], 2)} %", f"{number(100 * live['with'][role]['cpu_share'], 2)} %"] for role in ("switch", "dispatcher", "agent")]
    report.add(f"{live['connections']:,} connections that were migrated and stay open, from eight client addresses, opened at {number(live['opened_per_second'], 0)} a second.\n",
               table(["role at rest", "memory before", "memory with them", "of a core before", "of a core with them"], rows),
               f"The switch's flow table takes {mib(live['with']['switch']['flows_map_bytes'])} of kernel memory with them, {mib(live['before']['switch']['flows_map_bytes'])} before. "
               f"A further request on one of them: p50 {number(live['next_request_p50_us'], 0)} us; a new connection beside them: p50 {number(live['new_connection_p50_us'], 0)} us.\n",
               f"{waits['connections']:,} connections that say nothing: {number(waits['resident_bytes_each'], 0)} bytes of the dispatcher's memory each; a new connection beside "
               f"them takes {number(waits['new_connection_p50_us'], 0)} us (p50; {number(waits['new_connection_p50_us_without'], 0)} without).\n",
               f"A dispatcher does {spread(moved['per_dispatcher_core_second'], 0)} transfers for each second that it has a core (64 in flight).\n")


SECTIONS = [("latency", "Latency", latency), ("throughput", "Throughput", throughput), ("paper", "The figure of the paper", paper), ("switch", "The switch's programs", switch),
            ("open-loop", "Open loop", open_loop), ("resume", "Freeze, transfer, resume", resume), ("addresses", "Many addresses", addresses), ("scale", "Scale", scale)]


def beginning(results):
    first = next(iter(results.values()))
    machine, commits = first["machine"], sorted({r["machine"]["commit"] for r in results.values()})
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    loads = ", ".join(f"{name} {number(r['machine']['load_before'], 1)}" for name, r in results.items())
    quick = "\n**Made with --quick: few and short rounds, the figures mean little.**\n" if any(r["quick"] for r in results.values()) else ""
    return (f"# Benchmarks\n\nMade by `sudo ./dev bench`, which measures everything anew, without anybody's help, and writes this page; "
            f"`./dev bench --list` names its parts. All sides of a comparison live in one lab ([lab.md](lab.md)) and take turns within one run. On a machine that "
            f"does other things, and all figures here share the few cores of one, only the **ratios** mean something elsewhere. Figures are medians of rounds, with the lowest and the highest.\n{quick}\n"
            f"Machine: {machine['processor']}, {machine['cores']} cores, {number(machine['memory_gib'], 0)} GiB, {machine['kernel']}; commit {', '.join(commits)}; begun "
            f"{min(r['machine']['begun'] for r in results.values())}; load average before each part: "
            f"{loads}. {versions}.\n\n"
            f"Sides: *direct* (client to server, routed by the switch's namespace), *tcpmig* (tc, kernel resume), *HAProxy* and *nginx* as reverse proxies in the dispatcher's place, with a thread or "
            f"process for each core, splice, large buffers and no logs, either with a connection to the server for each request or with ones that are kept.\n")


def main():
    results_dir, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    results = {name: json.loads((results_dir / f"{name}.json").read_text()) for name, _, _ in SECTIONS if (results_dir / f"{name}.json").exists()}
    if not results:
        sys.exit(f"report: no results in {results_dir}")
    report = Report(results, out)
    for name, title, write in SECTIONS:
        if name in results:
            report.add(f"## {title}\n")
            write(report, results[name]["result"])
    notes = pathlib.Path(__file__).with_name("notes.md")
    goals = "## Goals\n\n" + table(["what", "goal", "measured", "met"], report.goals) if report.goals else ""
    text = [beginning(results), goals, notes.read_text() if notes.exists() else "", *report.text]
    page = out / "benchmarks.md"
    out.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(part for part in text if part))
    print(goals or "no goals among these")
    print(f"{page}, {report.plots}/*.svg", file=sys.stderr)


if __name__ == "__main__":
    main()
