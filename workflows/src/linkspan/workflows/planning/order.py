"""Which steps of a pipeline come before which, and what they make for those that come after."""

from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from linkspan.sdk.diagnostics import Diagnostic
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.model import Workflow
from linkspan.workflows.planning.world import full_name

SOCKET: Final = ".sock"
"""Whoever has the daemon's socket among his volumes may make whatever he likes with it."""


@attrs.frozen
class Spot:
    """A step's place in time.

    Attributes:
        job: With the jobs that call its pipeline: ``deliver/build``.
        step: Its number in the job; steps side by side have the same, services -1.
    """

    job: str
    step: int


class Order:
    """What has ended when a step begins."""

    def __init__(self) -> None:
        self._needs: dict[str, Mapping[str, tuple[str, ...]]] = {}
        self._waits: dict[tuple[str, str], frozenset[str]] = {}

    def add(self, prefix: str, workflow: Workflow) -> None:
        """Know a pipeline whose jobs have names with this prefix: empty, or ``deliver/``."""
        everything = tuple(workflow.jobs)
        self._needs[prefix] = {
            **{name: job.needed for name, job in workflow.jobs.items()},
            **dict.fromkeys(workflow.cleanup, everything),
        }

    def before(self, one: Spot, other: Spot) -> bool:
        """Whether one step has ended when another begins, in every run."""
        if one.job == other.job:
            return one.step < other.step
        first, second = one.job.split("/"), other.job.split("/")
        same = next(
            (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), None
        )
        if same is None:
            return False
        prefix = "".join(f"{name}/" for name in first[:same])
        return first[same] in self._waited_for(prefix, second[same])

    def _waited_for(self, prefix: str, job: str) -> frozenset[str]:
        """All that a job waits for, also through others. Only few are asked: kept for all they would be many."""
        if (prefix, job) not in self._waits:
            needs = self._needs[prefix]
            found: set[str] = set()
            pending = list(needs.get(job, ()))
            while pending:
                name = pending.pop()
                if name not in found:
                    found.add(name)
                    pending += needs.get(name, ())
            self._waits[prefix, job] = frozenset(found)
        return self._waits[prefix, job]


@attrs.define
class Making:
    """What steps make, what others miss, and which of that is there in time.

    Things are named as verbs name what they change: ``image app:1``, ``service web``, ``network front``.
    """

    order: Order
    _made: dict[str, list[tuple[Spot, str]]] = attrs.field(factory=dict)
    _anything: list[Spot] = attrs.field(factory=list)
    _named: dict[str, list[Spot]] = attrs.field(factory=dict)
    _missed: list[tuple[Diagnostic, str, Spot]] = attrs.field(factory=list)

    def makes(self, things: Iterable[str], spot: Spot, place: str) -> None:
        """A step makes things; ``place`` is its name for people."""
        for thing in things:
            self._made.setdefault(thing, []).append((spot, place))

    def may_make_anything(self, spot: Spot) -> None:
        """A step has the daemon in its hands."""
        self._anything.append(spot)

    def may_make(self, settings: Json, spot: Spot) -> None:
        """A step of which not all is known: it may make whatever its settings name."""
        match settings:
            case str():
                for name in {settings, full_name(settings)}:
                    self._named.setdefault(name, []).append(spot)
            case Mapping():
                for item in settings.values():
                    self.may_make(item, spot)
            case list() | tuple():
                for item in settings:
                    self.may_make(item, spot)
            case _:
                pass

    def misses(self, problem: Diagnostic, thing: str, spot: Spot) -> None:
        """A problem is none if a step before makes this thing."""
        self._missed.append((problem, thing, spot))

    def real(self, problems: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
        """The problems that the run does not mend itself in time."""
        missed: dict[int, list[tuple[str, Spot]]] = {}
        known = list(problems)
        for problem, thing, spot in self._missed:
            missed.setdefault(known.index(problem), []).append((thing, spot))
        kept = []
        for number, problem in enumerate(known):
            if number not in missed:
                kept.append(problem)
                continue
            late = [each for each in missed[number] if not self._in_time(*each)]
            if late:
                kept.append(attrs.evolve(problem, helps=(*self._helps(*late[0]), *problem.helps)))
        return tuple(kept)

    def _in_time(self, thing: str, spot: Spot) -> bool:
        makers = [maker for maker, _ in self._made.get(thing, ())]
        makers += self._named.get(thing.partition(" ")[2], ())
        return any(self.order.before(maker, spot) for maker in (*makers, *self._anything))

    def _helps(self, thing: str, spot: Spot) -> tuple[str, ...]:
        """Who makes it, but too late or who knows when."""
        for maker, place in self._made.get(thing, ()):
            if maker == spot:
                continue
            if maker.job == spot.job:
                return (f"{place} makes it, but not before this step",)
            return (f"{place} makes it; wait for it:  needs: [{_to_wait_for(maker, spot)}]",)
        return ()


def holds_socket(volumes: Json) -> bool:
    """Whether a socket is among volumes as they are written."""
    return isinstance(volumes, (list, tuple)) and any(
        isinstance(text, str) and SOCKET in text for text in volumes
    )


def _to_wait_for(maker: Spot, spot: Spot) -> str:
    """The job beside one's own, or beside the one that calls one's pipeline, in which something is made."""
    first, second = maker.job.split("/"), spot.job.split("/")
    return next((a for a, b in zip(first, second, strict=False) if a != b), first[-1])
