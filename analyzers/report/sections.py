"""The page's parts as HTML: each plot with the table that says the same."""

from __future__ import annotations

from typing import Any

import polars as pl

from tracekit.analyzers.distribution import Distribution
from tracekit.analyzers.events import STATES
from tracekit.analyzers.report import wording
from tracekit.analyzers.report.content import DIRECTIVES_MAX, LANES_MAX, Content, Shown
from tracekit.analyzers.report.data import KINDS
from tracekit.analyzers.report.markup import Html, command, joined, table, tag
from tracekit.analyzers.report.thinning import AROUND, LONGEST
from tracekit.analyzers.report.wording import duration
from tracekit.formats.units import format_bytes

COLORS = 8  # of vCPUs, in page.css


def verdict(content: Content) -> Html:
    """Good or not, in one line that does not need its colour."""
    analysis, steal = content.analysis, content.analysis.steal
    assert steal is not None
    broken = [shown.finding.invariant for shown in content.findings]
    is_good = analysis.is_good(0)
    said = (
        f"{len(broken)} invariant{'s' if len(broken) > 1 else ''} broken: {', '.join(broken)}"
        if broken
        else "no invariant broken"
    )
    error = f"greatest error {duration(steal.error_ns)}" if steal.error_ns else "no error in any published or read stolen time"
    if not steal.vcpus["epochs"].sum():
        error = "the guest never asked for its stolen time"
    early = f"; {analysis.scope.early}" if analysis.scope.early else ""
    mark = tag("span", "✓" if is_good else "✗", class_="mark", aria_hidden="true")
    word = tag("strong", "Good" if is_good else "Finding")
    return tag("p", mark, word, tag("span", f"{said}; {error}{early}"), class_=f"verdict {'good' if is_good else 'bad'}")


def facts(content: Content) -> Html:
    """What ran on what."""
    manifest = content.manifest
    scenario, machine, end = manifest.get("scenario", {}), manifest.get("machine", {}), manifest["end"]
    host, hypervisor = scenario.get("host", {}), scenario.get("hypervisor", {})
    neighbours = host.get("neighbours") or []
    faults = [str(one.get("name")) for one in hypervisor.get("faults") or [] if isinstance(one, dict)]
    pairs: list[tuple[str, Any]] = [
        ("guest", f"{scenario.get('image') or 'unknown'}, {counted(content.vcpus, 'vCPU')}, {format_bytes(int(machine.get('ram_size', 0)))} RAM"),
        ("host", f"{counted(content.pcpus, 'pCPU')}, {host.get('policy') or 'no policy named'}, {counted(len(neighbours), 'neighbour')}"),
        ("hypervisor", f"profile {hypervisor.get('profile') or 'unnamed'}, publishes as {hypervisor.get('publication') or 'kvm'}"),
        ("faults", ", ".join(faults) or "none"),
        ("seed", scenario.get("seed")),
        ("end", f"{str(end.get('reason')).replace('_', ' ')} at position {int(end['position']):,}, {duration(int(end['vtime_ns']))}"),
        ("digest", tag("code", str(manifest["digest"])[:16])),
    ]  # fmt: skip
    if content.analysis.scope.missing:
        pairs.append(("missing", "; ".join(content.analysis.scope.missing)))
    return tag("dl", joined(tag("div", tag("dt", key), tag("dd", value)) for key, value in pairs), class_="facts")


def summary(content: Content) -> Html:
    """Each vCPU's life and its stolen time at the end."""
    steal = content.analysis.steal
    assert steal is not None
    rows = []
    for one in steal.vcpus.iter_rows(named=True):
        times = [duration(one[name]) for name in ("run_ns", "wait_ns", "block_ns")]
        told = [_ns(one[name]) for name in ("true_ns", "told_ns", "read_ns", "accounted_ns")]
        bar = _bar(one["run_ns"], one["wait_ns"], one["block_ns"])
        rows.append([f"vCPU {one['vcpu']}", bar, *times, *told, _ns(one["error_ns"]), one["entries"]])
    headers = ("vCPU", "life", "run", "wait", "block", "true", "published", "seen", "accounted", "error", "entries")
    caption = "Life, stolen time at the end, greatest error at a guest entry"
    return table(caption, headers, rows, numeric=range(2, 11))


def _ns(value: int | None) -> str | None:
    if value is None:
        return None
    return duration(value - (1 << 64) if value >= 1 << 63 else value)


def _bar(*times: int) -> Html:
    """Shares of a life as a bar; the numbers stand beside it."""
    whole = max(sum(times), 1)
    edges = [round(sum(times[: index + 1]) * 100 / whole, 2) for index in range(3)]
    widths = [round(b - a, 2) for a, b in zip([0.0, *edges], edges, strict=False)]
    parts = (tag("i", class_=name, style=f"width:{width}%") for name, width in zip(("run", "wait", "block"), widths, strict=True))
    return tag("span", joined(parts), class_="life", aria_hidden="true")


