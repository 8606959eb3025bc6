"""MOOST's OpenAPI document, made usable: which call is meant, and is what came with it valid.

Rules:
- The document is the law: paths, parameters and schemas are taken from it, never written down twice.
- OpenAPI 3.0 schemas are JSON Schema Draft 4 apart from `nullable`, which is translated once at the start.
- The published pattern of `access_token` is not enforced anywhere: it contradicts the published tokens.

Source: MOOST OpenAPI 3.0.3 (token, live event and historical event fragments as published; buildings and devices
reconstructed from the endpoint table and marked `x-derived`), packaged as `moost-openapi.json`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final
from urllib.parse import parse_qs

import jsonschema_rs

_SLOT: Final = re.compile(r"\{(\w+)\}")
_MOST_PROBLEMS: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path: how to recognise it and how to check it."""

    id: str
    method: str
    template: str
    pattern: re.Pattern[str]
    path_rules: Mapping[str, re.Pattern[str]]
    query_schemas: Mapping[str, Mapping[str, Any]]
    body: jsonschema_rs.Draft4Validator | None

    def problems(self, value: object) -> dict[str, str]:
        """Return what is wrong with a body: place -> sentence."""
        if self.body is None or self.body.is_valid(value):
            return {}
        found: dict[str, str] = {}
        for error in self.body.iter_errors(value):
            found.setdefault(_place(error.instance_path), error.message)
            if len(found) == _MOST_PROBLEMS:
                break
        return found

    def misplaced(self, names: Mapping[str, str]) -> dict[str, str]:
        """Return what is wrong with the path parameters: name -> sentence."""
        return {
            name: f"does not match {self.path_rules[name].pattern}"
            for name, value in names.items()
            if name in self.path_rules and not self.path_rules[name].fullmatch(value)
        }

    def query(self, raw: bytes) -> dict[str, str]:
        """Return the documented query parameters of a call; an undocumented one is ignored."""
        given = parse_qs(raw.decode("latin-1"), keep_blank_values=True)
        return {name: given[name][0] for name in self.query_schemas if name in given}


class Document:
    """All operations of the look-alike."""

    def __init__(self) -> None:
        """Read and compile the packaged document."""
        self.raw: Final[dict[str, Any]] = json.loads(
            resources.files("bridge.sandbox").joinpath("moost-openapi.json").read_text(encoding="utf-8"),
        )
        self._components: Final[Any] = translate(self.raw["components"])
        self.operations: Final[tuple[Operation, ...]] = tuple(
            self._operation(template, method, item)
            for template, path in self.raw["paths"].items()
            for method, item in path.items()
            if method != "parameters"
        )
        self._plain: Final = {(one.template, one.method): one for one in self.operations if "{" not in one.template}
        self._templated: Final = tuple(one for one in self.operations if "{" in one.template)
        self._paths: Final = {one.template for one in self.operations}

    def find(self, method: str, path: str) -> tuple[Operation, Mapping[str, str]] | None:
        """Return the operation a request means, with its path parameters."""
        plain = self._plain.get((path, method))
        if plain is not None:
            return plain, {}
        for one in self._templated:
            match = one.pattern.fullmatch(path)
            if match is not None and one.method == method and path not in self._paths:
                return one, match.groupdict()
        return None

    def knows(self, path: str) -> bool:
        """Say whether any method exists for a path."""
        return any(one.pattern.fullmatch(path) for one in self.operations)

    def _operation(self, template: str, method: str, item: Mapping[str, Any]) -> Operation:
        """Compile one operation."""
        parameters = [self._resolve(one) for one in item.get("parameters", [])]
        parameters += [self._resolve(one) for one in self.raw["paths"][template].get("parameters", [])]
        content = item.get("requestBody", {}).get("content", {})
        schema = content.get("application/json", {}).get("schema")
        return Operation(
            id=item["operationId"],
            method=method.upper(),
            template=template,
            pattern=re.compile(_SLOT.sub(r"(?P<\1>[^/]+)", template)),
            path_rules={
                one["name"]: re.compile(one["schema"]["pattern"])
                for one in parameters
                if one["in"] == "path" and "pattern" in one["schema"]
            },
            query_schemas={one["name"]: one["schema"] for one in parameters if one["in"] == "query"},
            body=None if schema is None else self._validator(schema),
        )

    def _resolve(self, parameter: Mapping[str, Any]) -> Mapping[str, Any]:
        """Follow a reference to a shared parameter."""
        if "$ref" not in parameter:
            return parameter
        found: Mapping[str, Any] = self.raw["components"]["parameters"][parameter["$ref"].rsplit("/", 1)[1]]
        return found

    def _validator(self, schema: object) -> jsonschema_rs.Draft4Validator:
        """Compile a schema; its references point into the document's components."""
        return jsonschema_rs.Draft4Validator({"allOf": [translate(schema)], "components": self._components})


def translate(schema: object) -> object:
    """Return an OpenAPI 3.0 schema as JSON Schema Draft 4: `nullable` becomes a second type."""
    match schema:
        case dict():
            changed = {key: translate(value) for key, value in schema.items() if key != "nullable"}
            if schema.get("nullable") is True and isinstance(schema.get("type"), str):
                changed["type"] = [schema["type"], "null"]
            return changed
        case list():
            return [translate(value) for value in schema]
        case _:
            return schema


def _place(path: Sequence[str | int]) -> str:
    """Return where an error is, as `[3].deviceId`."""
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return place.lstrip(".") or "body"
