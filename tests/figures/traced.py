"""Runs a command of the bridge and notes, while it is told to, which functions call which and what objects are made.

    python tests/figures/traced.py TREE COMMAND…      run it with that checkout of the code

What it is told comes on standard input, one word a line. It answers by one line of JSON on standard output: to `start`,
which clears the notes and begins, `{}`; to `stop`, which ends, `hops` ([file, file, how often]) and `made` ([class, how
often]).

A hop is a call of a function in a file from a function in another file of the bridge, with at most library code between
them. That the event loop goes on with a task is none.
"""

import json
import runpy
import sys
import threading
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

LOOPS: Final = ("asyncio/runners.py", "asyncio/base_events.py", "asyncio/events.py", "threading.py")


class Notes:
    """What was seen since the start."""

    def __init__(self, package: Path) -> None:
        """Look only at the files of a package."""
        self.active = False
        self.hops = Counter[tuple[str, str]]()
        self.made = Counter[str]()
        self._package = f"{package}/"
        self._name = f"{package.name}."
        self._files: dict[CodeType, str | None] = {}

    def see(self, frame: FrameType, event: str, _argument: object) -> None:
        """Note one event of the profiler."""
        if not self.active or event != "call":
            return
        code = frame.f_code
        if code.co_name in ("__init__", "<lambda>"):
            self._note_object(frame)
        here = self._file(code)
        if here is None:
            return
        there = self._caller(frame)
        if there is not None and there != here:
            self.hops[there, here] += 1

    def take(self) -> dict[str, Any]:
        """Return what was noted."""
        return {
            "hops": [[*edge, count] for edge, count in sorted(self.hops.items())],
            "made": sorted(map(list, self.made.items())),
        }

    def _note_object(self, frame: FrameType) -> None:
        """Note that an object is made: `__init__`, or the `__new__` of a named tuple."""
        if frame.f_code.co_name == "__init__":
            kind: object = type(frame.f_locals.get("self"))
        else:
            kind = frame.f_locals.get("_cls")
        module = getattr(kind, "__module__", "")
        if isinstance(kind, type) and module.startswith(self._name):
            self.made[f"{module}.{kind.__qualname__}"] += 1

    def _file(self, code: CodeType) -> str | None:
        """Return a file of the bridge by its path within the package; None for any other."""
        if code not in self._files:
            name = code.co_filename
            self._files[code] = name.removeprefix(self._package) if name.startswith(self._package) else None
        return self._files[code]

    def _caller(self, frame: FrameType) -> str | None:
        """Return the file of the nearest caller that is the bridge's; None if it is the event loop that calls."""
        above = frame.f_back
        while above is not None:
            if (found := self._file(above.f_code)) is not None:
                return found
            if above.f_code.co_filename.endswith(LOOPS):
                return None
            above = above.f_back
        return None


def listen(notes: Notes) -> None:
    """Do what standard input says."""
    for line in sys.stdin:
        if line.strip() == "start":
            notes.hops.clear()
            notes.made.clear()
            notes.active = True
            print("{}", flush=True)
        else:
            notes.active = False
            print(json.dumps(notes.take()), flush=True)


def main() -> None:
    """Run the command."""
    tree = Path(sys.argv[1]).resolve()
    sys.path.insert(0, str(tree))
    notes = Notes(tree / "bridge")
    threading.Thread(target=listen, args=(notes,), daemon=True).start()
    threading.setprofile(notes.see)
    sys.setprofile(notes.see)
    sys.argv[:] = ["bridge", *sys.argv[2:]]
    runpy.run_module("bridge", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
