"""Alarms seen against alarms promised, as text."""

from typing import Any

__all__ = ["month_text"]

_TAILS = {"chi2": "chi-square", "gamma": "gamma", "toys": "toys"}


def month_text(results: dict[str, dict[str, Any]]) -> str:
    """Return Markdown: the counts at each rate, and how they lie over the month.

    Args:
        results: of `bench.month.summarise`, by kind of month.
    """
    return "\n".join(_kind(name, one) for name, one in results.items())


def _kind(name: str, result: dict[str, Any]) -> str:
    drift = (
        f", jet energy scale {100 * result['drift']:+g} % over a month" if result["drift"] else ""
    )
    alarms = ", ".join(map(str, result["alarms"]))
    lines = [
        f"{name}: {result['months']} months, {result['windows']} windows{drift}",
        f"alarms at the monitor's rate, by month: {alarms}; p of the toys uniform: KS p "
        f"{result['ks_p_toys']:.2g} (windows of a month share its calibration)",
        "",
        "| rate | p from | windows promised | seen | 95 % interval of the mean | binomial p |",
        "|---|---|---|---|---|---|",
    ]
    for rate, tails in result["rates"].items():
        for tail, one in tails.items():
            low, high = one["mean_in_95"]
            lines.append(
                f"| {rate} | {_TAILS[tail]} | {one['promised']:.1f} | {one['seen']} | {low:.1f} to "
                f"{high:.1f} | {one['binomial_p']:.2g} |"
            )
    lines += [
        "",
        "| from window | mean Z | windows over the threshold | promised |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {part['first_window']} | {part['mean_z']:.3f} ± {part['mean_z_error']:.3f} | "
        f"{part['alarming_windows']} | {part['promised']:.2f} |"
        for part in result["by_part"]
    ]
    return "".join(f"{line}\n" for line in lines)
