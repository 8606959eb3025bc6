"""The settings themselves, section by section, with their defaults.

Rules:
- Every field has a default, so that one wrong value does not hide the problems of another; what is required is named
  by `checks`.
- Objects are frozen: a reload makes new ones.
- A `SecretStr` prints as stars; nothing here keeps a secret in another form.

Source: MOOST documentation, "Common integration" (patterns of clientId, clientSecret, customerId).
"""

from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, PrivateAttr, SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from bridge.config import database
from bridge.config.fields import (
    Algorithm,
    Auth,
    DeviceSign,
    Duration,
    Encoding,
    HeaderName,
    LogFormat,
    LogLevel,
    LostReply,
    MaybeWebAddress,
    Mechanism,
    MeterCounter,
    MeterSign,
    Networks,
    OffsetReset,
    Positive,
    Security,
    Size,
    TimeZone,
    WebAddress,
    fits,
    proxy_address,
    proxy_secrets,
    secret_fits,
)
from bridge.core.rules import MeterRule, PowerUnit, Role, Rules, Stamp, SubscriptionRule, Unknown
from bridge.core.vocabulary import DeviceKey, DeviceType, EventType, Kind
from bridge.files import read_text

Codes = Mapping[str, Mapping[str, Mapping[str, int]]]
"""Event type -> device type -> word -> code."""

ClientSecret = Annotated[SecretStr, secret_fits(r"[a-zA-Z0-9_-]{1,100}", "1 to 100 letters, digits, _ or -")]
Country = Annotated[str, Field(min_length=1), fits("[A-Z]{2}", 'a two-letter country code such as "DE"')]

_NEGATIVE: Final = frozenset({DeviceSign.EXPORT, DeviceSign.DISCHARGE})


SubscriptionId = Annotated[str, fits(r"[^\s./?#%]{1,100}", "up to 100 characters without dots, slashes or spaces")]


