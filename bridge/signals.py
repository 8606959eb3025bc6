"""SIGTERM, SIGINT and SIGHUP, from the first line of the program on.

Rules:
- `catch` runs before anything else is imported: as process 1 of a container a signal without a handler is lost.
- Until a command begins its work there is nothing to finish: the process ends at once.
- A command at work is broken off as by ctrl-C, and what it has not committed is undone. Where that takes longer than
  `PATIENCE_S`, the process ends all the same: every store survives that.
- The daemon, the demo and the sandbox take their signals over themselves. A SIGHUP that came before that is kept for
  the daemon.
"""

import os
import signal
import sys

TYPE_CHECKING = False  # importing `typing` for it would take as long as the rest of this file
if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from types import FrameType
    from typing import Final

PATIENCE_S: "Final" = 5.0  # for a command to break off: a container is killed 10 s after it was told to end
SERVING: "Final" = ("serve", "demo", "sandbox")  # commands that run until they are told to end: then they end with 0
DONE, BROKEN_OFF = 0, 1

_hung_up = False
_caught = False


def catch() -> None:
    """Handle the signals until a command takes them over."""
    global _caught  # noqa: PLW0603 - signals belong to the process
    _caught = True
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    if sys.argv[1:2] == ["serve"]:
        signal.signal(signal.SIGHUP, _remember)


def caught() -> bool:
    """Return whether this is the program itself: it was started by `bridge.__main__`."""
    return _caught


def break_off_by_signal() -> None:
    """Let SIGTERM break a command off as SIGINT does; nothing where `catch` has not run, as in another program."""
    if _caught:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, _break_off)


def end_broken_off() -> None:
    """End a command that was broken off, without waiting for a thread that still hangs; nothing without `catch`."""
    if _caught:
        os._exit(BROKEN_OFF)


def hung_up() -> bool:
    """Return whether a SIGHUP came before the daemon handled it."""
    return _hung_up


def end_by(seconds: float, code: int, last: "Callable[[], object]" = lambda: None) -> "threading.Timer":
    """End the process with a code after a time, whatever it does then; `last` is called just before."""
    import threading  # noqa: PLC0415 - not before the signals are handled

    def end() -> None:
        try:
            last()
        finally:
            os._exit(code)

    watchdog = threading.Timer(max(0.0, seconds), end)
    watchdog.daemon = True
    watchdog.start()
    return watchdog


def _end(_number: int, _frame: "FrameType | None") -> None:
    """End at once: nothing has begun."""
    os._exit(DONE if sys.argv[1:2] and sys.argv[1] in SERVING else BROKEN_OFF)


def _remember(_number: int, _frame: "FrameType | None") -> None:
    global _hung_up  # noqa: PLW0603 - signals belong to the process
    _hung_up = True


def _break_off(number: int, frame: "FrameType | None") -> None:
    """Do what SIGINT does now: asyncio has a handler of its own while it runs."""
    end_by(PATIENCE_S, BROKEN_OFF)
    handler = signal.getsignal(signal.SIGINT)
    if callable(handler):
        handler(number, frame)
