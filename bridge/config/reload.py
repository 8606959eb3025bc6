"""What a changed configuration changes while the daemon runs, and what of it has to wait for a restart.

Rules:
- `APPLIED` names what takes effect at once; every other key waits, and is named.
- A key that waits keeps its running value, so a later reload names it again until the restart.
- Only the names of keys are told, never values: they may be secrets.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel

from bridge.config.database import is_database
from bridge.config.models import Settings, StoreSettings, Subscription

APPLIED: Final[Mapping[str, frozenset[str]]] = {
    "server": frozenset(
        {
            *("max_body", "admin_token", "trusted_proxies", "topic_headers", "id_headers"),
            *("drain_delay", "drain_timeout"),
        }
    ),
    "moost": frozenset({"client_id", "client_secret"}),
    "store": frozenset({"retention", "max_size", "store_share", "dead_retention", "dead_share", "dead_export"}),
    "kafka": frozenset({"client_id", "client_secret"}),
    "logs": frozenset({"level", "format"}),
}
"""Section -> its keys that take effect at once."""

WHOLE: Final = ("subscriptions", "devices", "codes")
"""What takes effect at once as a whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reloaded:
    """What a reload comes to."""

    settings: Settings  # what is in force from now on
    applied: Sequence[str]  # keys that have changed and are in force
    needs_restart: Sequence[str]  # keys that have changed and are not


def reloaded(running: Settings, read: Settings) -> Reloaded:
    """Return what is in force after a reload: of the configuration as read, what can be applied."""
    applied: list[str] = []
    waiting: list[str] = []
    sections: dict[str, object] = {}
    for name in Settings.model_fields:
        old, new = getattr(running, name), getattr(read, name)
        if name in WHOLE:
            sections[name] = new
            applied += _subscriptions(old, new) if name == "subscriptions" else [name] if old != new else []
            continue
        keys = APPLIED.get(name, frozenset()) | (_FOLLOWED if name == "store" and _is_shared(old, new) else frozenset())
        changed = list(_different(old, new))
        applied += [f"{name}.{key}" for key in changed if key in keys]
        waiting += [f"{name}.{key}" for key in changed if key not in keys]
        sections[name] = old.model_copy(update={key: getattr(new, key) for key in changed if key in keys})
    settings = running.model_copy(update=sections)
    settings.read_from(read.files)
    return Reloaded(settings=settings, applied=applied, needs_restart=waiting)


_FOLLOWED: Final = frozenset({"url"})


def _is_shared(*stores: StoreSettings) -> bool:
    """Tell whether the store is a database: new sessions go by its new address, as long as it is the same store."""
    return all(is_database(store.url.get_secret_value()) for store in stores)


def _subscriptions(old: Sequence[Subscription], new: Sequence[Subscription]) -> Iterator[str]:
    """Yield what is different about subscriptions, by their ids."""
    before, after = ({each.id: each for each in side} for side in (old, new))
    for name in dict.fromkeys([*before, *after]):
        if name not in before or name not in after:
            yield f"subscriptions.{name}"
        else:
            yield from (f"subscriptions.{name}.{key}" for key in _different(before[name], after[name]))


def _different(old: BaseModel, new: BaseModel) -> Iterator[str]:
    return (key for key in type(new).model_fields if getattr(old, key) != getattr(new, key))
