"""Writes what the pages say of the code, so that they cannot say anything else.

    python -m docs.generate            write the pages anew
    python -m docs.generate --check    name the pages that are out of date; exit code 1 if there are any

Rules:
- A page holds its prose, written by hand. What is generated stands between `<!-- generated: NAME -->` and
  `<!-- end -->`.
- A block has one writer, a function without arguments that returns Markdown. `BLOCKS` lists them.
- The same code gives the same text, whatever the machine, the language and the width of the terminal.
"""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from docs.writers import commands, dependencies, events, http, log, monitoring, settings

DOCS: Final = Path(__file__).parent

BLOCKS: Final[Mapping[str, Callable[[], str]]] = {
    "settings": settings.write,
    "commands": commands.write,
    "addresses": http.addresses,
    "checks": http.checks,
    "metrics": monitoring.metrics,
    "alerts": monitoring.alerts,
    "readings": events.readings,
    "event-types": events.event_types,
    "dead-letter-reasons": events.dead_letter_reasons,
    "log-events": log.write,
    "dependencies": dependencies.write,
}

_BLOCK: Final = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def pages() -> Iterator[Path]:
    """Yield the pages that hold a generated block."""
    for path in sorted(DOCS.rglob("*.md")):
        if _BLOCK.search(path.read_text(encoding="utf-8")):
            yield path


def current(text: str) -> str:
    """Return the text of a page with its blocks written anew. Raises KeyError for a block that nobody writes."""
    return _BLOCK.sub(lambda found: f"{found[1]}\n{BLOCKS[found[2]]().strip()}\n\n{found[3]}", text)


def outdated() -> dict[Path, str]:
    """Return the pages that are out of date, with the text that they should have."""
    wanted = {path: current(path.read_text(encoding="utf-8")) for path in pages()}
    return {path: text for path, text in wanted.items() if path.read_text(encoding="utf-8") != text}


def main(arguments: list[str]) -> int:
    """Write or check the pages; return the exit code."""
    found = outdated()
    for path, text in found.items():
        print(path.relative_to(DOCS.parent))
        if "--check" not in arguments:
            path.write_text(text, encoding="utf-8")
    return 1 if found and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
