"""Memory for arriving events: rows side by side, and slabs that come back."""

import numpy as np

from engines.types import FloatArray
from stream.memory import EventMemory


def allocate(n: int) -> FloatArray:
    return np.empty((n, 19, 3), np.float32)


def test_rows_follow_each_other_in_a_slab() -> None:
    memory = EventMemory(allocate, 10)
    first = memory.rows(4)
    memory.take(4)
    second = memory.rows(6)
    assert memory.fits(6)
    assert not memory.fits(7)
    assert second.ctypes.data == first.ctypes.data + first.nbytes
    assert first.flags.c_contiguous
    assert first.dtype == np.float32
    assert second.shape == (6, 19, 3)


def test_rows_are_the_same_until_they_are_taken() -> None:
    memory = EventMemory(allocate, 10)
    assert memory.rows(3).ctypes.data == memory.rows(5).ctypes.data
    memory.take(2)
    assert memory.rows(1).ctypes.data == memory.rows(8).ctypes.data


def test_slab_serves_again_once_nobody_views_it() -> None:
    memory = EventMemory(allocate, 10)
    held = []
    for value in range(6):
        rows = memory.rows(10)
        rows[:] = value
        memory.take(10)
        held.append(rows[5:7])
    del rows
    assert memory.n_slabs == 6
    for value, view in enumerate(held):
        assert (view == value).all()
    held.clear()
    for _ in range(20):
        memory.rows(10)
        memory.take(10)
    assert memory.n_slabs == 6


def test_view_of_one_row_keeps_its_slab() -> None:
    memory = EventMemory(allocate, 2)
    rows = memory.rows(2)
    rows[:] = 7
    memory.take(2)
    row = rows[1:, 4:6]
    del rows
    for _ in range(5):
        memory.rows(2)[:] = 9
        memory.take(2)
    assert (row == 7).all()


def test_message_larger_than_a_slab_has_memory_of_its_own() -> None:
    memory = EventMemory(allocate, 10)
    rows = memory.rows(25)
    assert rows.shape == (25, 19, 3)
    memory.take(25)
    del rows
    assert memory.rows(10).shape == (10, 19, 3)
    assert memory.n_slabs == 1
