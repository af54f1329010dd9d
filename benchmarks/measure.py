"""A measure: a function from an engine to a number, what it needs around it, and what all share."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from place import Engine, Registry

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


@dataclass
class Bench:
    """What measures share.

    Attributes:
        tiny: A reference to an image that starts at once.
        app: One of eight layers and 26,000 files.
        many: One of forty small layers.
        target: The registry that is pushed to.
        work: A folder for files, on the disk that both engines use.
        changes: Counts what must be new each time: ports, names, files' content.
    """

    tiny: str
    app: str
    many: str
    target: Registry
    work: Path
    changes: int = 0
