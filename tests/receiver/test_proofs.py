"""What a stranger may cost by failing, and that a right secret never waits for it."""

import asyncio
import hashlib
import hmac
import threading
from collections.abc import Callable
from typing import Any

import pytest

from bridge.config import Subscription
from bridge.limits import Limit
from bridge.receiver.aside import Aside
from bridge.receiver.callers import Callers
from bridge.receiver.checks import Guard, Policy
from bridge.receiver.proofs import (
    ALWAYS_CHECKED,
    FAILED_BURST,
    FAILED_PER_S,
    MOST_DEBTORS,
    FailedWork,
    hashed,
    proofs_of,
    verified,
    with_few_signatures,
)
from bridge.source.signature import MOST_SIGNATURES, Headers, StandardWebhooks
from tests.receiver.conftest import PATH, SECRET, SIGNED, House, house, settings, sign, until

pytestmark = pytest.mark.anyio

OTHERS = [f"whsec_{'AbCd' * 6}{number:02}==" for number in range(20)]
LARGE = b'{"a":"' + b"x" * 500_000 + b'"}'


def subscription(name: str, *secrets: str) -> dict[str, Any]:
    return {"id": name, "auth": "standard-webhooks", "secrets": list(secrets)}


async def post(built: House, body: bytes, headers: dict[str, str], path: str = PATH) -> int:
    return (await built.client.post(path, content=body, headers=headers)).status_code


# ---- which secrets are tried ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("more", "status"), [(MOST_SIGNATURES - 1, 202), (MOST_SIGNATURES, 401)])
async def test_16_signatures_are_looked_at_and_not_one_more(more: int, status: int) -> None:
    """One header with 3,900 of them cost 304 ms with 100 subscriptions."""
    built = house(settings(SIGNED))
    headers = sign(b"{}")
    headers["webhook-signature"] = " ".join([*["v1,AAAA"] * more, headers["webhook-signature"]])
    assert status == await post(built, b"{}", headers)
    assert ({} if status == 202 else {"signatures": 1}) == built.limits.of_last_hour()


@pytest.mark.parametrize(("more", "status"), [(MOST_SIGNATURES - 1, 202), (MOST_SIGNATURES, 401)])
async def test_a_plain_hmac_too_has_16(more: int, status: int) -> None:
    built = house(settings({"id": "sub-1", "auth": "hmac", "header": "x-sig", "secrets": ["key"]}))
    digest = hmac.new(b"key", b"{}", hashlib.sha256).hexdigest()
    assert status == await post(built, b"{}", {"x-sig": ", ".join(["00"] * more + [digest])})


class Counting:
    """A verifier that counts how often it is asked."""

    signatures = (b"x-sig",)

    def __init__(self, asked: list[str], name: str, right: str) -> None:
        self.asked, self.name, self.right = asked, name, right

    def __call__(self, headers: Headers, body: bytes, now: float) -> bool:  # noqa: ARG002
        self.asked.append(self.name)
        return self.name == self.right

    def offers(self, headers: Headers) -> int:  # noqa: ARG002
        return 1


def guards(asked: list[str], right: str, **names: str) -> list[Guard]:
    """Return subscriptions with one secret each, by their ids."""
    policy = Policy.of(settings(*(subscription(name, secret) for name, secret in names.items())))
    found = list(policy.callers)
    for guard, secret in zip(found, names.values(), strict=True):
        (proof,) = guard.proofs
        object.__setattr__(proof, "verify", Counting(asked, secret, right))
    return found


def test_each_secret_is_tried_once_those_of_the_named_subscription_first() -> None:
    asked: list[str] = []
    tried = guards(asked, "none", a=OTHERS[0], b=OTHERS[1], c=OTHERS[0], d=OTHERS[2])
    assert [] == verified(tried, {}, b"", 0, named="d", last="b")
    assert [OTHERS[2], OTHERS[1], OTHERS[0]] == asked
    assert 3 == hashed(tried)


