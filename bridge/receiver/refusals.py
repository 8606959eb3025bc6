"""What becomes known of refused requests: the counters, and a line of the log.

Rules:
- A line names the subscription, the status and which check failed, and how many there were: the first at once, then one
  a minute. Never what was offered, never who is behind a message.
- A request for an unknown subscription, or one that breaks off before it names one, has none.
"""

from bridge import logs
from bridge.metrics import Metrics
from bridge.repeated import Digest

_log = logs.logger("receiver")


class Refusals:
    """Counts for the whole process; used on the event loop."""

    def __init__(self, metrics: Metrics) -> None:
        """Begin with none."""
        self._metrics = metrics
        self._digest = Digest(_log, "request_refused", "subscription", "status", "check")

    def count(self, status: int, check: str, subscription: str | None = None) -> None:
        """Count one."""
        self._metrics.requests_refused.labels(status=str(status)).inc()
        if subscription is not None:
            self._metrics.subscription_refused.labels(subscription=subscription, status=str(status)).inc()
        self._digest.note(subscription, status, check)

    def tell(self) -> None:
        """Write the lines that are due."""
        self._digest.tell()
