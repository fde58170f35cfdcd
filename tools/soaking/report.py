"""The report of a soak, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from soaking.state import KINDS, State, Sums, Times, by_sort

FAULTS = "faults_"
SHOWN = ("messages", "steps", "virtual_s", "checkpoints", "aborts", "incarnations", "kills", "power_losses")
WHAT_LENGTH = 160


def report(state: State) -> str:
    """All of it."""
    return "\n".join(
        [
            "# Soak",
            "",
            *_whole(state),
            *_simulation(state),
            *_chaos(state),
            *_shells(state),
            *_commits(state),
            *_violations(state),
        ]
    )


def _whole(state: State) -> Iterator[str]:
    seeds, chaos = state.sums.get("seeds", Sums()), by_sort(state, "chaos")
    kills = sum(sums.figures.get("sigkills", 0) for sums in chaos.values())
    yield "| | |"
    yield "|---|---|"
    yield f"| soaked | {state.soaked_s / 3600:.1f} hours |"
    yield f"| seeds of the simulator | {seeds.runs:,} |"
    yield f"| virtual time in them | {seeds.figures.get('virtual_s', 0) / 3600:,.0f} hours |"
    if seeds.runs:
        faults = seeds.figures.get("faults", sum(value for name, value in seeds.figures.items() if name.startswith(FAULTS)))
        yield f"| faults in a seed, on average | {faults / seeds.runs:.1f} |"
    yield f"| runs of real nodes | {sum(sums.runs for sums in chaos.values()):,} |"
    yield f"| real SIGKILLs | {kills:,.0f} |"
    yield f"| recoveries of real nodes | {sum(sums.recoveries.count for sums in chaos.values()):,} |"
    yield f"| violations | {state.violations_seen:,} |"
    yield ""


def _simulation(state: State) -> Iterator[str]:
    sums = state.sums.get("seeds")
    if sums is None or not sums.runs:
        return
    yield "## Simulator"
    yield ""
    yield "| what | in all | per seed |"
    yield "|---|---:|---:|"
    names = [*(name for name in SHOWN if name in sums.figures)]
    names += sorted(name for name in sums.figures if name not in names and not name.startswith(FAULTS))
    for name in names:
        yield _figure(name.replace("_", " "), sums.figures[name], sums.runs)
    yield f"| wall clock seconds of one process | {sums.busy_s:,.0f} | {sums.busy_s / sums.runs:.2f} |"
    yield ""
    faults = _faults([sums])
    if faults:
        yield "| fault | in all | per seed |"
        yield "|---|---:|---:|"
        for name, value in faults.items():
            yield _figure(name, value, sums.runs)
        yield ""


def _figure(name: str, value: float, runs: int) -> str:
    return f"| {name} | {value:,.0f} | {value / runs:,.1f} |"


def _faults(all_sums: Iterable[Sums]) -> dict[str, float]:
    """By kind."""
    faults: dict[str, float] = {}
    for sums in all_sums:
        for name, value in sums.figures.items():
            if name.startswith(FAULTS):
                kind = name.removeprefix(FAULTS).replace("_", " ")
                faults[kind] = faults.get(kind, 0) + value
    return dict(sorted(faults.items()))


def _chaos(state: State) -> Iterator[str]:
    chaos = by_sort(state, "chaos")
    if not chaos:
        return
    yield "## Real nodes"
    yield ""
    yield "| application | shards | runs | inconclusive | SIGKILLs | recoveries | p50 ms | p99 ms | max ms | violations |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    for name, sums in chaos.items():
        app, _, shards = name.removeprefix("chaos ").rpartition(" ")
        yield f"| {app} | {shards} | {_chaos_row(sums)} |"
    yield f"| **all** | | {_chaos_row(_together(chaos.values()))} |"
    yield ""
    yield "| fault | in all |"
    yield "|---|---:|"
    for name, value in _faults(chaos.values()).items():
        yield f"| {name} | {value:,.0f} |"
    yield ""


def _chaos_row(sums: Sums) -> str:
    times = sums.recoveries
    cells = [f"{sums.runs:,}", f"{sums.inconclusive:,}", f"{sums.figures.get('sigkills', 0):,.0f}", f"{times.count:,}"]
    cells += ["" if ms is None else f"{ms:,.0f}" for ms in (times.percentile(0.5), times.percentile(0.99))]
    return " | ".join([*cells, f"{times.max_ms:,.0f}", f"{sums.violations:,}"])


def _together(all_sums: Iterable[Sums]) -> Sums:
    whole = Sums(recoveries=Times())
    for sums in all_sums:
        whole.runs += sums.runs
        whole.inconclusive += sums.inconclusive
        whole.violations += sums.violations
        whole.figures["sigkills"] = whole.figures.get("sigkills", 0) + sums.figures.get("sigkills", 0)
        whole.recoveries.max_ms = max(whole.recoveries.max_ms, sums.recoveries.max_ms)
        for bucket, count in sums.recoveries.buckets.items():
            whole.recoveries.buckets[bucket] = whole.recoveries.buckets.get(bucket, 0) + count
    return whole


def _shells(state: State) -> Iterator[str]:
    sums = state.sums.get("shells")
    if sums is None or not sums.runs:
        return
    yield "## Drivers and supervisor under virtual time"
    yield ""
    yield "| what | in all | per round |"
    yield "|---|---:|---:|"
    yield _figure("rounds", sums.runs, sums.runs)
    for name, value in sorted(sums.figures.items()):
        yield _figure(name.replace("_", " "), value, sums.runs)
    yield ""


def _commits(state: State) -> Iterator[str]:
    commits: dict[str, dict[str, int]] = {}
    for kind in KINDS:
        for sums in by_sort(state, kind).values():
            for commit, runs in sums.commits.items():
                counts = commits.setdefault(commit, {})
                counts[kind] = counts.get(kind, 0) + runs
    if commits:
        yield "## Commits"
        yield ""
        yield "| commit | seeds | real nodes | rounds of shells |"
        yield "|---|---:|---:|---:|"
        for commit, counts in commits.items():
            yield f"| `{commit}` | " + " | ".join(f"{counts.get(kind, 0):,}" for kind in KINDS) + " |"
        yield ""
    if state.refused:
        yield "Not used, because their quick check failed:"
        yield ""
        for refused in state.refused:
            yield f"- {refused.at}: `{refused.commit}`: {_short(refused.why)}"
        yield ""


def _violations(state: State) -> Iterator[str]:
    yield "## Violations"
    yield ""
    if not state.violations_seen:
        yield "None."
        yield ""
        return
    yield "| at | piece | seed | kind | commit | what | file |"
    yield "|---|---|---:|---|---|---|---|"
    for found in state.violations:
        row = (found.at, found.piece, found.seed, found.kind, f"`{found.commit}`", _short(found.what), found.file)
        yield "| " + " | ".join(map(str, row)) + " |"
    if state.violations_seen > len(state.violations):
        yield f"\nand {state.violations_seen - len(state.violations):,} more."
    yield ""


def _short(text: str) -> str:
    """On one line, safe in a table."""
    line = " ".join(text.split()).replace("|", "\\|")
    return line if len(line) <= WHAT_LENGTH else line[:WHAT_LENGTH] + " ..."
