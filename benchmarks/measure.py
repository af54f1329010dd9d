"""A measure: a function from an engine to a number, and what it needs around it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from place import Engine

Sample = Callable[[Engine], float]
Act = Callable[[Engine], object]


def _nothing(engine: Engine) -> None:
    """Nothing to prepare or clean up."""


@dataclass
class Measure:
    """One line of the table.

    Attributes:
        sample: Takes one sample; engines are sampled in turn.
        rounds: Samples of each engine, unless the caller wants another number.
        goal: At most this ratio to Docker; None if there is none. For rates (unit ``/s``): at least.
        engines: Who takes part; Podman has no swarm, and its API is another program.
        before: What each engine needs first, once.
        after: Undoes that.
    """

    name: str
    what: str
    sample: Sample
    rounds: int
    goal: float | None = 1.0
    unit: str = "s"
    warm_ups: int = 1
    before: Act = _nothing
    after: Act = _nothing
    engines: tuple[str, ...] = ("docker", "podman", "linkspan")


BOTH: Final = ("docker", "linkspan")
