"""``expect`` of a scenario to a list of expectations."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from linkspan.workflows.expressions.types import Json
from linkspan.workflows.parse import Field, Node
from linkspan.workflows.reader import Keys, Reader
from linkspan.workflows.scenarios.model import Expectation
from linkspan.workflows.scenarios.places import Places

RESULTS: Final = (
    "success",
    "warned",
    "failed",
    "skipped",
    "cancelled",
    "timed-out",
    "rejected",
    "suspended",
)
STEP_LISTS: Final = ("order", "undone", "skipped", "kept")
"""Lists of steps: ``order`` of those that began, and all that were undone, skipped, kept."""
TABLES: Final = ("with", "env", "outputs")

EXPECT: Final = Keys(table="expect", known=("result", *STEP_LISTS, "jobs", "steps"))
STEP: Final = Keys(table="expect-step", known=("result", "tries", *TABLES, "log", "error"))


class Expecting:
    """Reads ``expect``; made with what reads a value of any kind."""

    def __init__(self, reader: Reader, places: Places, value: Callable[[Node], Json]) -> None:
        self.r = reader
        self.places = places
        self._value = value

    def __call__(self, node: Node) -> Sequence[Expectation]:
        """All that is expected, in the order written."""
        fields = self.r.table(node, "'expect'", EXPECT)
        found: list[Expectation] = []
        for name, field in fields.items():
            if name == "result":
                found += self._result(field, "")
            elif name == "jobs":
                for job, each in self.r.entries(field.value, "'jobs'").items():
                    if self.places.job(job, each.key):
                        found += self._result(each, job)
            elif name == "steps":
                for place, each in self.r.entries(field.value, "'steps'").items():
                    if self.places.step(place, each.key, exact=True) is not None:
                        found += self._step(place, each.value)
            else:
                found.append(self._list(name, field))
        if not found:
            self.r.fault("LS1008", "a scenario expects nothing", node, helps=["result: success"])
        return found

    def _result(self, field: Field, place: str) -> Iterator[Expectation]:
        value = self.r.choice(field.value, "'result'", RESULTS)
        if value is not None:
            yield Expectation(kind="result", place=place, value=value, span=field.value.span)

    def _list(self, name: str, field: Field) -> Expectation:
        places: list[Json] = []
        for node in self.r.items(field.value, f"'{name}'"):
            place = self.r.text(node, f"an item of '{name}'")
            if place is not None and self.places.step(place, node, exact=True) is not None:
                places.append(place)
        return Expectation(kind=name, value=places, span=field.key.span)

    def _step(self, place: str, node: Node) -> Iterator[Expectation]:
        for name, field in self.r.table(node, f"what '{place}' is expected to do", STEP).items():
            span = field.value.span
            if name == "result":
                yield from self._result(field, place)
            elif name == "tries":
                count = self.r.integer(field.value, "'tries'", least=0)
                if count is not None:
                    yield Expectation(kind=name, place=place, value=count, span=span)
            elif name in TABLES:
                for key, each in self.r.entries(field.value, f"'{name}'").items():
                    value, at = self._value(each.value), each.value.span
                    yield Expectation(kind=name, place=place, name=key, value=value, span=at)
            else:
                for item in self.r.one_or_more(field.value):
                    text = self.r.text(item, f"'{name}'")
                    if text is not None:
                        yield Expectation(kind=name, place=place, value=text, span=item.span)
