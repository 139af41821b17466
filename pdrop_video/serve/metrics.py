"""Figures for Prometheus, in a registry of their own. Knows numbers; refuses to know where they come from."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ..stream import Answer, Pushed

_FIRST = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """All figures of one server."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.requests = Counter("pdrop_requests", "Requests answered.", ("route", "status"), registry=registry)
        self.in_flight = Gauge("pdrop_requests_in_flight", "Requests being worked on.", registry=registry)
        self.frames = Counter("pdrop_frames_watched", "Frames watched.", registry=registry)
        self.entered = Counter("pdrop_visual_tokens_entered", "Visual tokens that entered.", registry=registry)
        self.dropped = Counter(
            "pdrop_visual_tokens_dropped", "Of them, those that the deepest layers dropped.", registry=registry
        )
        self.first_token = Histogram(
            "pdrop_first_token_seconds", "From a question to its first token.", buckets=_FIRST, registry=registry
        )
        self.generated = Counter("pdrop_tokens_generated", "Tokens of answers.", registry=registry)
        self.prefixes = Counter(
            "pdrop_prefix_lookups",
            "Conversations whose beginning was remembered, or not.",
            ("found",),
            registry=registry,
        )
        self.cached_tokens = Counter(
            "pdrop_prefix_tokens_reused", "Prompt tokens that need not be computed again.", registry=registry
        )
        self.expired = Counter("pdrop_sessions_expired", "Sessions that nobody used any more.", registry=registry)
        self.events = Counter("pdrop_events", "What standing questions found.", registry=registry)

    def now(self, name: str, says: str, value: Callable[[], float]) -> None:
        """Add a figure that is read when it is asked for."""
        Gauge(name, says, registry=self.registry).set_function(value)

    def pushed(self, pushed: Pushed) -> None:
        """Count what a push did."""
        self.frames.inc(pushed.frames)
        self.entered.inc(pushed.visual_tokens)
        self.dropped.inc(max(pushed.visual_tokens - pushed.kept[-1], 0))

    def answered(self, answer: Answer) -> None:
        """Count an answer."""
        self.first_token.observe(answer.timings.first_token)
        self.generated.inc(len(answer.token_ids))

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self.registry)
