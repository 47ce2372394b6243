"""Who goes first when there are fewer cores than threads that want one: the stream."""

import os
import sys
import threading

__all__ = ["let_stream_pass", "step_back"]

_NICENESS = 10
_SWITCH_S = 1e-3


def step_back() -> None:
    """Let the system prefer other threads to this one, and to those that it starts; Linux only."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


def let_stream_pass() -> None:
    """Have the interpreter change threads soon; a test could hold a message up for 5 ms."""
    sys.setswitchinterval(_SWITCH_S)
