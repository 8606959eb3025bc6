"""The way of a message through decode and the core, many messages and quarter hours one after the other.

What comes out must be what MOOST takes: each call passes the last check before the wire, and a state is the same after
it was stored.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

from hypothesis import strategies as st

from bridge.core.effects import ChangeBuilding, CreateBuilding, PutDevices, SendEvents
from bridge.core.messages import Tick
from bridge.core.rules import Rules
from bridge.core.vocabulary import DeadReason
from bridge.sink import encode, validate
from bridge.source.topics import Topic, parse
from bridge.store.codec import decode_call, decode_state, encode_call, encode_state, form
from bridge.store.port import Loaded, Outgoing, Pending
from bridge.worker import Step
from bridge.worker.step import read
from tests.fuzz.indoors import SETTINGS
from tests.fuzz.inputs import NAMES, messages
from tests.fuzz.tally import Tally

CUSTOMER: Final = "0" * 24
BEGIN: Final = datetime(2026, 6, 15, 9, 58, tzinfo=UTC)
MOST_STEPS: Final = 8
RULES: Final[Rules] = SETTINGS.rules()

plays = st.lists(
    st.tuples(st.sampled_from(NAMES), messages(), st.sampled_from([0, 1, 61, 900, 1_800, 90_000])),
    min_size=1,
    max_size=MOST_STEPS,
)
"""Who says what, and how much time passes afterwards [s]."""


def play(said: list[tuple[str, tuple[str, bytes], int]], tally: Tally) -> None:
    """Let messages and time pass through the core; check all that comes out."""
    step = Step(Loaded(residences={}, homes={}, buildings={}), RULES, BEGIN)
    now = BEGIN
    for number, (subscription, (name, body), pause) in enumerate(said, start=1):
        topic = parse(f"{subscription}.{name}")
        assert isinstance(topic, Topic)
        row = Pending(id=number, subscription=subscription, topic=str(topic), body=body, received=now)
        dead, calls = len(step.dead), len(step.calls)
        step.take(row, read(row, RULES))
        found = step.dead[dead:]
        assert all(reason is not DeadReason.FAULT for _, reason, _ in found)
        fate = found[0][1].value if found else "calls" if len(step.calls) > calls else "settled"
        tally.add("decode and reduce", fate)
        now += timedelta(seconds=pause)
        if pause:
            for building in sorted(step._states):
                step._reduce(building, Tick(now=now), 0, None)
    for state in step._states.values():
        assert state == decode_state(encode_state(state))
    for outgoing in step.calls:
        leaves(outgoing)


def leaves(outgoing: Outgoing) -> None:
    """Check that a call may leave as it is."""
    call = outgoing.call
    assert call == decode_call(form(call), encode_call(call))
    match call:
        case CreateBuilding() | ChangeBuilding():
            assert validate.building(call) is None
        case PutDevices():
            assert validate.devices(call) is None
        case SendEvents():
            for event in call.events:
                assert validate.event(encode.event(event, call.building, CUSTOMER), battery_soc=True) is None
    assert encode.calls(call, CUSTOMER)
