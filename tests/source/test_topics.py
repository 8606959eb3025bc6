"""Names of messages: what exists, what does not, and that nothing raises."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.vocabulary import ACTIONS, Action, Kind
from bridge.source.topics import Topic, UnknownTopic, exists, parse, subscription_of

EVERY = [(kind, action) for kind, actions in ACTIONS.items() for action in sorted(actions)]


@pytest.mark.parametrize(("kind", "action"), EVERY)
def test_every_topic_of_the_table_is_known_by_its_name(kind: Kind, action: Action) -> None:
    topic = Topic(subscription="sub-1", kind=kind, action=action)
    assert topic == parse(f"sub-1.{kind.value}.{action.value}")
    assert str(topic) == f"sub-1.{kind.value}.{action.value}"


def test_an_action_may_contain_a_dot() -> None:
    assert Topic(subscription="s", kind=Kind.TARIFF, action=Action.PRICE_UPDATE) == parse("s.tariff.price.update")
    assert Topic(subscription="s", kind=Kind.HVAC, action=Action.SCHEDULES_UPDATE) == parse("s.hvac.schedules.update")


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("", "subscription"),
        (".vehicle.update", "subscription"),
        ("sub-1", "kind"),
        ("sub-1.", "kind"),
        ("sub-1.toaster.update", "kind"),
        ("sub-1.Vehicle.update", "kind"),
        ("sub-1.vehicle", "action"),
        ("sub-1.vehicle.", "action"),
        ("sub-1.vehicle.explode", "action"),
        ("sub-1.vehicle.update.again", "action"),
        ("sub-1.vehicle.price.update", "vehicle has no action price.update"),
        ("sub-1.battery.command", "battery has no action command"),
    ],
)
def test_a_name_that_means_nothing_says_which_part_is_wrong(name: str, word: str) -> None:
    topic = parse(name)
    assert isinstance(topic, UnknownTopic)
    assert word in topic.detail


@given(st.text() | st.lists(st.sampled_from([*Kind, *Action, "x", ""])).map(".".join))
def test_any_text_is_a_topic_or_an_unknown_one_and_both_ways_of_asking_agree(name: str) -> None:
    topic = parse(name)
    assert exists(name) == isinstance(topic, Topic)
    if isinstance(topic, Topic):
        assert name == str(topic)
        assert topic.subscription == subscription_of(name)
