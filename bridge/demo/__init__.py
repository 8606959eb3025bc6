"""The whole thing on one machine, as processes of their own: MOOST sandbox, bridge, a simulated device cloud.

Rules:
- It needs nothing but the installed package, the cluster PostgreSQL too: temporary store, made-up secrets, free ports.
- The last day of some households runs at `speed` through everything, the bridge's clock included; when it has caught
  up with the wall clock, life goes on in real time.
- ctrl-C stops the cloud, lets the backlog drain, ends the bridge as SIGTERM does, and prints the ledger as JSON.

Rooms: `single` one bridge on a file, `cluster` replicas on PostgreSQL of which one is killed now and then, `setting`
the configuration and the cloud, `processes` how they are started and asked.
"""

import signal
import threading

from bridge.demo import cluster, single


def run(*, homes: int, speed: float, replicas: int = 1) -> int:
    """Run until ctrl-C; return the exit code. Raises BridgeError where a part does not come up."""
    stop = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())
    if replicas == 1:
        return single.run(homes=homes, speed=speed, stop=stop)
    return cluster.run(homes=homes, speed=speed, replicas=replicas, stop=stop)
