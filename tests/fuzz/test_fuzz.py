"""Any bytes on any address: a documented answer, and nothing is stuck. A bounded part; `make fuzz` is the long one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz import drive
from tests.fuzz.inputs import SUBSCRIPTIONS
from tests.fuzz.outdoors import judge
from tests.fuzz.tally import Tally
from tests.life.stage import SUBSCRIPTION, Bridge, bridged

REQUESTS = 800
PLAYS = 250
QUESTIONS = 150
SCRIBBLES = 300


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    """Run a daemon beside a MOOST that is not there."""
    with bridged(tmp_path_factory.mktemp("fuzz"), "http://127.0.0.1:9") as started:
        started.own = next(each for each in SUBSCRIPTIONS if each["id"] == SUBSCRIPTION)
        started.others = tuple(each for each in SUBSCRIPTIONS if each["id"] != SUBSCRIPTION)
        started.start()
        yield started


def test_any_request_is_answered_as_documented_and_nothing_is_stuck(tmp_path: Path) -> None:
    tally = Tally()
    drive.indoor_requests(tmp_path, tally, drive.Tour(count=REQUESTS))
    assert {"202", "401", "404", "415"} <= {answer for _, answer in tally.counts}, "the inputs reach every part"
    assert REQUESTS / 2 < sum(tally.answers("request, signed").values())
    assert tally.fates["settled"] > REQUESTS / 10
    assert {"dead: unreadable", "dead: unknown-topic", "dead: foreign-subscription"} <= set(tally.fates)


def test_bent_messages_go_through_the_core_and_only_what_moost_takes_comes_out() -> None:
    tally = Tally()
    drive.core(tally, drive.Tour(count=PLAYS))
    answers = tally.answers("decode and reduce")
    assert {"calls", "settled", "unreadable"} <= set(answers)
    assert answers["calls"] > PLAYS


def test_schemathesis_finds_every_answer_in_the_document(bridge: Bridge) -> None:
    tally = Tally()
    wanted = {
        (f"schemathesis POST {address}", answer)
        for address in ("/webhooks", "/webhooks/{topic}")
        for answer in ("202", "401")
    }
    for seed in range(0, 100, 10):  # what is drawn depends on which modules are loaded besides
        drive.questions(bridge, tally, drive.Tour(count=QUESTIONS, seed=seed))
        if wanted <= set(tally.counts):
            break
    assert tally.inputs() >= QUESTIONS / 2
    assert set() == wanted - set(tally.counts)
    judge(bridge)


def test_what_is_hardly_http_is_never_a_5xx(bridge: Bridge) -> None:
    tally = Tally()
    drive.scribbles(bridge, tally, drive.Tour(count=SCRIBBLES))
    assert {"202", "400", "404"} <= set(tally.answers("hardly HTTP"))
    judge(bridge)
