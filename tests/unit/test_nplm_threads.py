"""Work over threads: every piece once, results in order, errors raised."""

import threading

import pytest

from engines.errors import ParameterError
from engines.nplm.threads import Threads, check_device


@pytest.mark.parametrize("n", [1, 2, 5])
def test_each_piece_is_done_once_and_in_its_place(n: int) -> None:
    done: list[int] = []

    def work(item: int) -> int:
        done.append(item)
        return item * item

    assert Threads(n).map(work, range(100)) == [item * item for item in range(100)]
    assert sorted(done) == list(range(100))


def test_pieces_run_beside_each_other() -> None:
    meeting = threading.Barrier(3, timeout=10)
    assert Threads(3).map(lambda _: meeting.wait(), range(3)) is not None


def test_little_work_stays_in_the_callers_thread() -> None:
    here = threading.get_ident()
    assert Threads(3).map(lambda _: threading.get_ident(), range(9), worthwhile=False) == [here] * 9


def test_no_work_gives_no_result() -> None:
    assert Threads(2).map(str, []) == []


def test_error_of_a_piece_is_raised_after_the_others_have_ended() -> None:
    threads = Threads(2)
    for bad in range(6):

        def work(item: int, bad: int = bad) -> int:
            if item == bad:
                msg = f"piece {item}"
                raise ValueError(msg)
            return item

        with pytest.raises(ValueError, match=f"piece {bad}"):
            threads.map(work, range(6))
    assert threads.map(str, range(3)) == ["0", "1", "2"]


def test_maps_of_several_callers_share_the_threads() -> None:
    threads, results = Threads(2), {}

    def caller(name: int) -> None:
        results[name] = threads.map(lambda item: item + name, range(50))

    callers = [threading.Thread(target=caller, args=(name,)) for name in range(4)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join(timeout=10)
    assert results == {name: [item + name for item in range(50)] for name in range(4)}


@pytest.mark.parametrize("device", ["cuda:99", "cuda:-1", "tpu", "cuda:one", ""])
def test_absent_device_is_refused(device: str) -> None:
    check_device("cpu")
    with pytest.raises(ParameterError, match=f"device must be cpu, or cuda .*; got {device};"):
        check_device(device)
