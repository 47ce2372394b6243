"""Which window of an alarm is the most extreme."""

__all__ = ["Strength", "strength"]

#: Compared element by element.
Strength = tuple[bool, float, float]


def strength(*, below_null: bool, z: float, t: float) -> Strength:
    """Return what the most extreme window has most of.

    A window far below its null comes before any other, the lower its t the further; else Z decides,
    and where Z ends, as that of the toys does, t.

    >>> strength(below_null=True, z=-9.0, t=-80.0) > strength(below_null=False, z=9.0, t=200.0)
    True
    """
    return below_null, -t if below_null else z, t
