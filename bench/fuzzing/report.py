"""What fuzzing found, as JSON and as text."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from bench.fuzzing.control_run import ControlRun
from bench.fuzzing.intake_run import IntakeRun
from bench.fuzzing.socket_run import SocketFindings
from bench.fuzzing.workers import VERDICTS, Outcome

__all__ = ["RIGHT", "control_record", "files_record", "intake_record", "socket_record", "text"]

#: What may come of a damaged file.
RIGHT = ("opened", "refused")
_MIB = 2**20
_SETTLED = 0.1
_KEPT = 10
_LONGEST = 600


def slope_mib(resident: Sequence[int], n: int) -> float:
    """Return by how much memory rises over a million messages, MiB, the first tenth left out.

    Args:
        resident: bytes, after equal steps.
        n: messages in all.

    >>> slope_mib([0, *range(0, 99 * 2**20, 2**20)], 1_000_000) > 90
    True
    """
    settled = np.asarray(resident[int(_SETTLED * len(resident)) :], dtype=np.float64)
    if len(settled) < 2:
        return 0.0
    per_step = float(np.polyfit(np.arange(len(settled)), settled, 1)[0])
    return per_step * len(resident) / n * 1e6 / _MIB


def intake_record(run: IntakeRun, resident: Sequence[int]) -> dict[str, Any]:
    """Return what came of messages through an intake."""
    n = run.kinds.total()
    return {
        "messages": n,
        "good": run.kinds["good"],
        "accepted": run.accepted.total(),
        "refused": {reason: k for reason, k in run.metrics.rejected.items() if k},
        "kinds": {
            kind: {"sent": k, "accepted": run.accepted[kind]} for kind, k in _most(run.kinds)
        },
        "wrong": run.findings.counts.total(),
        "wrong_by_kind": dict(run.findings.counts),
        "examples": run.findings.examples[:_KEPT],
        "slowest_s": run.slowest_s,
        "slowest_cpu_s": run.slowest_cpu_s,
        "slowest_kind": run.slowest_kind,
        "source_series": len(run.metrics.by_source),
        "memory_slope_mib_per_million": slope_mib(resident, n),
        "memory_mib": [round(size / _MIB, 2) for size in resident],
    }


def control_record(run: ControlRun) -> dict[str, Any]:
    """Return what came of control messages."""
    return {
        "messages": run.n_accepted + run.refused.total() + run.findings.counts.total(),
        "accepted": run.n_accepted,
        "refused": {str(reason): n for reason, n in _most(run.refused)},
        "wrong": run.findings.counts.total(),
        "examples": run.findings.examples[:_KEPT],
    }


def socket_record(found: SocketFindings) -> dict[str, Any]:
    """Return what came of messages through a socket."""
    return {
        "messages": found.n_sent,
        "good": found.n_good,
        "accepted": found.n_accepted,
        "refused": {reason: k for reason, k in found.rejected.items() if k},
        "wrong": len(found.wrong),
        "examples": found.wrong,
        "duration_s": found.duration_s,
        "source_series": found.n_sources,
        "memory_slope_mib_per_million": slope_mib(found.resident, found.n_sent),
        "memory_mib": [round(size / _MIB, 2) for size in found.resident],
    }


def files_record(outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """Return what came of the files of one kind."""
    verdicts: Counter[str] = Counter(dict.fromkeys(VERDICTS, 0))
    kinds: dict[str, Counter[str]] = {}
    examples: list[dict[str, object]] = []
    slowest = largest = Outcome(0, "", "")
    for one in outcomes:
        verdicts[one.verdict] += 1
        kinds.setdefault(one.kind, Counter())[one.verdict] += 1
        slowest = max(slowest, one, key=lambda outcome: outcome.seconds)
        largest = max(largest, one, key=lambda outcome: outcome.peak_mib)
        if one.verdict not in RIGHT and len(examples) < _KEPT:
            said = one.said[-_LONGEST:] if one.verdict == "crash" else one.said[:_LONGEST]
            examples.append({"case": one.case, "kind": one.kind, one.verdict: said})
    return {
        "files": verdicts.total(),
        **verdicts,
        "wrong": sum(n for verdict, n in verdicts.items() if verdict not in RIGHT),
        "slowest_s": slowest.seconds,
        "slowest_kind": slowest.kind,
        "largest_mib": largest.peak_mib,
        "largest_kind": largest.kind,
        "kinds": {kind: dict(found) for kind, found in sorted(kinds.items())},
        "examples": examples,
    }


def _most(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: -item[1])


def text(results: dict[str, Any]) -> str:
    """Return Markdown tables of what came of messages and of files, as far as there are any.

    Memory is given after a tenth of the messages, at the end, at its most, and how much it rises
    in a million messages by a line through all of it.
    """
    lines: list[str] = []
    if messages := results.get("messages"):
        lines += [
            "| through | messages | accepted | refused | wrong | slowest (CPU) | memory, MiB |",
            "|---|---|---|---|---|---|---|",
            *(_message_row(name, one) for name, one in messages.items()),
            "",
            "refused for: " + _reasons(messages),
        ]
    if files := results.get("files"):
        lines += [
            *([""] if messages else []),
            "| file | damaged | opened | refused | crashed | hung | other | slowest | memory |",
            "|---|---|---|---|---|---|---|---|---|",
            *(_file_row(name, one) for name, one in files.items()),
        ]
    return "".join(f"{line}\n" for line in lines)


def _message_row(name: str, one: dict[str, Any]) -> str:
    slowest = f"{1e3 * one['slowest_cpu_s']:.1f} ms" if "slowest_cpu_s" in one else "-"
    memory, resident = "-", one.get("memory_mib", [])
    if settled := resident[int(_SETTLED * len(resident)) :]:
        slope = one["memory_slope_mib_per_million"]
        memory = f"{settled[0]:.0f} to {settled[-1]:.0f}, most {max(settled):.0f}, {slope:+.1f}"
    refused = sum(one["refused"].values())
    return (
        f"| {name} | {one['messages']} | {one['accepted']} | {refused} | {one['wrong']} | "
        f"{slowest} | {memory} |"
    )


def _reasons(messages: dict[str, Any]) -> str:
    total: Counter[str] = Counter()
    for one in messages.values():
        total.update(one["refused"])
    return ", ".join(f"{reason} {n}" for reason, n in _most(total))


def _file_row(name: str, one: dict[str, Any]) -> str:
    other = one["untidy"] + one["exception"]
    return (
        f"| {name} | {one['files']} | {one['opened']} | {one['refused']} | {one['crash']} | "
        f"{one['hang']} | {other} | {one['slowest_s']:.2f} s | {one['largest_mib']:.0f} MiB |"
    )