def thinning(content: Content) -> Html:
    """What of the timeline is exact, and what was merged: always said."""
    thinned = content.thinned
    if not thinned.bin_ns:
        said = f"All {thinned.total:,} intervals are on this page; those narrower than a pixel are drawn as shares of the time (heights are shares there) until you zoom in."
    else:
        merged = thinned.total - thinned.kept.height
        said = (
            f"{thinned.total:,} intervals: {thinned.kept.height:,} are on this page exactly (the {LONGEST} longest of each thread and state, {AROUND} on "
            f"either side of every finding, and the longest of all), the other {merged:,} are merged into shares of the time in steps of "
            f"{duration(thinned.bin_ns)}. No finding and no longest wait is left out. To see all of a part: "
        )
    out: list[Any] = [said]
    if thinned.bin_ns:
        out.append(command(f"tracekit report {content.name} --from TIME --to TIME -o part.html"))
    for what, count in (("vCPU", content.vcpus), ("pCPU", content.pcpus)):
        if count > LANES_MAX:
            out.append(f" Lanes of the first {LANES_MAX} of {count} {what}s.")
    if content.directive_count > DIRECTIVES_MAX:
        out.append(f" The first {DIRECTIVES_MAX} of {content.directive_count:,} directives are marked.")
    return tag("p", *out, class_="quiet note")


def states(content: Content) -> Html:
    """The timeline as a table: who was in which state for how long."""
    rows = []
    whole = dict(content.spent.group_by("thread").agg(pl.col("ns").sum()).iter_rows())
    for thread, state, pieces, ns, longest_ns in content.spent.iter_rows():
        share = f"{100 * ns / max(whole[thread], 1):.1f} %"
        rows.append([content.thread(thread), wording.STATES[state], pieces, duration(ns), share, duration(longest_ns)])
    headers = ("vCPU", "state", "intervals", "time", "share", "longest")
    return table("Time in each state", headers, rows, numeric=(2, 3, 4, 5))


def waited_for(content: Content) -> Html:
    """Whose gain each wait was."""
    whole = dict(content.waited_for.group_by("vcpu").agg(pl.col("ns").sum()).iter_rows())
    rows = []
    for vcpu, thread, ns in content.waited_for.iter_rows():
        share = 100 * ns / max(whole[vcpu], 1)
        who = "nobody (the host's latency)" if thread is None else content.thread(thread)
        rows.append([f"vCPU {vcpu}", who, _share(share), duration(ns), f"{share:.1f} %"])
    headers = ("vCPU", "waited while there ran", "", "for", "of its waits")
    return table("Who waited for whom", headers, rows, numeric=(3, 4), empty="nobody waited")


def _share(percent: float, kind: str = "wait") -> Html:
    """A bar; the number stands beside it."""
    return tag("span", tag("i", class_=kind, style=f"width:{percent:.2f}%"), class_="life", aria_hidden="true")


def waits(content: Content, run: int) -> Html:
    """The longest waits, for whom, and a way to them."""
    rows = []
    for one in content.waits:
        blame = (
            ", ".join(f"{content.thread(thread)} ({duration(ns)})" for thread, ns in one.blame)
            or "nobody ran: the host's own latency"
        )
        end_ns = one.start_ns + one.length_ns
        rows.append(
            [f"vCPU {one.vcpu}", show(run, one.start_ns, end_ns, f"Show the wait of vCPU {one.vcpu} at {duration(one.start_ns)}"),
             duration(one.start_ns), duration(one.length_ns), blame, one.pcpu, one.reason, one.position]
        )  # fmt: skip
    headers = ("vCPU", "timeline", "from", "waited", "for whom", "pCPU", "reason", "position")
    return table("The longest waits", headers, rows, numeric=(2, 3, 5, 7))


def show(run: int, from_ns: int, to_ns: int, label: str) -> Html:
    """A button that moves the timeline there."""
    return tag("button", "Show", type="button", class_="show", data_run=run, data_from=from_ns, data_to=to_ns, aria_label=label)


def findings(content: Content, run: int) -> Html:
    """Each broken invariant with its proof."""
    if not content.findings:
        return tag("p", f"None of the {len(wording.INVARIANTS)} invariants that a trace can decide is broken.", class_="quiet")
    return joined(_finding(content, shown, run) for shown in content.findings)


def _finding(content: Content, shown: Shown, run: int) -> Html:
    one = shown.finding
    who = f", vCPU {one.vcpu}" if one.vcpu is not None else ""
    more = f" {counted(one.count - 1, 'more row')} break{'s' if one.count == 2 else ''} it." if one.count > 1 else ""
    title = tag(
        "h4", tag("span", one.invariant, class_="badge"), " ", wording.INVARIANTS.get(one.invariant, "an invariant is broken")
    )
    where = tag("p", f"First in {one.table} at position {one.position:,}, {duration(one.vtime_ns)}{who}.{more} ",
                show(run, one.vtime_ns, one.vtime_ns, f"Show {one.invariant} on the timeline"))  # fmt: skip
    facts_ = tag(
        "dl", tag("div", tag("dt", "expected"), tag("dd", one.expected)), tag("div", tag("dt", "found"), tag("dd", one.found))
    )
    row = table(
        f"The row of {one.table}",
        [name for name, _ in shown.row],
        [[_cell(name, value) for name, value in shown.row]] if shown.row else [],
    )
    return tag("article", title, where, facts_, row, command(one.command(content.name)), class_="finding")