def test_the_first_secret_that_fits_ends_it_and_whoever_has_it_may_be_meant() -> None:
    asked: list[str] = []
    tried = guards(asked, OTHERS[0], a=OTHERS[0], b=OTHERS[1], c=OTHERS[0])
    assert ["a", "c"] == [guard.id for guard in verified(tried, {}, b"", 0)]
    assert [OTHERS[0]] == asked


def test_the_same_secret_used_in_another_way_is_another_one() -> None:
    ways = [{"prefix": "sha256="}, {"algorithm": "sha1"}, {"encoding": "base64"}, {"header": "x-other"}, {}, {}]
    base = {"id": "a", "auth": "hmac", "header": "x-sig", "secrets": ["key"]}
    keys = [proofs_of(Subscription.model_validate(base | way))[0].key for way in ways]
    assert 5 == len(set(keys))
    assert 1 == len(proofs_of(Subscription.model_validate({"id": "a", "auth": "none"})))


async def test_without_a_topic_in_the_path_the_caller_is_found_among_many() -> None:
    many = [subscription(f"other-{number}", secret) for number, secret in enumerate(OTHERS)]
    built = house(settings(*many, SIGNED))
    for _ in range(2):
        headers = sign(b"{}") | {"ce-type": "sub-1.vehicle.update"}
        assert 202 == await post(built, b"{}", headers, "/webhooks")
    assert {"sub-1"} == {arrival.subscription for arrival in built.store.taken}


# ---- what failing costs ---------------------------------------------------------------------------------------------


class Debts:
    def __init__(self) -> None:
        self.now = 0.0
        self.told: list[tuple[Limit, str]] = []
        self.callers = Callers(lambda: self.now)
        self.work = FailedWork(lambda limit, who: self.told.append((limit, who)), self.callers, lambda: self.now)

    def wait(self, who: str, work: int = 10 * ALWAYS_CHECKED) -> int:
        return self.work.wait(who, work, ["sub-1"])


def test_who_fails_too_much_waits_for_dear_requests_only() -> None:
    debts = Debts()
    debts.work.failed("a", FAILED_BURST)
    assert 0 == debts.wait("a")
    debts.work.failed("a", 3 * FAILED_PER_S)
    assert 3 == debts.wait("a")
    assert 0 == debts.wait("a", ALWAYS_CHECKED)
    assert [(Limit.FAILED_WORK, "a")] == debts.told
    debts.now = 3
    assert 0 == debts.wait("a"), "what it was told is true"


def test_who_proved_itself_lately_does_not_wait() -> None:
    debts = Debts()
    debts.callers.proved("a", "sub-1")
    debts.work.failed("a", 2 * FAILED_BURST)
    assert 0 == debts.wait("a")
    debts.now = 601
    debts.work.failed("a", 2 * FAILED_BURST)
    assert 0 < debts.wait("a")


