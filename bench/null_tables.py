"""Markdown of the null checks."""

from typing import Any

__all__ = ["coverage_table", "null_table"]


def null_table(results: dict[str, dict[str, Any]]) -> str:
    """Return Markdown: one line for each way of testing."""
    lines = [
        "p-values of null windows that took part in no calibration\n",
        "| windows | n | events | toys | pool's offset | KS p, toys | KS p, windows against toys "
        "| KS p, chi-square | KS p, gamma | p <= 0.05 (68 %) | p <= 0.01 (68 %) "
        "| false alarms, expected and seen |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in results.values():
        by_relabelling = "relabellings" in r
        ks = (
            [f"{r['ks_p_randomised']:.3f}", "-", "-", "-"]
            if by_relabelling
            else [
                _number(r[key])
                for key in ("ks_p_toys", "ks_p_two_sample", "ks_p_chi2", "ks_p_gamma")
            ]
        )
        shares = r["below_toys"]
        alarms = shares["0.01"]
        cells = [
            r["title"],
            str(r["windows"]),
            str(r["events"]),
            f"{r['relabellings']} relabellings" if by_relabelling else str(r["toys"]),
            "none" if by_relabelling else f"{r['offset_share']:.3f}",
            *ks,
            *(_share(shares[level]) for level in ("0.05", "0.01")),
            f"{alarms['expected']:g}, {alarms['seen']}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, *_notes(results)]) + "\n"


def _notes(results: dict[str, dict[str, Any]]) -> list[str]:
    notes = []
    below = [
        f"{r['title']} {r['far_below']['toys']} of {r['toys']} toys and "
        f"{r['far_below']['windows']} of {r['windows']} windows"
        for r in results.values()
        if any(r.get("far_below", {}).values())
    ]
    if below:
        notes.append(f"\nFar below the null, which alarms without a p: {'; '.join(below)}.")
    if "sliding" in results:
        o = results["sliding"]["overlapping"]
        alarms = o["false_alarms"]
        lags = ", ".join(f"{value:.2f}" for value in o["correlation_by_lag"])
        notes.append(
            f"\nAll {o['windows']} overlapping windows: t correlated by {lags} from one step to "
            f"{len(o['correlation_by_lag'])}; at the same rate {alarms['expected']:.2f} false "
            f"alarms expected, {alarms['seen']} seen in {o['clusters']} clusters."
        )
    if "relabelling" in results:
        r = results["relabelling"]
        notes.append(
            f"\nRelabelling: p takes {r['relabellings'] + 1} values; chi-square test of their "
            f"counts p = {r['chi2_p_steps']:.3f}; its KS p is of p spread evenly over its step."
        )
    return notes


def coverage_table(covered: dict[str, Any]) -> str:
    """Return Markdown: what the systematic of a small pool covers."""
    c = covered
    lines = [
        f"{c['calibrations']} calibrations: windows of {c['n_data']}, pool {c['n_pool']}, "
        f"reference {c['n_ref']}; {c['fresh_windows']} fresh windows\n",
        "| quantity | expected | seen |",
        "|---|---|---|",
        f"| standard deviation of the toys' shift / spread of t | {c['offset_share']:.3f} "
        f"| {c['shift_std']:.3f} +- {c['shift_std_error']:.3f} |",
        f"| its mean | 0 | {c['shift_mean']:.3f} +- {c['shift_mean_error']:.3f} |",
    ]
    for k, expected in (("1", 0.683), ("2", 0.954)):
        lines.append(f"| shifts within {k} | {expected} | {c['shift_within'][k]:.3f} |")
    lines += [
        f"| Z of fresh windows within {k} z_systematic | {c['z_within_expected'][k]:.3f} "
        f"| {c['z_within'][k]:.3f} |"
        for k in ("1", "2")
    ]
    for name, r in c["p_below_0.05"].items():
        low, high = r["by_calibration_68"]
        bound = "at most 0.05" if "lowered" in name else "0.05"
        lines.append(
            f"| p <= 0.05, {name} | {bound} | {r['share']:.3f} +- {r['error']:.3f}, by calibration "
            f"{low:.2f} to {high:.2f}, worst {r['worst']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _share(counted: dict[str, Any]) -> str:
    low, high = counted["share_68"]
    return f"{counted['share']:.3f} ({low:.3f}, {high:.3f})"
