"""Which flags the values have that a script is given: what it makes of them carries them on.

A script may make anything of anything, so all its outputs count as made of what it was given. A value is
given by the step's own ``env``, and by a variable of the job, the pipeline or a context (``$GIT_BRANCH``)
whose name stands in the script: every script gets all of those, and few read them.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from linkspan.workflows.expressions.types import DERIVED, NO_FLAGS, UNTRUSTED, Kind, Type
from linkspan.workflows.model import Step
from linkspan.workflows.script import variable

_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def derived(flags: frozenset[str]) -> frozenset[str]:
    """The flags of what a script has made of something with these."""
    return DERIVED if flags & (UNTRUSTED | DERIVED) else NO_FLAGS


def flags_given(
    step: Step, contexts: Mapping[str, Type], steps: Mapping[str, Type]
) -> frozenset[str]:
    """The flags of all that a script is given.

    Args:
        step: Its step.
        contexts: What the step sees, with its own ``env``.
        steps: The steps before it by their ids as variables have them.
    """
    env = contexts["env"].fields or {}
    found = NO_FLAGS
    for name in step.env:
        found |= env[name].flags
    for word in set(_WORD.findall(step.run or "")):
        if word in env:
            found |= env[word].flags
            continue
        prefix, _, rest = word.partition("_")
        if prefix in ("INPUT", "GIT"):
            below = contexts["inputs" if prefix == "INPUT" else "git"]
            found |= _of_field(below, rest)
        elif prefix == "STEPS":
            found |= _of_outputs(steps, rest)
        elif prefix == "NEEDS":
            needs = contexts["needs"].fields or {}
            found |= _of_outputs({variable(name): each for name, each in needs.items()}, rest)
    return found


def _of_field(type_: Type, name: str) -> frozenset[str]:
    if type_.fields is None:
        return type_.flags | (type_.item.flags if type_.item else NO_FLAGS)
    for key, found in type_.fields.items():
        if variable(key) == name:
            return found.flags
    return NO_FLAGS


def _of_outputs(results: Mapping[str, Type], rest: str) -> frozenset[str]:
    """Of ``BUILD_DIGEST``: the output ``digest`` of ``build``; an id may have several words."""
    for name, output in _splits(rest):
        found = results.get(name)
        outputs = None if found is None else (found.fields or {}).get("outputs")
        if outputs is not None and outputs.kind is Kind.MAP and output != "RESULT":
            return _of_field(outputs, output)
    return NO_FLAGS


def _splits(text: str) -> Iterator[tuple[str, str]]:
    """Each way to read a text as an id and a name, the longest id first."""
    place = text.rfind("_")
    while place > 0:
        yield text[:place], text[place + 1 :]
        place = text.rfind("_", 0, place)