def test_many_addresses_together_have_a_bound_too() -> None:
    debts = Debts()
    for number in range(10):
        debts.work.failed(f"a{number}", FAILED_BURST // 4)
    assert 0 < debts.wait("b")
    debts.now = 10
    assert 0 == debts.wait("b")


def test_debts_are_remembered_of_a_bounded_number_of_addresses() -> None:
    debts = Debts()
    for number in range(MOST_DEBTORS + 10):
        debts.work.failed(str(number), 1)
    assert MOST_DEBTORS == len(debts.work._debts)


async def test_at_the_door_a_stranger_hears_429_and_a_right_secret_from_the_same_address_is_taken() -> None:
    built = house(settings(*(subscription(f"other-{number}", each) for number, each in enumerate(OTHERS)), SIGNED))
    wrong = sign(LARGE, secret="whsec_" + "Zm9v" * 8)
    statuses = []
    for _ in range(30):
        got = await built.client.post("/webhooks", content=LARGE, headers=wrong | {"ce-type": "sub-1.vehicle.update"})
        statuses.append(got.status_code)
        if got.status_code == 429:
            break
    assert [401] * (len(statuses) - 1) + [429] == statuses
    assert int(got.headers["retry-after"]) >= 1
    assert {"error": "too many failed requests from this address"} == got.json()
    assert {"failed_work": 1} == built.limits.of_last_hour()
    small = sign(b"{}", message_id="small")
    assert 202 == await post(built, b"{}", small | {"ce-type": "sub-1.vehicle.update"}, "/webhooks")
    large = sign(LARGE, message_id="large")  # the address proved itself by the small one
    assert 202 == await post(built, LARGE, large | {"ce-type": "sub-1.vehicle.update"}, "/webhooks")


async def test_many_wrong_small_requests_shut_nobody_out() -> None:
    built = house(settings(SIGNED))
    assert [401] * 200 == [await post(built, b"{}", sign(b"[]")) for _ in range(200)]
    assert 202 == await post(built, b"{}", sign(b"{}"))
    assert {} == built.limits.of_last_hour()


# ---- beside the loop ------------------------------------------------------------------------------------------------


async def test_a_large_body_is_hashed_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []
    built = house(settings(SIGNED))
    do = Aside.do

    async def watched(self: Aside, who: str, run: Callable[[], object], *, known: bool) -> object:
        def noted() -> object:
            threads.append(threading.current_thread())
            return run()

        return await do(self, who, noted, known=known)

    monkeypatch.setattr(Aside, "do", watched)
    assert 202 == await post(built, b"{}", sign(b"{}"))
    assert [] == threads
    assert 202 == await post(built, LARGE, sign(LARGE, message_id="msg_2"))
    assert 1 == len(threads)
    assert threading.main_thread() not in threads
    assert 401 == await post(built, LARGE, sign(b"{}", secret=SECRET))


async def test_those_that_are_known_come_first_and_the_others_take_turns() -> None:
    aside, order, go_on = Aside(), list[str](), threading.Event()

    def job(name: str) -> str:
        order.append(name)
        return name

    first = asyncio.create_task(aside.do("x", lambda: go_on.wait() and job("x"), known=False))
    await until(lambda: aside._busy)
    others = [asyncio.create_task(aside.do("a", lambda: job("a"), known=False)) for _ in range(3)]
    others += [asyncio.create_task(aside.do("b", lambda: job("b"), known=False))]
    others += [asyncio.create_task(aside.do("c", lambda: job("c"), known=True))]
    gone = asyncio.create_task(aside.do("d", lambda: job("d"), known=True))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    go_on.set()
    assert ["x", "a", "a", "a", "b", "c"] == [await task for task in (first, *others)]
    assert ["x", "c", "a", "b"] == order[:4]
    assert "d" not in order


async def test_what_goes_wrong_beside_the_loop_is_told_to_who_waits() -> None:
    aside = Aside()
    with pytest.raises(ZeroDivisionError):
        await aside.do("a", lambda: 1 // 0, known=True)
    assert 1 == await aside.do("a", lambda: 1, known=True)


def test_signatures_are_counted_once_for_all_who_look_into_the_same_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    count = StandardWebhooks.offers

    def offers(self: StandardWebhooks, headers: Headers) -> int:
        counted.append(count(self, headers))
        return counted[-1]

    monkeypatch.setattr(StandardWebhooks, "offers", offers)
    policy = Policy.of(settings(*(subscription(name, secret) for name, secret in zip("abc", OTHERS, strict=False))))
    few = {b"webhook-signature": b" ".join([b"v1,AAAA"] * MOST_SIGNATURES)}
    assert list(policy.callers) == list(with_few_signatures(policy.callers, few))
    many = {b"webhook-signature": few[b"webhook-signature"] + b" v1,AAAA"}
    assert [] == list(with_few_signatures(policy.callers, many))
    assert [MOST_SIGNATURES, MOST_SIGNATURES + 1] == counted
