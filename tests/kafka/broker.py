"""A real Apache Kafka, one node of KRaft, on ports of this machine that nobody else uses.

Its jars come by Maven into `tests/kafka/target`, once. Every way to prove who one is has a listener of its own: none,
OAUTHBEARER with tokens that the broker checks against the published keys of `tokens`, the same within TLS, and SCRAM
and PLAIN.

Source: Apache Kafka 4.1 documentation, "KRaft", "Security / Authentication using SASL", "Broker configs".
"""

import base64
import itertools
import os
import shutil
import signal
import socket
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from tests.kafka.tokens import Issuer
from tests.life.stage import PATIENCE_S, until

HERE: Final = Path(__file__).parent
POM: Final = HERE / "pom.xml"
JARS: Final = HERE / "target" / "jars"
NEEDED: Final = "needs Java 17 and Maven; on Debian: apt-get install openjdk-17-jre-headless maven"
FETCH_S: Final = 600  # 45 MB, once
START_S: Final = 4 * PATIENCE_S  # a JVM on a busy machine, which looks through its log after a kill
USER: Final = "canary-user"
PASSWORD: Final = "canary-kafka-password-2b"  # made up
STORE_PASSWORD: Final = "changeit"
LISTENERS: Final = ("plain", "oauth", "tls", "simple", "controller")
JAVA: Final = ("java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")

_numbers = itertools.count(1)


def missing() -> str:
    """Return why there can be no broker here; empty = there can."""
    return "" if shutil.which("java") and shutil.which("mvn") and shutil.which("keytool") else NEEDED


