"""Whether the process lives through a piece of work, found out by a copy of it.

Rules:
- The copy computes and ends: it writes nothing, opens nothing and runs no loop.
- Where memory runs out the system ends the copy first, and the copy ends with the process that made it.
- Only for a message that was in hand when the process ended twice. It tells one that needs more memory than there is
  from one that happened to be there when somebody ended the process.

The copy has one thread, and this process has several: what another thread holds stays held in the copy. Decoding and
reducing take no lock but those of memory and of the interpreter, which the system and the interpreter make anew.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

LONGEST_S: Final = 30.0
"""A copy that takes longer is ended, and has not lived through it."""

_LOOK_S: Final = 0.01
_END_WITH_PARENT: Final = 1  # Linux' number for it, PR_SET_PDEATHSIG


async def survives(work: Callable[[], object]) -> bool:
    """Tell whether a copy of this process lives through some work; an exception is no end."""
    parent = os.getpid()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a copy of a process with threads, see above
        copy = os.fork()
    if not copy:
        _try(work, parent)
    ends, status = time.monotonic() + LONGEST_S, None
    try:
        while status is None and time.monotonic() < ends:
            await asyncio.sleep(_LOOK_S)
            status = _status(copy)
    finally:
        if status is None:
            os.kill(copy, signal.SIGKILL)
            _status(copy, options=0)
    return status == 0


def _status(copy: int, options: int = os.WNOHANG) -> int | None:
    """Return how a copy has ended; None = it has not."""
    ended, status = os.waitpid(copy, options)
    return status if ended else None


def _try(work: Callable[[], object], parent: int) -> NoReturn:
    """Do the work in the copy, and end it."""
    try:
        signal.set_wakeup_fd(-1)
        ctypes.CDLL(None).prctl(_END_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")
        with contextlib.suppress(Exception):
            work()
    finally:
        os._exit(0)
