"""Health checks between JSON (HealthConfig, nanoseconds) and the model."""

from typing import Any

from linkspan.plugins.docker_api.document import Document
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.image_config import healthcheck_document
from linkspan.sdk.model.container import Health, Healthcheck

_SHORTEST_NS = 1_000_000


def decode_healthcheck(body: Document, called: str = "Healthcheck") -> Healthcheck:
    """A HealthConfig, as errors call it; zero and absent times are the usual ones.

    Raises:
        InvalidArgument: A time is shorter than Docker allows, or retries are negative.
    """
    for key in ("Interval", "Timeout", "StartPeriod", "StartInterval"):
        value = body.number(key)
        if value and value < _SHORTEST_NS:
            raise InvalidArgument(f"{key} in {called} cannot be less than 1ms")
    if body.number("Retries") < 0:
        raise InvalidArgument(f"Retries in {called} cannot be negative")
    return Healthcheck(
        test=body.texts("Test"),
        interval_s=body.seconds("Interval"),
        timeout_s=body.seconds("Timeout"),
        retries=body.number("Retries"),
        start_period_s=body.seconds("StartPeriod"),
        start_interval_s=body.seconds("StartInterval"),
    )


def nanoseconds(seconds: float) -> int:
    """A duration as the API counts it."""
    return round(seconds * 1e9)


def encode_healthcheck(check: Healthcheck) -> dict[str, Any]:
    """A HealthConfig: what was said, as images' configs have it."""
    return healthcheck_document(check)


def encode_health(health: Health) -> dict[str, Any]:
    """State.Health."""
    return {
        "Status": health.status.value,
        "FailingStreak": health.failing_streak,
        "Log": [
            {"Start": p.start, "End": p.end, "ExitCode": p.exit_code, "Output": p.output}
            for p in health.log
        ],
    }
