"""Given, when, then: what one message leads to, as files that anyone can read and extend.

A file `<kind>/<action>.<what is special>.json` holds

- `about`: one sentence, the claim.
- `settings` (optional): as in the configuration file.
- `directory` (optional): rows as `bridge buildings import` takes them, one JSON object each.
- `given` (optional): the messages before it; their calls are not looked at.
- `when`: the message.
- `then`: `calls` in sending order as `bridge map` prints them, and `notes`: what is counted or said besides.

A message is `{"topic", "received"}` and one of `body` (the JSON itself), `message` (a file under `messages/`, changed
by `with`: merged into it, and `without`: keys left out) or `raw` (the bytes as text). `{"tick": time}` lets time pass.
"""

import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from pydantic_core import from_json

from bridge import directory
from bridge.config import Settings
from bridge.core.messages import Tick
from bridge.core.model import Residence
from bridge.core.vocabulary import ACTIONS, Kind
from bridge.sink import encode
from bridge.source.decode import decode
from bridge.source.topics import Topic, parse
from bridge.store.port import Loaded, Pending
from bridge.worker import Step

HERE: Final = Path(__file__).parent
FILES: Final = sorted(path for kind in Kind for path in (HERE / kind.value).glob("*.json"))
CUSTOMER: Final = "0" * 24

Json = dict[str, Any]


def merged(content: Any, changes: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Return content with changes laid over it, object by object."""
    if not (isinstance(content, dict) and isinstance(changes, dict)):
        return changes
    return {**content, **{key: merged(content.get(key), value) for key, value in changes.items()}}


def bytes_of(message: Json) -> bytes:
    """Return the body of a message as it arrives."""
    if "raw" in message:
        return str(message["raw"]).encode()
    if "body" in message:
        return json.dumps(message["body"]).encode()
    content = json.loads((HERE / "messages" / f"{message['message']}.json").read_text())
    content = merged(content, message.get("with", {}))
    return json.dumps({key: value for key, value in content.items() if key not in message.get("without", ())}).encode()


def residences(rows: list[Json]) -> dict[str, tuple[Residence, ...]]:
    """Return the directory by user."""
    found = directory.read(io.BytesIO("\n".join(json.dumps(row) for row in rows).encode())) if rows else ()
    return {row.user: tuple(each for each in found if each.user == row.user) for row in found}


def play(example: Json) -> Json:
    """Play an example; return what came of its last message in the form of `then`."""
    rules = Settings.model_validate(example.get("settings", {})).rules()
    loaded = Loaded(residences=residences(example.get("directory", [])), homes={}, buildings={})
    step = Step(loaded, rules, datetime.max.replace(tzinfo=UTC))  # nothing here asks what time it is
    for number, message in enumerate([*example.get("given", []), example["when"]], start=1):
        for kept in (step.calls, step.notes, step.dead, step.parked, step._lists):
            kept.clear()
        if "tick" in message:
            for building in sorted(step._states):
                step._reduce(building, Tick(now=datetime.fromisoformat(message["tick"])), 0, None)
            continue
        topic = parse(message["topic"])
        assert isinstance(topic, Topic), message["topic"]
        received = datetime.fromisoformat(message["received"])
        body = bytes_of(message)
        row = Pending(id=number, subscription=topic.subscription, topic=str(topic), body=body, received=received)
        step.take(row, decode(topic, body, number=number, received=received, rules=rules))
    return {"calls": calls(step), "notes": notes(step)}


def calls(step: Step) -> list[Json]:
    """Return what would be sent to MOOST."""
    wires = [wire for outgoing in step.calls for wire in encode.calls(outgoing.call, CUSTOMER)]
    bodies = [from_json(wire.body) if wire.body is not None else None for wire in wires]
    return [{"method": wire.method, "path": wire.path, "body": body} for wire, body in zip(wires, bodies, strict=True)]


def notes(step: Step) -> list[str]:
    """Return what is counted or said."""
    found = [f"{reason.value}: {detail}" for _, reason, detail in step.dead]
    found += [f"parked: {user}" for _, user in step.parked]
    return found + [f"{note.name}: {note.detail}" if note.detail else note.name for _, note in step.notes]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_what_is_given_leads_to_what_is_written(path: Path) -> None:
    example = json.loads(path.read_text())
    assert example["then"] == play(example), example["about"]


def test_every_kind_and_action_has_an_example() -> None:
    shown = {json.loads(path.read_text())["when"].get("topic", "").partition(".")[2] for path in FILES}
    assert {f"{kind}.{action}" for kind in Kind for action in ACTIONS[kind]} <= shown


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_file_is_named_after_the_message_that_it_shows(path: Path) -> None:
    example = json.loads(path.read_text())
    topic = example["when"].get("topic") or example["given"][-1]["topic"]
    assert f"{path.parent.name}.{path.stem}".startswith(topic.partition(".")[2])
    assert {"about", "when", "then"} <= set(example) <= {"about", "settings", "directory", "given", "when", "then"}


def test_every_vendor_message_is_shown() -> None:
    used = {
        message["message"]
        for path in FILES
        for example in [json.loads(path.read_text())]
        for message in [*example.get("given", []), example["when"]]
        if "message" in message
    }
    messages = HERE / "messages"
    assert {str(path.relative_to(messages).with_suffix("")) for path in messages.rglob("*.json")} == used
