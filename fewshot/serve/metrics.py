"""What Prometheus reads: requests, latencies, the queue, classes, what is unknown, and drift."""

from __future__ import annotations

import os
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary, generate_latest, multiprocess

from fewshot.serve.view import View

#: Seconds, from a cached answer to a large upload.
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
#: Set for several worker processes, which then add up their figures.
SHARED = "PROMETHEUS_MULTIPROC_DIR"


class Metrics:
    """The figures of one application."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "fewshot_requests", "Requests by route and status.", ["method", "route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "fewshot_request_seconds", "Seconds a request took.", ["route"], buckets=_SECONDS, registry=registry
        )
        self.queue = self._gauge("fewshot_queue_images", "Images that wait to be embedded.", "livesum")
        self.batch = Histogram(
            "fewshot_batch_images", "Images that were embedded together.", buckets=(1, 2, 4, 8, 16), registry=registry
        )
        self.answers = Counter("fewshot_answers", "Answers to images, by kind.", ["kind"], registry=registry)
        self.similarity = Summary(
            "fewshot_nearest_similarity",
            "Similarity of queries, one a second and those that ask for neighbours, to the nearest example: drift "
            "lowers it below fewshot_usual_similarity.",
            registry=registry,
        )
        self._usual = self._gauge(
            "fewshot_usual_similarity", "Mean similarity of an example to its nearest other one.", "mostrecent"
        )
        self._classes = self._gauge("fewshot_classes", "Classes of the classifier.", "mostrecent")
        self._examples = self._gauge("fewshot_examples", "Examples that were learned.", "mostrecent")

    def _gauge(self, name: str, about: str, mode: Any) -> Gauge:
        return Gauge(name, about, registry=self._registry, multiprocess_mode=mode)

    def render(self, view: View) -> bytes:
        """Return the figures in the text format of Prometheus."""
        self._classes.set(len(view.classes))
        self._examples.set(sum(view.classes.values()))
        if (usual := None if view.is_empty else view.usual_similarity) is not None:
            self._usual.set(usual)
        registry = self._registry
        if SHARED in os.environ:
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)
        return generate_latest(registry)
