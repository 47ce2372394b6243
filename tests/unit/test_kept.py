"""Answers that are given again: how old they get, how many are made, one at a time."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from stream.kept import Kept


def test_answer_is_made_again_once_it_is_old() -> None:
    now_s, made = [0.0], list[str]()
    kept = Kept(0.5, lambda: now_s[0])

    def make(asked: str) -> int:
        made.append(asked)
        return len(made)

    assert [kept.get("a", make), kept.get("a", make), kept.get("b", make)] == [1, 1, 2]
    now_s[0] = 0.49
    assert kept.get("a", make) == 1
    now_s[0] = 0.5
    assert kept.get("a", make) == 3


def test_of_many_variants_a_few_are_made_and_the_plain_one_for_all_others() -> None:
    kept = Kept(1.0, lambda: 0.0)
    found = [kept.get("a", str.upper, f"v{k}") for k in range(9)]
    assert found == ["V0", "V1", "V2", "V3", *[""] * 5]
    assert kept.get("a", str.upper, "v2") == "V2"
    assert kept.get("b", str.upper, "v7") == "V7"


def test_one_is_made_at_a_time_and_those_who_wait_get_it() -> None:
    kept, at_once, most = Kept(60.0, time.monotonic), threading.Semaphore(1), list[bool]()

    def make(_: str) -> int:
        most.append(at_once.acquire(blocking=False))
        time.sleep(0.02)
        at_once.release()
        return len(most)

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(lambda _: kept.get("a", make), range(50))) == {1}
    assert most == [True]


def test_what_could_not_be_made_is_tried_again() -> None:
    kept = Kept(60.0, time.monotonic)
    with pytest.raises(ZeroDivisionError):
        kept.get("a", lambda _: 1 // 0)
    assert kept.get("a", lambda _: 1) == 1
