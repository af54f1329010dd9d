"""Secrets in what a step has recorded: the journal refers to them, and whoever needs one reads it anew.

A ``step-started`` record shows ``***`` where a secret stands. Its field ``secrets`` says how each such text
is put together: ``{"at": ["undo", "before"], "parts": ["Bearer ", {"secret": "TOKEN"}]}``. A part may be
what an expression makes of secrets, ``{"expression": "from_json(secrets.LOGIN).password"}``. No parts mean
that the text holds a secret in a form, such as base64, of which only whoever made it knows how.
"""

import copy
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs

from linkspan.sdk.errors import LinkspanError, NotFound
from linkspan.workflows.expressions import (
    EvaluationFailed,
    ExpressionInvalid,
    Scope,
    evaluate,
    parse,
)
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.granting import grant
from linkspan.workflows.running import Run
from linkspan.workflows.units import Frame

_FIELDS: Final = ("settings", "undo")


def references(run: Run, frame: Frame, record: Mapping[str, Json]) -> dict[str, Json]:
    """The field ``secrets`` of an intent that is about to be recorded; nothing if no secret is in it."""
    masks = run.recorder.masks
    if masks.empty:
        return {}
    texts = [
        (path, text)
        for field in _FIELDS
        for path, text in _texts(record[field], [field])
        if masks.mask(text) != text
    ]
    if not texts:
        return {}
    known = _known(run, frame)
    longest = sorted(known, key=len, reverse=True)
    pattern = re.compile("|".join(f"({re.escape(value)})" for value in longest) or "(?!)")
    found: list[Json] = []
    for path, text in texts:
        parts: list[Json] = [
            known.get(part, part) for part in pattern.split(text) if part is not None and part != ""
        ]
        whole = all(masks.mask(part) == part for part in parts if isinstance(part, str))
        found.append({"at": path, "parts": parts if whole else []})
    return {"secrets": found}


def _texts(value: Json, path: list[str | int]) -> Iterator[tuple[list[str | int], str]]:
    """All texts in a value, with where they stand."""
    match value:
        case str():
            yield path, value
        case Mapping():
            for key, item in value.items():
                yield from _texts(item, [*path, str(key)])
        case list() | tuple():
            for number, item in enumerate(value):
                yield from _texts(item, [*path, number])
        case _:
            pass


def _known(run: Run, frame: Frame) -> dict[str, dict[str, str]]:
    """What can be read anew, by its value now."""
    known = {}
    for text, source in run.recorder.masks.made.items():
        try:
            if evaluate(parse(source), _scope(frame, run.secrets)) == text:
                known[text] = {"expression": source}
        except (EvaluationFailed, ExpressionInvalid):
            continue  # it reads more than secrets, or those of another pipeline
    return known | {value: {"secret": key} for key, value in run.secrets.items() if value}


def _scope(frame: Frame, values: Mapping[str, str]) -> Scope:
    declared = frame.workflow.secrets
    here = {name: f"{frame.prefix}{name}" for name in declared}
    return Scope(
        contexts={"secrets": {name: values[key] for name, key in here.items() if key in values}}
    )


async def restored(run: Run, record: Mapping[str, Json]) -> Mapping[str, Json]:
    """An intent from the journal with the secrets of now.

    A setting of which nobody knows how its secret stood there stays as it is, masked: most ways back need
    only what was recorded for them.

    Raises:
        NotFound: A secret is not there any more, or what was recorded for the way back holds one in a form
            that cannot be made again; code ``secret_gone``.
    """
    if not record.get("secrets"):
        return record
    frame = run.frame.by_id[str(record["job"])].frame
    fields = {name: copy.deepcopy(_plain(record[name])) for name in _FIELDS}
    for each in record["secrets"]:
        if each["parts"]:
            text = "".join([await _part(run, frame, part) for part in each["parts"]])
            _put(fields, each["at"], text)
        elif each["at"][0] == "undo":
            place = ".".join(map(str, each["at"]))
            raise NotFound(
                f"what step '{record['step']}' recorded to be taken back holds a secret in a form "
                f"that cannot be made again ({place})",
                code="secret_gone",
                help="take it back by hand",
            )
    return {**record, **fields}


def _plain(value: Json) -> Json:
    """Mappings and lists that can be changed."""
    match value:
        case Mapping():
            return {key: _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case _:
            return value


def _put(fields: dict[str, Any], path: list[str | int], text: str) -> None:
    place: Any = fields
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = text


async def _part(run: Run, frame: Frame, part: Json) -> str:
    if isinstance(part, str):
        return part
    if "secret" in part:
        return await _secret(run, part["secret"])
    tree = parse(part["expression"])
    for name in frame.workflow.secrets:
        if re.search(rf"\b{re.escape(name)}\b", part["expression"]):
            await _secret(run, f"{frame.prefix}{name}")
    try:
        text = evaluate(tree, _scope(frame, run.secrets))
    except EvaluationFailed as error:
        raise _gone(part["expression"], str(error)) from error
    if not isinstance(text, str):
        raise _gone(part["expression"], "it is no text any more")
    run.recorder.masks.add(part["expression"], text, source=part["expression"])
    return text


async def _secret(run: Run, key: str) -> str:
    frames = {"": run.frame, **{u.frame.prefix: u.frame for u in run.frame.by_id.values()}}
    prefix = max((p for p in frames if key.startswith(p)), key=len)
    name = key.removeprefix(prefix)
    if name not in frames[prefix].workflow.secrets:
        raise _gone(name, "the pipeline does not name it any more")
    try:
        value = (await grant(run, frames[prefix], [name]))[name]
    except LinkspanError as error:
        raise _gone(name, error.message) from error
    if not value:
        raise _gone(name, "it is empty now")
    return value


def _gone(name: str, why: str) -> NotFound:
    return NotFound(
        f"secret '{name}' stood in what the step recorded, and cannot be read: {why}",
        code="secret_gone",
        help="set it again (linkspan workflow secret set NAME), then repeat this",
    )


@attrs.frozen
class Granted:
    """Secrets of a step, as far as they can be read now."""

    values: Mapping[str, str]
    missing: tuple[str, ...] = ()


async def granted_again(run: Run, job: str, step: str) -> Granted:
    """What a step had been granted; one that is gone is left out, for its way back may not need it."""
    unit = run.frame.by_id[job]
    own = next((each.secrets for each in unit.job.all_steps() if each.id == step), ())
    values: dict[str, str] = {}
    missing = []
    for name in dict.fromkeys((*unit.job.secrets, *own)):
        try:
            values |= await grant(run, unit.frame, [name])
        except LinkspanError as error:
            missing.append(f"secret '{name}' cannot be read: {error.message}")
    return Granted(values, tuple(missing))
