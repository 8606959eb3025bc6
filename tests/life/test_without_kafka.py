"""The Kafka source is an extra: without it everything else works, and asking for it says what is missing."""

from pathlib import Path
from typing import Final

from tests.life.stage import Bridge, Process, vehicle

WITHOUT: Final = (
    "-c",
    "import sys; sys.modules['confluent_kafka'] = None; from bridge import cli; cli.main()",
)


def test_a_daemon_without_the_extra_says_so_and_ends_with_2(bridge: Bridge, tmp_path: Path) -> None:
    bridge.configure(kafka={"bootstrap_servers": "127.0.0.1:9", "security": "plaintext"})
    for command in ("serve", "check"):
        process = Process((command, "--config", str(bridge.config)), tmp_path / f"{command}.log", WITHOUT)
        process.start()
        assert 2 == process.ended()
        sentence = "needs the package confluent-kafka, which is not installed: the bridge's requirements.lock names it"
        assert f"kafka.bootstrap_servers: {sentence}\n" == process.text()


def test_a_process_that_does_not_read_kafka_never_loads_its_client(bridge: Bridge) -> None:
    bridge.start(program=WITHOUT)
    bridge.take("vehicle.update", vehicle("user-3", "car-1", 3))
    assert "kafka" not in bridge.health()
    assert 0 == bridge.stop()