def fetch() -> Path:
    """Return the folder of the jars, after Maven has filled it."""
    stamp = JARS.parent / "fetched"
    if not stamp.exists() or stamp.read_bytes() != POM.read_bytes():
        shutil.rmtree(JARS, ignore_errors=True)
        command = ["mvn", "--quiet", "--batch-mode", "--file", str(POM), "dependency:copy-dependencies"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_S, check=False)
        assert done.returncode == 0, f"Maven could not fetch the broker:\n{(done.stdout + done.stderr)[-2000:]}"
        stamp.write_bytes(POM.read_bytes())
    return JARS


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on."""
    with ExitStack() as stack:
        socks = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in socks:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in socks]


@dataclass
class Broker:
    """The broker as a process, at addresses that survive its restart."""

    folder: Path
    issuer: Issuer
    ports: Mapping[str, int] = field(
        default_factory=lambda: dict(zip(LISTENERS, free_ports(len(LISTENERS)), strict=True))
    )
    popen: "subprocess.Popen[bytes] | None" = None
    more: Mapping[str, str] = field(default_factory=dict)  # settings of its own

    @property
    def address(self) -> str:
        """Return where anybody may speak to it."""
        return self.at("plain")

    def at(self, listener: str) -> str:
        """Return the address of a listener."""
        return f"127.0.0.1:{self.ports[listener]}"

    @property
    def ca(self) -> Path:
        """Return the certificate behind its TLS."""
        return self.folder / "ca.pem"

    def prepare(self) -> None:
        """Make its certificate and format its storage."""
        self._certify()
        (self.folder / "server.properties").write_text(self._properties())
        number = b"k" + uuid.uuid4().bytes[1:]  # else one of 64 begins with a dash, and is taken for an option
        cluster = base64.urlsafe_b64encode(number).rstrip(b"=").decode()
        credentials = f"SCRAM-SHA-256=[name={USER},password={PASSWORD}]"
        arguments = ("format", "-t", cluster, "-c", "server.properties", "--add-scram", credentials)
        done = self._java("kafka.tools.StorageTool", *arguments)
        assert 0 == done.wait(PATIENCE_S), self._said()

    def start(self) -> None:
        """Start it and wait until it serves."""
        self.popen = self._java("kafka.Kafka", "server.properties")
        until(self._serves, "the broker serves", START_S)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it."""
        if self.popen is not None:
            self.popen.send_signal(number)
            self.popen.wait(PATIENCE_S)
            self.popen = None

    def create(self, topics: Sequence[str], partitions: int = 1, **settings: str) -> None:
        """Create topics and wait until they are there."""
        admin = self.admin()  # its answers come only as long as it lives
        wanted = [NewTopic(topic, partitions, 1, config=settings) for topic in topics]
        for future in admin.create_topics(wanted).values():
            future.result(PATIENCE_S)

    def delete(self, *topics: str) -> None:
        """Delete topics."""
        admin = self.admin()
        for future in admin.delete_topics(list(topics)).values():
            future.result(PATIENCE_S)

    def forget(self, group: str) -> None:
        """Forget what a group has committed, as the broker does after `offsets.retention.minutes`."""
        admin = self.admin()
        admin.delete_consumer_groups([group])[group].result(PATIENCE_S)

    def deny(self, kind: ResourceType, name: str) -> None:
        """Keep the user with the password from a topic or group."""
        whom, what = f"User:{USER}", (AclOperation.ALL, AclPermissionType.DENY)
        admin = self.admin()
        for future in admin.create_acls(
            [AclBinding(kind, name, ResourcePatternType.LITERAL, whom, "*", *what)]
        ).values():
            future.result(PATIENCE_S)

    def admin(self) -> AdminClient:
        """Return a client that may do everything."""
        return AdminClient({"bootstrap.servers": self.address, "log_level": 0})

    def producer(self) -> Producer:
        """Return a client that writes, and waits for the broker's word."""
        return Producer({"bootstrap.servers": self.address, "acks": "all", "linger.ms": 5, "log_level": 0})

    def _serves(self) -> bool:
        assert self.popen is not None
        assert self.popen.poll() is None, f"the broker ended:\n{self._said()}"
        try:
            return bool(self.admin().list_topics(timeout=1).brokers)
        except KafkaException:
            return False

    def _java(self, program: str, *arguments: str) -> "subprocess.Popen[bytes]":
        allowed = f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={self.issuer.url}/keys"
        command = [*JAVA, allowed, "-cp", f"{fetch()}/*", program, *arguments]
        with (self.folder / f"broker-{next(_numbers)}.log").open("ab") as sink:
            return subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
            )  # fmt: skip

    def _said(self) -> str:
        return "".join(log.read_text(errors="replace") for log in sorted(self.folder.glob("broker-*.log")))[-4000:]

    def _certify(self) -> None:
        """Make a certificate that signs itself."""
        common = ["-alias", "broker", "-keystore", "keys.p12", "-storepass", STORE_PASSWORD]
        make = ["-genkeypair", "-keyalg", "RSA", "-dname", "CN=localhost", "-validity", "2"]
        names = ["-ext", "san=ip:127.0.0.1,dns:localhost", "-ext", "bc:c"]
        for options in ([*make, *names], ["-exportcert", "-rfc", "-file", "ca.pem"]):
            command = ["keytool", *options, *common]
            subprocess.run(command, cwd=self.folder, capture_output=True, check=True, timeout=PATIENCE_S)

    def _properties(self) -> str:
        """Return the settings."""
        kinds = {
            "plain": "PLAINTEXT", "oauth": "SASL_PLAINTEXT", "tls": "SASL_SSL", "simple": "SASL_PLAINTEXT",
            "controller": "PLAINTEXT",
        }  # fmt: skip
        module = "org.apache.kafka.common.security"
        validator = f"{module}.oauthbearer.OAuthBearerValidatorCallbackHandler"
        oauth = {
            "oauthbearer.sasl.jaas.config": f"{module}.oauthbearer.OAuthBearerLoginModule required;",
            "oauthbearer.sasl.server.callback.handler.class": validator,
            "sasl.enabled.mechanisms": "OAUTHBEARER",
        }
        simple = {
            "plain.sasl.jaas.config": f'{module}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";',
            "scram-sha-256.sasl.jaas.config": f"{module}.scram.ScramLoginModule required;",
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256",
        }
        listeners = {"oauth": oauth, "tls": oauth, "simple": simple}
        settings = {
            "node.id": "1",
            "process.roles": "broker,controller",
            "controller.quorum.voters": f"1@{self.at('controller')}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAIN",
            "listeners": ",".join(f"{name.upper()}://{self.at(name)}" for name in LISTENERS),
            "listener.security.protocol.map": ",".join(f"{name.upper()}:{kinds[name]}" for name in LISTENERS),
            "log.dirs": str(self.folder / "data"),
            "sasl.oauthbearer.jwks.endpoint.url": f"{self.issuer.url}/keys",
            "sasl.oauthbearer.expected.audience": "kafka",
            "sasl.oauthbearer.expected.issuer": self.issuer.url,
            "ssl.keystore.location": str(self.folder / "keys.p12"),
            "ssl.keystore.type": "PKCS12",
            "ssl.keystore.password": STORE_PASSWORD,
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "true",
            "super.users": "User:ANONYMOUS",
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            **{f"listener.name.{name}.{key}": value for name, own in listeners.items() for key, value in own.items()},
            **self.more,
        }
        return "".join(f"{key}={value}\n" for key, value in settings.items())


@contextmanager
def running(folder: Path, issuer: Issuer, **more: str) -> Iterator[Broker]:
    """Run a broker, with settings of its own (`_` for a point)."""
    broker = Broker(folder, issuer, more={key.replace("_", "."): value for key, value in more.items()})
    broker.prepare()
    broker.start()
    try:
        yield broker
    finally:
        broker.stop(signal.SIGKILL)


if __name__ == "__main__":
    if reason := missing():
        raise SystemExit(reason)
    fetch()
