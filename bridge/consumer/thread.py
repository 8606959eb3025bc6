"""One thread for calls that block, which nobody has to wait for.

An executor's threads are joined when the process ends; a client that cannot say goodbye to a broker that is away would
hold it up for minutes.
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
Job = tuple[asyncio.Future[Any], asyncio.AbstractEventLoop, Callable[[], Any]]

NAME: Final = "kafka"


class Thread:
    """Makes calls one after the other, in the order in which they were asked for."""

    def __init__(self) -> None:
        """Start it."""
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name=NAME, daemon=True).start()

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what a call returns, or raise what it raises."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put((future, loop, lambda: function(*args, **kwargs)))
        return await future

    def end(self) -> None:
        """End after the calls that were asked for."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, loop, call = job
            try:
                result, error = call(), None
            except BaseException as fault:  # noqa: BLE001 - whatever it is, it is the answer
                result, error = None, fault
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(_answer, future, result, error)


def _answer(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
