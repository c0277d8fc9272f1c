"""What a server counts, as Prometheus reads it."""

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from vpt_jax.serving.bank import Bank

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of one server."""

    def __init__(self, bank: Bank):
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "vpt_requests", "Answered requests.", ["task", "status"], registry=registry
        )
        self._images = Counter(
            "vpt_images", "Classified images.", ["task"], registry=registry
        )
        self._seconds = Histogram(
            "vpt_request_seconds", "Per request.", buckets=SECONDS, registry=registry
        )
        self._batch_images = Histogram(
            "vpt_batch_images", "Images per batch.", buckets=SIZES, registry=registry
        )
        self._batch_seconds = Histogram(
            "vpt_batch_seconds", "Per batch.", buckets=SECONDS, registry=registry
        )
        self._waiting = Gauge(
            "vpt_images_in_flight", "Images on their way.", registry=registry
        )
        tasks = Gauge("vpt_tasks", "Tasks that are loaded.", registry=registry)
        tasks.set_function(lambda: len(bank.tasks))

    def request(self, task: str, status: int, seconds: float) -> None:
        """One more that was answered; `task` is empty where none of them was asked."""
        self._requests.labels(task, str(status)).inc()
        self._seconds.observe(seconds)

    def images(self, task: str, count: int) -> None:
        """So many more of a task."""
        self._images.labels(task).inc(count)

    def batch(self, count: int, seconds: float) -> None:
        """One more that was run."""
        self._batch_images.observe(count)
        self._batch_seconds.observe(seconds)

    def text(self, waiting: int) -> tuple[bytes, str]:
        """(all of them, content type)."""
        self._waiting.set(waiting)
        return generate_latest(self._registry), CONTENT_TYPE_LATEST
