"""What tests of commands share."""

from collections.abc import Iterator

import pytest

from tests.support_commands import Launch, launcher


@pytest.fixture
def launch() -> Iterator[Launch]:
    """Return what starts a command: `launch("stream-producer", ...)`; killed after the test."""
    with launcher() as start:
        yield start
