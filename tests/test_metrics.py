"""What the bridge counts: the names that monitoring is written against."""

from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from bridge.metrics import CONTENT_TYPE, Metrics

PROMISED = {
    "bridge_messages_accepted": ("counter", ()),
    "bridge_messages_settled": ("counter", ()),
    "bridge_messages_duplicate": ("counter", ()),
    "bridge_messages_dead": ("counter", ()),
    "bridge_requests_refused": ("counter", ("status",)),
    "bridge_inbox_pending": ("gauge", ()),
    "bridge_outbox_pending": ("gauge", ()),
    "bridge_calls_delivered": ("counter", ("call", "lane")),
    "bridge_call_attempts": ("counter", ("call", "outcome")),
    "bridge_in_doubt": ("counter", ()),
    "bridge_dead_letters": ("gauge", ("reason",)),
    "bridge_oldest_inbox_seconds": ("gauge", ()),
    "bridge_oldest_outbox_seconds": ("gauge", ()),
    "bridge_commit_seconds": ("histogram", ()),
    "bridge_call_seconds": ("histogram", ()),
    "bridge_circuit_open": ("gauge", ()),
    "bridge_token_expires_seconds": ("gauge", ()),
    "bridge_late_samples": ("counter", ()),
    "bridge_limit_reached": ("counter", ("limit",)),
}


def ours(metrics: Metrics) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {
        name: (metric._type, tuple(metric._labelnames))
        for name, metric in ((f"bridge_{attribute}", found) for attribute, found in vars(metrics).items())
        if hasattr(metric, "_labelnames")
    }


def test_every_promised_metric_exists_with_its_type_and_labels() -> None:
    found = ours(Metrics())
    assert PROMISED == {name: found.get(name) for name in PROMISED}


def test_the_attribute_is_the_name_and_every_metric_has_a_help_text() -> None:
    metrics = Metrics()
    for attribute, metric in vars(metrics).items():
        if attribute not in ("registry", "dead_messages", "dead_calls", "_heard"):
            assert f"bridge_{attribute}" == metric._name
            assert metric._documentation.endswith(".")


def test_no_label_can_name_a_household() -> None:
    labels = {label for _, names in ours(Metrics()).values() for label in names}
    assert {"status", "call", "lane", "outcome", "reason", "topic", "limit", "subscription", "cause"} >= labels


def test_the_text_is_what_prometheus_reads() -> None:
    metrics = Metrics()
    metrics.messages_accepted.inc(3)
    metrics.calls_delivered.labels(call="event", lane="live").inc()
    metrics.commit_seconds.observe(0.003)
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }
    assert 3 == samples["bridge_messages_accepted_total", ()]
    assert 1 == samples["bridge_calls_delivered_total", (("call", "event"), ("lane", "live"))]
    assert 0 == samples["bridge_commit_seconds_bucket", (("le", "0.002"),)]
    assert 1 == samples["bridge_commit_seconds_bucket", (("le", "0.005"),)]
    assert [] == [name for name, _ in samples if name.endswith("_created")]
    assert CONTENT_TYPE.startswith("text/plain")


def test_two_bridges_in_one_process_do_not_meet() -> None:
    one, other = Metrics(), Metrics()
    one.messages_accepted.inc()
    assert b"bridge_messages_accepted_total 1.0" in one.render()
    assert b"bridge_messages_accepted_total 0.0" in other.render()
    assert [] == [name for name in REGISTRY._names_to_collectors if name.startswith("bridge_")]