class _Section(BaseModel):
    """A table of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Server(_Section):
    """The HTTP server: where it listens, what it takes, how long it drains."""

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8080  # 0 = any free one
    max_body: Annotated[Size, Field(ge=1024, le=64 * 2**20)] = 2**20  # bytes
    admin_token: SecretStr = SecretStr("")
    trusted_proxies: Networks = ()
    topic_headers: tuple[HeaderName, ...] = ("ce-type", "webhook-topic", "x-topic")
    id_headers: tuple[HeaderName, ...] = ("webhook-id", "svix-id")
    drain_delay: Duration = timedelta(0)
    drain_timeout: Positive = timedelta(seconds=20)


class Subscription(_Section):
    """One subscription of the device cloud."""

    id: SubscriptionId = ""
    auth: Auth = Auth.STANDARD_WEBHOOKS
    secrets: tuple[SecretStr, ...] = ()
    allowed_networks: Networks = ()
    rate_limit: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0  # messages per second, 0 = none
    user_prefix: Annotated[str, fits(r"[a-zA-Z0-9:._@-]{1,50}", "up to 50 letters, digits or : . _ @ -")] = ""
    inherits: tuple[SubscriptionId, ...] = ()  # ids that it had before: their devices are its own
    header: HeaderName = ""  # this and the next three: hmac only
    algorithm: Algorithm = Algorithm.SHA256
    encoding: Encoding = Encoding.HEX
    prefix: str = ""
    meter_sign: MeterSign = MeterSign.IMPORT
    meter_counter: MeterCounter = MeterCounter.NONE
    unit: PowerUnit | None = None  # of its powers; None = kW, and a jump to W is noticed
    kafka_client_id: str = ""  # this and the next: instead of those of [kafka]
    kafka_client_secret: SecretStr = SecretStr("")


class DeviceException(_Section):
    """What is different about one device; None = as its subscription says."""

    kind: Kind | None = None
    id: str = ""
    subscription: str = ""  # empty = of any that has such a device
    role: Role | None = None
    sign: DeviceSign | None = None
    counter: MeterCounter | None = None
    unit: PowerUnit | None = None


class Moost(_Section):
    """MOOST: its address, the credentials, and how calls are made."""

    base_url: WebAddress = "https://api.moost.io"
    insecure: bool = False  # base_url may be http beyond this machine
    ca_file: str = ""
    proxy: Annotated[SecretStr, AfterValidator(proxy_address)] = SecretStr("")
    client_id: Annotated[str, fits(r"[a-zA-Z0-9]{1,100}", "1 to 100 letters or digits")] = ""
    client_secret: ClientSecret = SecretStr("")
    customer_id: Annotated[str, fits(r"[a-zA-Z0-9]{24}", "24 letters or digits")] = ""
    timeout: Positive = timedelta(seconds=10)
    max_concurrency: Annotated[int, Field(ge=1, le=1000)] = 32
    requests_per_second: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0  # 0 = no limit
    historical_batch: Annotated[int, Field(ge=1, le=10_000)] = 500  # events
    live_max_age: Duration = timedelta(minutes=30)
    on_lost_reply: LostReply = LostReply.RESEND
    battery_soc: bool = False


class StoreSettings(_Section):
    """Where the state lives. The address of a database may hold a password, so it is a secret."""

    url: SecretStr = SecretStr("sqlite:///bridge.db")
    retention: Positive = timedelta(hours=72)
    max_size: Size = 10 * 2**30  # bytes
    store_share: Annotated[float, Field(gt=0, le=1)] = 0.75
    dead_retention: Positive = timedelta(days=30)
    dead_share: Annotated[float, Field(gt=0, le=1)] = 0.2
    dead_export: str = ""  # a file


class Buildings(_Section):
    """Households that the directory does not know, or does not describe."""

    unknown: Unknown = Unknown.CREATE
    default_time_zone: TimeZone = "Europe/Berlin"
    default_country: Country = "DE"


class Intervals(_Section):
    """Quarter hours and days: when they close, and how long a value holds."""

    grace: Duration = timedelta(minutes=2)
    hold: Positive = timedelta(hours=24)
    hold_active: Positive = timedelta(hours=1)
    min_coverage: Annotated[float, Field(gt=0, le=1)] = 0.9
    spread: Duration = timedelta(minutes=3)
    stamp: Stamp = Stamp.END
    catch_up: Duration = timedelta(minutes=10)
    max_backfill: Duration = timedelta(hours=48)


class ClockSettings(_Section):
    """Simulated time, for tests and the demo only. `start` None and `speed` 1 = the real clock."""

    start: AwareDatetime | None = None
    anchor: AwareDatetime | None = None  # the wall time at which it is `start`; None = when the process starts
    speed: Annotated[float, Field(gt=0, le=100_000)] = 1.0


class Kafka(_Section):
    """A second source beside the webhooks; no `bootstrap_servers` = off.

    `{subscription}` stands for the id of each subscription in turn.
    """

    bootstrap_servers: Annotated[
        str, fits(r"[^\s,/@]+(, ?[^\s,/@]+)*", 'host:port, several with commas, such as "broker-1:9093,broker-2:9093"')
    ] = ""
    subscriptions: tuple[str, ...] = ()  # empty = all
    topics: tuple[str, ...] = ()  # names, or patterns from "^" on; empty = all that the bridge knows, by name
    group_id: Annotated[str, Field(min_length=1), fits(r"[\w.{}-]{1,200}", "up to 200 letters, digits or . _ -")] = (
        "moost-bridge-{subscription}"
    )
    security: Security = Security.SASL_SSL
    mechanism: Mechanism = Mechanism.OAUTHBEARER
    token_url: MaybeWebAddress = ""
    client_id: str = ""
    client_secret: SecretStr = SecretStr("")
    scope: str = ""
    extensions: Annotated[str, fits(r"[a-zA-Z]+=[^,=]+(,[a-zA-Z]+=[^,=]+)*", '"name=value", several with commas')] = ""
    ca_file: str = ""
    token_ca_file: str = ""
    offset_reset: OffsetReset = OffsetReset.EARLIEST


class LimitSettings(_Section):
    """What one sender may take, so that the others are served as if it were not there (R13)."""

    connections: Annotated[int, Field(ge=64, le=100_000)] = 4_096
    connections_per_address: Annotated[int, Field(ge=1, le=100_000)] = 512
    unverified_bytes: Annotated[Size, Field(ge=2**20, le=2**30)] = 16 * 2**20
    values_per_message: Annotated[int, Field(ge=1_000, le=100_000)] = 5_000
    devices_per_building: Annotated[int, Field(ge=1, le=2_000)] = 200


class LogSettings(_Section):
    """What is logged, and in which form."""

    level: LogLevel = LogLevel.INFO
    format: LogFormat = LogFormat.AUTO


class Settings(BaseSettings):
    """Everything that an operator may set."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    server: Server = Server()
    subscriptions: tuple[Subscription, ...] = ()
    devices: tuple[DeviceException, ...] = ()
    moost: Moost = Moost()
    store: StoreSettings = StoreSettings()
    buildings: Buildings = Buildings()
    intervals: Intervals = Intervals()
    codes: Codes = {}
    clock: ClockSettings = ClockSettings()
    kafka: Kafka = Kafka()
    limits: LimitSettings = LimitSettings()
    logs: LogSettings = LogSettings()

    _files: Mapping[tuple[str | int, ...], str] = PrivateAttr(default_factory=dict)  # where secrets were read from

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic-settings calls it by keyword
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read nothing by itself: `layers` does, with every problem in the operator's words."""
        return (init_settings,)

    def subscription(self, name: str) -> Subscription | None:
        """Return a subscription by its id."""
        return next((each for each in self.subscriptions if each.id == name), None)

    def heirs(self) -> dict[str, str]:
        """Return the ids that subscriptions had before, and the one that each has now."""
        return {old: each.id for each in self.subscriptions for old in each.inherits}

    @property
    def files(self) -> Mapping[tuple[str | int, ...], str]:
        """Return which secrets stand in files of their own, and in which."""
        return self._files

    def read_from(self, files: Mapping[tuple[str | int, ...], str]) -> None:
        """Remember which secrets stand in files of their own, and in which."""
        self._files = files

    def secret_now(self, *place: str | int) -> str | None:
        """Return what the file of a secret holds now; None where there is none, or nothing to be read in it."""
        name = self._files.get(place)
        if name is None:
            return None
        with suppress(OSError, UnicodeDecodeError):
            return one_secret(read_text(Path(name))) or None
        return None

    def store_url(self) -> str:
        """Return the address of the store; one in a file is read anew, as its password may have been changed."""
        known = self.store.url.get_secret_value()
        return self.secret_now("store", "url") or known if database.is_database(known) else known

    def consumed(self) -> tuple[Subscription, ...]:
        """Return the subscriptions whose messages come by Kafka."""
        kafka = self.kafka
        if not kafka.bootstrap_servers:
            return ()
        return tuple(each for each in self.subscriptions if not kafka.subscriptions or each.id in kafka.subscriptions)

    def kafka_credentials(self, subscription: Subscription) -> tuple[str, str]:
        """Return the client id and secret that open a subscription's topics: its own, else those of [kafka]."""
        own = subscription.kafka_client_secret.get_secret_value()
        if subscription.kafka_client_id or own:
            return subscription.kafka_client_id, own
        return self.kafka.client_id, self.kafka.client_secret.get_secret_value()

    def secret_values(self) -> frozenset[str]:
        """Return every secret as text, for the redaction of the log."""
        values = {self.server.admin_token.get_secret_value(), self.moost.client_secret.get_secret_value()}
        values.update(database.secrets(self.store.url.get_secret_value()))
        values.update(proxy_secrets(self.moost.proxy.get_secret_value()))
        for each in self.subscriptions:
            texts = [secret.get_secret_value() for secret in each.secrets]
            values.update(texts)
            values.update(text.removeprefix("whsec_") for text in texts)
            if each.auth is Auth.BASIC:
                values.update(text.partition(":")[2] for text in texts)
        for pair in {self.kafka_credentials(each) for each in self.subscriptions if self.kafka.bootstrap_servers}:
            values.update({pair[1], ":".join(pair)} if pair[1] else ())  # the pair is how it travels, in base64
        return frozenset(values - {""})

    def rules(self) -> Rules:
        """Return what the core may know of the settings."""
        heirs = self.heirs()
        return Rules(
            subscriptions={each.id: _subscription_rule(each) for each in self.subscriptions},
            heirs=heirs,
            devices={
                (each.kind, each.id): _meter_rule(each)
                for each in self.devices
                if each.kind is not None and not each.subscription
            },
            own_devices={
                DeviceKey(heirs.get(each.subscription, each.subscription), each.kind, each.id): _meter_rule(each)
                for each in self.devices
                if each.kind is not None and each.subscription
            },
            codes={
                (EventType(event), DeviceType(device)): dict(words)
                for event, tables in self.codes.items()
                for device, words in tables.items()
            },
            unknown=self.buildings.unknown,
            default_time_zone=self.buildings.default_time_zone,
            default_country=self.buildings.default_country,
            battery_soc=self.moost.battery_soc,
            live_max_age=self.moost.live_max_age,
            values_per_message=self.limits.values_per_message,
            devices_per_building=self.limits.devices_per_building,
            **dict(self.intervals),
        )


def one_secret(text: str) -> str:
    """Return the secret in a file of its own: one trailing newline is none of it."""
    return text.removesuffix("\n").removesuffix("\r")


def _subscription_rule(subscription: Subscription) -> SubscriptionRule:
    return SubscriptionRule(
        user_prefix=subscription.user_prefix,
        meter_sign=-1 if subscription.meter_sign is MeterSign.EXPORT else 1,
        meter_counter=subscription.meter_counter is MeterCounter.IMPORT,
        unit=subscription.unit,
    )


def _meter_rule(device: DeviceException) -> MeterRule:
    return MeterRule(
        role=device.role,
        sign=None if device.sign is None else -1 if device.sign in _NEGATIVE else 1,
        counter=None if device.counter is None else device.counter is MeterCounter.IMPORT,
        unit=device.unit,
    )
