"""Figures about a running server, in the format of Prometheus."""

from collections.abc import Callable

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_PHOTOS = (1, 2, 4, 8, 16, 32)


class Metrics:
    """Counters of one server, apart from those of other servers in the same process."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

        self._registry = CollectorRegistry()
        # The memory and the time of the server's own process; the model's is another.
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "mixreorg_requests", "Answered requests to /segment.", ["status"], registry=self._registry
        )
        self._seconds = Histogram(
            "mixreorg_request_seconds",
            "Time from the first byte of a request to its answer.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._photos = Histogram(
            "mixreorg_batch_photos",
            "Photos that the model worked on at once.",
            buckets=_PHOTOS,
            registry=self._registry,
        )
        self._waiting = Gauge(
            "mixreorg_waiting", "Requests that are accepted and not yet answered.", registry=self._registry
        )
        self._restarts = Gauge(
            "mixreorg_model_restarts", "How often the model's process was started again.", registry=self._registry
        )

    def count_request(self, status: int, seconds: float) -> None:
        """Count an answer of the API."""
        self._requests.labels(str(status)).inc()
        self._seconds.observe(seconds)

    def count_batch(self, num_photos: int) -> None:
        """Count a batch that went to the model."""
        self._photos.observe(num_photos)

    def watch(self, waiting: Callable[[], int], restarts: Callable[[], int]) -> None:
        """Set where the present values come from."""
        self._waiting.set_function(waiting)
        self._restarts.set_function(restarts)

    def as_text(self) -> tuple[bytes, str]:
        """All figures, and their media type."""
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        return generate_latest(self._registry), CONTENT_TYPE_LATEST
