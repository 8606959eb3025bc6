"""The fields of a request's header, as the checks read them.

Rules:
- Names are in lower case, blanks around a value are no part of it.
- A signature that stands in two lines counts as both values. Of any other field that comes twice the last one counts.
- A `ce-` field is an attribute of a CloudEvent: a quoted string is unquoted, then percent-decoded once.

Source: RFC 9110 sections 5.3 and 5.5 (lines of one name are a list, blanks around a value); CloudEvents 1.0 "HTTP
Protocol Binding", section 3.1.3.2 (HTTP header values).
"""

import re
from collections.abc import Collection, Sequence
from typing import Final
from urllib.parse import unquote

from bridge.source.signature import Headers

_BLANK: Final = b" \t"
_ATTRIBUTE: Final = b"ce-"
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)


def fields(raw: Sequence[tuple[bytes, bytes]], signatures: Collection[bytes]) -> Headers:
    """Return the fields of a header; `signatures` are the names of those that carry signatures."""
    found = {name: value.strip(_BLANK) for name, value in raw}
    if len(found) < len(raw):
        for signature in found.keys() & signatures:
            found[signature] = b", ".join(value.strip(_BLANK) for name, value in raw if name == signature)
    return found


def first(names: Sequence[bytes], headers: Headers) -> str | None:
    """Return the first of some fields that is there and says something."""
    for name in names:
        value = headers.get(name)
        if value:
            return attribute(value) if name.startswith(_ATTRIBUTE) else value.decode(errors="replace")
    return None


def attribute(value: bytes) -> str:
    """Return the attribute of a CloudEvent that a field holds."""
    text = value.decode(errors="replace")
    if len(text) > 1 and text.startswith('"') and text.endswith('"'):
        text = _ESCAPE.sub(r"\1", text[1:-1])
    return unquote(text, errors="replace")
