"""The program: `moost-bridge`, `bridge` and `python -m bridge`.

Signals are handled before anything else is imported.
"""

from bridge import signals


def main() -> None:
    """Run the command line and end the process with its exit code."""
    signals.catch()
    from bridge import cli  # noqa: PLC0415 - takes some tenths of a second, in which a signal may come

    cli.main()


if __name__ == "__main__":
    main()
