"""The few ways to fail, each one sentence that a person on call can act on.

Rules:
- The text of an error is for people: no traceback, no value of a secret, no name of a household.
- Expected failures (a refused call, an unreadable message) are values, not exceptions; these here end a command or
  the process.
"""

from collections.abc import Sequence


class BridgeError(Exception):
    """The bridge cannot go on; the text says why, in one sentence."""


class UsageError(BridgeError):
    """A command was asked for something that it cannot do; ends with exit code 2."""


class ConfigErrors(BridgeError):  # noqa: N818 - it holds all of them
    """Everything that is wrong with the configuration, one line `section.key: problem` each; ends with exit code 2."""

    def __init__(self, problems: Sequence[str]) -> None:
        """Keep the problems in the order in which an operator reads the file."""
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def place_of(fault: BaseException) -> str:
    """Return the type of a fault and where it was raised; never a value, which could be personal or secret (R12)."""
    trace = fault.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return type(fault).__name__
    code = trace.tb_frame.f_code
    return f"{type(fault).__name__} in {code.co_qualname} line {trace.tb_lineno}"
