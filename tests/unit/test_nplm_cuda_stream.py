"""Streams behind the engines', with a stand-in for CUDA's."""

import threading
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch

from engines.nplm.cuda_stream import BackgroundStream


class FakeStream:
    made: list["FakeStream"]

    def __init__(self, _: torch.device, priority: int) -> None:
        self.priority, self.waits = priority, 0
        self.made.append(self)

    def synchronize(self) -> None:
        self.waits += 1


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[FakeStream]:
    def enter(_: FakeStream) -> AbstractContextManager[None]:
        return nullcontext()

    FakeStream.made = []
    monkeypatch.setattr(torch.cuda, "Stream", FakeStream)
    monkeypatch.setattr(torch.cuda, "stream", enter)
    return FakeStream.made


def test_on_the_cpu_nothing_changes(made: list[FakeStream]) -> None:
    with BackgroundStream(torch.device("cpu")).work():
        pass
    assert not made


def test_each_thread_has_one_stream_of_least_priority_and_waits_for_it(
    made: list[FakeStream],
) -> None:
    background = BackgroundStream(torch.device("cuda"))

    def test_windows() -> None:
        for _ in range(3):
            with background.work(), background.work():
                pass

    test_windows()
    other = threading.Thread(target=test_windows)
    other.start()
    other.join()
    assert [stream.priority for stream in made] == [0, 0]
    assert [stream.waits for stream in made] == [6, 6]
