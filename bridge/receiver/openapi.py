"""What the webhook addresses look like in the OpenAPI document; plain routes are not in it by themselves."""

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]


def webhook_paths() -> dict[str, Schema]:
    """Return the path items of `/webhooks/{topic}` and `/webhooks`."""
    topic = {
        "name": "topic",
        "in": "path",
        "required": True,
        "description": "`<subscriptionId>.<kind>.<action>`, such as `acme.vehicle.update`.",
        "schema": {"type": "string", "minLength": 1, "pattern": "^[^/]+$"},
    }
    one_topic = "One message (object), or up to 1,000 (array), of the topic in the path."
    own_topics = (
        "As `/webhooks/{topic}` with the topic in a header; or each message in an envelope `{topic, data}`, or as a "
        "structured CloudEvent (`type`, `data`)."
    )
    header = {"name": "x-topic", "in": "header", "required": False, "schema": {"type": "string"}}
    return {
        "/webhooks/{topic}": {
            "get": _get("show_topic", [topic]),
            "post": _post("receive_topic", one_topic, topic),
            "options": _options("handshake_topic", [topic]),
        },
        "/webhooks": {
            "get": _get("show", []),
            "post": _post("receive", own_topics, header),
            "options": _options("handshake", []),
        },
    }


def component_schemas() -> dict[str, Schema]:
    """Return the schemas that the path items refer to."""
    count = {"type": "integer", "minimum": 0}
    return {
        "Error": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}},
        "Challenge": {
            "type": "object",
            "required": ["challenge"],
            "additionalProperties": False,
            "properties": {"challenge": {"type": "string", "pattern": "^[0-9a-f]{64}$"}},
        },
        "Taken": {
            "type": "object",
            "required": ["accepted", "duplicates", "dead", "ids"],
            "additionalProperties": False,
            "properties": {
                "accepted": {**count, "description": "Messages newly stored, the dead among them."},
                "duplicates": {**count, "description": "Messages that were stored before."},
                "dead": {**count, "description": "Messages that the door could not read; kept as dead letters."},
                "ids": {"type": "array", "maxItems": 100, "items": {"type": "integer"}},
            },
        },
    }


def _post(name: str, description: str, parameter: Schema) -> Schema:
    message = {"type": "object"}
    body = {"oneOf": [message, {"type": "array", "maxItems": 1000, "items": message}]}
    return {
        "operationId": name,
        "summary": "Take messages; they are durable when the answer is 202.",
        "description": description,
        "parameters": [parameter],
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {
            "200": _answer("The signed body was a handshake (Smartcar's VERIFY); nothing is stored.", "Challenge"),
            "202": _answer("The messages are stored durably.", "Taken"),
            "400": _answer("Not HTTP.", "Error"),
            "401": _answer("Not signed, or not with a secret of the subscription.", "Error"),
            "403": _answer("The address is outside the subscription's networks.", "Error"),
            "404": _answer("No such subscription.", "Error"),
            "408": _answer("The header or body took too long.", "Error"),
            "413": _answer("The body is too large; the connection closes.", "Error"),
            "415": _answer("Not JSON, or encoded.", "Error"),
            "429": _answer("Too many messages per second.", "Error", waits=True),
            "431": _answer("The header is too large.", "Error"),
            "503": _answer("Not now: draining, too full, or the store cannot serve.", "Error", waits=True),
        },
    }


def _answer(description: str, schema: str, *, waits: bool = False) -> Schema:
    answer: dict[str, Any] = {
        "description": description,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}},
    }
    if waits:
        answer["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}}
    return answer


def _get(name: str, parameters: list[Schema]) -> Schema:
    shown = {"type": "object", "required": ["webhook"], "properties": {"webhook": {"type": "string"}}}
    return {
        "operationId": name,
        "summary": "Whether this is a webhook's address; messages are posted.",
        "parameters": parameters,
        "responses": {
            "200": {"description": "It is.", "content": {"application/json": {"schema": shown}}},
            "404": _answer("No such subscription.", "Error"),
        },
    }


def _options(name: str, parameters: list[Schema]) -> Schema:
    return {
        "operationId": name,
        "summary": "CloudEvents web-hook handshake.",
        "parameters": parameters,
        "responses": {
            "200": {"description": "Posting is allowed, as often as `WebHook-Allowed-Rate` says (requests per minute)."}
        },
    }