def _cell(name: str, value: Any) -> Any:
    if isinstance(value, bytes):
        if name == "data":  # what a guest printed, as it would stand in a program
            return repr(value[:120])[2:-1] + ("…" if len(value) > 120 else "")
        return value.hex()
    if isinstance(value, int) and name in (
        "ipa",
        "pc",
        "function_id",
        "value",
        "ret0",
        "ret1",
        "ret2",
        "ret3",
        *(f"x{n}" for n in range(8)),
    ):
        return f"{value:#x}"
    return value


def spread(caption: str, distribution: Distribution) -> Html:
    """Percentiles of a distribution."""
    found = distribution.percentiles()
    exact = "" if distribution.is_exact else " (to three digits)"
    return table(
        f"{caption}: {distribution.count:,} values{exact}", ["percentile", "value"],
        [[name, duration(value)] for name, value in found.items()], numeric=(1,), empty="no value in this run",
    )  # fmt: skip


def over(content: Content) -> Html:
    """The curves as a table: at sixteen places, each vCPU."""
    frame = content.analysis.over
    assert frame is not None
    ends = frame["end_ns"].unique().sort()
    wanted = ends.gather(sorted({int(index * (len(ends) - 1) / 15) for index in range(16)})) if len(ends) else ends
    rows = [
        [duration(row["end_ns"]), f"vCPU {row['vcpu']}", *(_ns(row[name]) for name in ("true_ns", "told_ns", "read_ns", "accounted_ns", "error_ns"))]
        for row in frame.filter(pl.col("end_ns").is_in(wanted.implode()), pl.col("vcpu") < LANES_MAX).sort("end_ns", "vcpu").iter_rows(named=True)
    ]  # fmt: skip
    headers = ("until", "vCPU", "true", "published", "seen in the step", "accounted in the step", "greatest error in the step")
    return table(f"Stolen time at {len(wanted)} of {len(ends)} steps", headers, rows, numeric=range(2, 7))


def calls(content: Content) -> Html:
    """Hypercalls by function."""
    most = max(content.calls["calls"], default=1)
    rows = [
        [one["function"] or "unknown", f"{one['function_id']:#010x}", _share(100 * one["calls"] / most, "run"), one["calls"], one["failures"],
         _ns(one["cost_p50_ns"]), _ns(one["cost_max_ns"]), one["position"], one["vcpus"], tag("span", one["results"], class_="prose")]
        for one in content.calls.iter_rows(named=True)
    ]  # fmt: skip
    headers = ("function", "id", "", "calls", "failures", "cost, median", "cost, most", "first at position", "by vCPU", "results")
    return table("Hypercalls by function", headers, rows, numeric=(3, 4, 5, 6, 7), empty="the guest made none")


def directives(content: Content) -> Html:
    """What was done from outside."""
    rows = [
        [KINDS.get(one["kind"], one["kind"]), one["vcpu"], duration(one["vtime_ns"]), one["position"], _hex(one["ipa"]), one["size"], one["value"],
         one["result"]]
        for one in content.directives.iter_rows(named=True)
    ]  # fmt: skip
    return table(
        "What was done to the run from outside", ("what", "vCPU", "at", "position", "IPA", "size", "value", "result"), rows,
        numeric=range(1, 8), empty="nothing",
    )  # fmt: skip


def _hex(value: int | None) -> str | None:
    return None if value is None else f"{value:#x}"


def legend(contents: list[Content]) -> Html:
    """Colours and heights of the timeline."""
    items = [tag("li", tag("i", class_=f"key {state}", aria_hidden="true"), wording.STATES[state]) for state in STATES.categories]
    items.append(tag("li", tag("i", class_="key finding-key", aria_hidden="true"), "finding"))
    items.append(tag("li", tag("i", class_="key directive-key", aria_hidden="true"), "directive"))
    vcpus = min(max(one.vcpus for one in contents), LANES_MAX)
    threads = [
        tag("li", tag("i", class_="key thread", style=f"background:var(--thread-{one % COLORS})"), f"vCPU {one}")
        for one in range(min(vcpus, COLORS))
    ]
    threads.append(tag("li", tag("i", class_="key thread", style="background:var(--stranger)"), "other threads of the host"))
    if vcpus > COLORS:
        threads.append(tag("li", "(colours repeat; names stand in the lanes)"))
    return joined([
        tag("ul", tag("li", "On a vCPU's lane:", class_="quiet"), joined(items), class_="legend", aria_label="Legend of the lanes of vCPUs"),
        tag("ul", tag("li", "On a pCPU's lane:", class_="quiet"), joined(threads), class_="legend", aria_label="Legend of the lanes of physical CPUs"),
    ])  # fmt: skip


def counted(count: int, noun: str) -> str:
    """1 vCPU, 2 vCPUs."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
