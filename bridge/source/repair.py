"""Reading JSON into a wire model so that a field of the wrong type costs nothing but itself.

Rules:
- What fits is read at once; only a body with a flaw is looked at field by field.
- A field of the wrong type becomes null and is named, never with its value.
- A finite decimal in a string is that number, "true" and "false" are that flag, and the field is named (M0.9).
- A lone surrogate escape is grammatical JSON that most readers refuse; the values around it are good.
- Without JSON, an object or an id there is nothing to read: `NotUnderstood` says which. The same where nearly
  everything is of the wrong type.
"""

import json
import math
import re
from typing import Any, Final, TypeVar

import pydantic_core
from pydantic import BaseModel, ValidationError

from bridge.source.bounds import FLAWS, NotUnderstood

MOST_ROUNDS: Final = 3  # everything may be null, so that the second one fits

_HALF: Final = re.compile("[\ud800-\udfff]")
_DECIMAL: Final = re.compile(r"\s*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?\s*")
_FLAGS: Final = {"true": True, "false": False}
_LONGEST: Final = 100  # characters of a number

T = TypeVar("T", bound=BaseModel)
Place = tuple[int | str, ...]


def parse(model: type[T], body: bytes) -> tuple[T, tuple[str, ...]]:
    """Return what a body says, and which fields were of the wrong type; raises NotUnderstood."""
    try:
        return model.model_validate_json(body), ()
    except ValidationError:
        return _repaired(model, body)


def _repaired(model: type[T], body: bytes) -> tuple[T, tuple[str, ...]]:
    """Read a body with the fields that do not fit set to null."""
    content = _content(body)
    if not isinstance(content, dict):
        raise NotUnderstood("the body is not a JSON object")
    odd: dict[str, None] = {}  # in order, each once
    for _ in range(MOST_ROUNDS):
        try:
            return model.model_validate(content), tuple(odd)
        except ValidationError as error:
            if error.error_count() > FLAWS:  # each would become an object
                raise NotUnderstood(f"over {FLAWS} fields are of the wrong type") from None
            flaws = _flaws(content, error)
        for place, wanted in flaws.items():
            if place in {("id",), ()}:
                raise NotUnderstood("the message has no usable id")
            meant = _meant(content, place, wanted)
            how = "wrong type" if meant is None else f"a {wanted} in a string"
            odd[f"{_spelled(place)}: {how}"] = None
            _put(content, place, meant)
    raise NotUnderstood("too many fields are of the wrong type")


def _content(body: bytes) -> object:
    """Return the JSON of a body; half a character (a lone surrogate escape) becomes NUL, which no name may hold."""
    try:
        return pydantic_core.from_json(body)
    except ValueError:
        pass
    try:
        text = json.dumps(json.loads(body), ensure_ascii=False)
        return pydantic_core.from_json(_HALF.sub(r"\\u0000", text))
    except (ValueError, RecursionError):
        raise NotUnderstood("the body is not valid JSON") from None


_WANTED: Final = {"float_type": "number", "bool_type": "flag"}


def _flaws(content: object, error: ValidationError) -> dict[Place, str | None]:
    """Return where the flaws are, each place once, and whether a number or a flag is wanted there."""
    flaws = error.errors(include_url=False, include_context=False, include_input=False)
    return {_within(content, flaw["loc"]): _WANTED.get(flaw["type"]) for flaw in flaws}


def _meant(content: Any, place: Place, wanted: str | None) -> float | bool | None:  # noqa: ANN401 - whatever JSON holds
    """Return the number or flag that a string spells; None = it spells none."""
    for step in place:
        content = content[step]
    if wanted is None or not isinstance(content, str) or len(content) > _LONGEST:
        return None
    if wanted == "flag":
        return _FLAGS.get(content.strip().lower())
    number = float(content) if _DECIMAL.fullmatch(content) else math.inf
    return number if math.isfinite(number) else None


def _within(content: Any, place: Place) -> Place:  # noqa: ANN401 - whatever JSON holds
    """Return the part of an error's place that exists in the content (union errors append the tried type)."""
    found: list[int | str] = []
    for step in place:
        try:
            content = content[step]
        except (TypeError, LookupError):
            break
        found.append(step)
    return tuple(found)


def _spelled(place: Place) -> str:
    """Return a place for people; positions in arrays are left out, so that the counters stay few."""
    return ".".join(step for step in place if isinstance(step, str))


def _put(content: Any, place: Place, value: float | bool | None) -> None:  # noqa: ANN401, FBT001 - whatever JSON holds
    """Set one place to a value."""
    for step in place[:-1]:
        content = content[step]
    content[place[-1]] = value
