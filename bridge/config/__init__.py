"""What the operator may set; refuses to start on nonsense, all problems at once.

Rules:
- One TOML file, then `BRIDGE_<SECTION>__<KEY>` over it, then secrets from `<key>_file`. A missing file is an error.
- Unknown keys are errors, in the file and in the environment.
- A problem is one line `section.key: what is wrong`, in the operator's words and without the value of a secret.
- Every default is safe and is the one written in `config/bridge.toml`.

Rooms: `fields` how a value is written, `models` the settings, `layers` where they come from, `checks` what must fit
together, `load` all of it in order, `reload` what a changed file changes while the daemon runs.
"""

from bridge.config.doubts import doubts
from bridge.config.fields import (
    Algorithm,
    Auth,
    Encoding,
    LogFormat,
    LogLevel,
    LostReply,
    Mechanism,
    MeterCounter,
    MeterSign,
    OffsetReset,
    Security,
)
from bridge.config.load import load
from bridge.config.models import (
    Buildings,
    ClockSettings,
    DeviceException,
    Intervals,
    Kafka,
    LimitSettings,
    LogSettings,
    Moost,
    Server,
    Settings,
    StoreSettings,
    Subscription,
)
from bridge.config.reload import Reloaded, reloaded

__all__ = [
    "Algorithm",
    "Auth",
    "Buildings",
    "ClockSettings",
    "DeviceException",
    "Encoding",
    "Intervals",
    "Kafka",
    "LimitSettings",
    "LogFormat",
    "LogLevel",
    "LogSettings",
    "LostReply",
    "Mechanism",
    "MeterCounter",
    "MeterSign",
    "Moost",
    "OffsetReset",
    "Reloaded",
    "Security",
    "Server",
    "Settings",
    "StoreSettings",
    "Subscription",
    "doubts",
    "load",
    "reloaded",
]
