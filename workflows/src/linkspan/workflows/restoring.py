"""Secrets in what a step has recorded: the journal refers to them, and whoever needs one reads it anew.

A ``step-started`` record shows ``***`` where a secret stands. Its field ``secrets`` says how each such text
is put together: ``{"at": ["undo", "before"], "parts": ["Bearer ", {"secret": "TOKEN"}]}``. A part may be
what an expression makes of secrets, ``{"expression": "from_json(secrets.LOGIN).password"}``, or a password that
stands in the recorded pipeline, ``{"written": "jobs.a.env.DB_PASSWORD", "in": ""}``. No parts mean that the text
holds a secret in a form, such as base64, of which only whoever made it knows how: a person may give it.
"""

import copy
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final, cast

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
from linkspan.workflows.masking import MASK
from linkspan.workflows.running import Run
from linkspan.workflows.units import Frame
from linkspan.workflows.values import resolve_text
from linkspan.workflows.written import written_passwords

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
    for prefix, each in _frames(run).items():
        for place, value in _written(run, each).items():
            known.setdefault(value, {"written": place, "in": prefix})
    return known | {value: {"secret": key} for key, value in run.secrets.items() if value}


def _frames(run: Run) -> dict[str, Frame]:
    """The pipelines of a run by their prefixes."""
    return {"": run.frame, **{unit.frame.prefix: unit.frame for unit in run.frame.by_id.values()}}


def _written(run: Run, frame: Frame) -> dict[str, str]:
    """Passwords of a pipeline's text by their places, as far as they are made of nothing but its inputs."""
    written = list(written_passwords(frame.workflow))
    scope = Scope(contexts={})
    if any(not isinstance(text, str) for _, text in written):
        # Those that need none are known all the same.
        with suppress(EvaluationFailed):
            scope = Scope(contexts=run.env_contexts(frame))
    found = {}
    for place, text in written:
        try:
            found[place] = resolve_text(text, scope)
        except EvaluationFailed:
            continue
    return {place: value for place, value in found.items() if value}


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
            _put(fields, each["at"], _given(run, record, each["at"]))
    return {**record, **fields}


def _given(run: Run, record: Mapping[str, Json], path: list[str | int]) -> str:
    """A text of a record with what a person has given for ``***`` in it. Raises NotFound."""
    name = f"{record['job']}/{record['step']}.{'.'.join(map(str, path))}"
    if name not in run.given:
        raise NotFound(
            f"what step '{record['step']}' recorded to be taken back holds a secret in a form "
            f"that cannot be made again ({'.'.join(map(str, path))})",
            code="secret_gone",
            help=f"give what stands there for {MASK}, --secret '{name}=VALUE', or take it back by hand",
        )
    value, text = run.given[name], cast("Any", record)
    for key in path:
        text = text[key]
    run.recorder.masks.add(name, value)
    return str(text).replace(MASK, value)


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
    if "written" in part:
        return _password(run, part["written"], part["in"])
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
    frames = _frames(run)
    prefix = max((p for p in frames if key.startswith(p)), key=len)
    name = key.removeprefix(prefix)
    if name in run.given:
        run.recorder.masks.add(name, run.given[name])
        run.secrets[key] = run.given[name]
        return run.given[name]
    if name not in frames[prefix].workflow.secrets:
        raise _gone(name, "the pipeline does not name it any more")
    try:
        value = (await grant(run, frames[prefix], [name]))[name]
    except LinkspanError as error:
        raise _gone(name, error.message) from error
    if not value:
        raise _gone(name, "it is empty now")
    return value


def _password(run: Run, place: str, prefix: str) -> str:
    """A password that stands in the recorded text."""
    frame = _frames(run).get(prefix)
    found = _written(run, frame).get(place) if frame is not None else None
    if found is None:
        raise _gone(place, "the pipeline's recorded text does not have it any more")
    run.recorder.masks.add(place, found)
    return found


def _gone(name: str, why: str) -> NotFound:
    return NotFound(
        f"secret '{name}' stood in what the step recorded, and cannot be read: {why}",
        code="secret_gone",
        help=f"set it again (linkspan workflow secret set {name}), or give it: --secret '{name}=VALUE'",
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
