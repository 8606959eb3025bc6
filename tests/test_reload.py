"""What a changed configuration changes while the daemon runs."""

from pathlib import Path

from bridge.config import Settings, load, reloaded
from bridge.config.reload import APPLIED, WHOLE

BASE = """
[[subscriptions]]
id = "acme"
secrets = ["whsec_c2VjcmV0LWNhbmFyeQ=="]
[moost]
client_id = "abc"
client_secret = "s3cret"
customer_id = "656730be2bc9719e6e5ed51d"
"""


def settings(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "bridge.toml"
    path.write_text(text)
    return load(path, environ={})


def test_what_can_be_applied_is_in_force_and_what_cannot_is_named_until_the_restart(tmp_path: Path) -> None:
    running = settings(tmp_path, BASE)
    text = (
        BASE
        + '[intervals]\ngrace = "5m"\n[logs]\nlevel = "debug"\n[store]\nretention = "24h"\nurl = "sqlite:///b.db"\n'
    )
    first = reloaded(running, settings(tmp_path, text))
    assert (["store.retention", "logs.level"], ["store.url", "intervals.grace"]) == (
        first.applied,
        first.needs_restart,
    )
    assert ("debug", running.intervals, running.store.url) == (
        first.settings.logs.level,
        first.settings.intervals,
        first.settings.store.url,
    )
    again = reloaded(first.settings, settings(tmp_path, text))
    assert ([], ["store.url", "intervals.grace"]) == (again.applied, again.needs_restart)
    back = reloaded(first.settings, settings(tmp_path, BASE))
    assert (["store.retention", "logs.level"], []) == (back.applied, back.needs_restart)


def test_subscriptions_are_named_by_their_ids_and_no_value_is_told(tmp_path: Path) -> None:
    running = settings(tmp_path, BASE)
    text = BASE.replace("c2VjcmV0LWNhbmFyeQ==", "b3RoZXItY2FuYXJ5").replace(
        'id = "acme"', 'id = "acme"\nrate_limit = 5'
    )
    text += '[[subscriptions]]\nid = "new"\nauth = "bearer"\nsecrets = ["canary-token"]\n'
    found = reloaded(running, settings(tmp_path, text))
    assert ["subscriptions.acme.secrets", "subscriptions.acme.rate_limit", "subscriptions.new"] == found.applied
    assert ["acme", "new"] == [each.id for each in found.settings.subscriptions]
    without = text.partition('[[subscriptions]]\nid = "new"')[0]
    assert ["subscriptions.new"] == reloaded(found.settings, settings(tmp_path, without)).applied


def test_every_key_that_is_applied_exists() -> None:
    known = Settings.model_fields
    assert set() == {*APPLIED, *WHOLE} - set(known)
    assert [] == [
        f"{section}.{key}"
        for section, keys in APPLIED.items()
        for key in keys
        if key not in known[section].annotation.model_fields  # type: ignore[union-attr]
    ]


def test_nothing_changed_is_nothing_told(tmp_path: Path) -> None:
    found = reloaded(settings(tmp_path, BASE), settings(tmp_path, BASE))
    assert ([], []) == (found.applied, found.needs_restart)
