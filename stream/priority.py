"""Who goes first when there are fewer cores than threads that want one: the stream."""

import contextlib
import ctypes
import os
import platform
import struct
import sys
import threading

__all__ = ["let_stream_pass", "step_back"]

_NICENESS = 19
_SWITCH_S = 1e-3
_SLICE_NS = 100_000
#: Number of the system call sched_setattr by processor, and its struct of the first version.
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")


def step_back() -> None:
    """Let the system prefer other threads to this one, and to those that it starts; Linux only.

    A system that does not allow it is left as it is.
    """
    if sys.platform == "linux":
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


def let_stream_pass() -> None:
    """Keep threads that wait for a core or for the interpreter from waiting long.

    A thread of a test could otherwise hold a message up for 5 ms in the interpreter, and for a
    time slice of about 3 ms on a core. Slices of 0.1 ms hold for all threads started later; Linux
    before 6.12 and other systems know only their own.

    Source: https://docs.kernel.org/scheduler/sched-eevdf.html
    """
    sys.setswitchinterval(_SWITCH_S)
    number = _SCHED_SETATTR.get(platform.machine())
    if sys.platform == "linux" and number is not None:
        policy, flags, nice, priority = os.SCHED_OTHER, 0, os.getpriority(os.PRIO_PROCESS, 0), 0
        wanted = _ATTRIBUTES.pack(_ATTRIBUTES.size, policy, flags, nice, priority, _SLICE_NS, 0, 0)
        ctypes.CDLL(None).syscall(number, 0, wanted, 0)  # a refusal changes nothing
