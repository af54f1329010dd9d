"""Inputs given on the command line or by a client, typed as the pipeline declares them."""

import re
from collections.abc import Mapping

from linkspan.sdk.diagnostics import did_you_mean
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.units import parse_duration, parse_size
from linkspan.workflows.concealing import called_secret
from linkspan.workflows.expressions.patterns import Pattern
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.model import Input, Workflow
from linkspan.workflows.reader import one_of

_INT = re.compile(r"[-+]?[0-9]{1,18}")


def read_inputs(
    workflow: Workflow, given: Mapping[str, str], *, recorded: Mapping[str, Json] | None = None
) -> dict[str, Json]:
    """All inputs of a run: those given, and the defaults of the others.

    Args:
        workflow: The pipeline.
        given: Texts by name.
        recorded: Values of an earlier run, which stand for the defaults.

    Raises:
        InvalidArgument: Code ``invalid_input``; the message has one line for each thing wrong.
    """
    faults: list[str] = []
    values: dict[str, Json] = {}
    for name in given:
        if name not in workflow.inputs:
            near = did_you_mean(name, workflow.inputs)
            known = ", ".join(workflow.inputs) or "none"
            hint = f"did you mean '{near}'?" if near else f"inputs: {known}"
            faults.append(f"there is no input '{name}'; {hint}")
    for name, spec in workflow.inputs.items():
        if name in given and _must_not_be_recorded(spec):
            faults.append(
                f"input '{name}' is called like a secret, and inputs are recorded with the run; declare it "
                f"under `secrets`, or allow it there: # linkspan: allow LS1304 <reason>"
            )
        elif name in given:
            try:
                values[name] = _typed(spec, given[name])
            except ValueError as fault:
                faults.append(f"input '{name}' {fault}")
        elif recorded is not None and name in recorded:
            values[name] = recorded[name]
        elif spec.default is None and spec.required:
            faults.append(f"input '{name}' is required: --input {name}=...")
        else:
            default = spec.default
            values[name] = list(default) if isinstance(default, tuple) else default
    if faults:
        raise InvalidArgument("\n".join(faults), code="invalid_input")
    return values


def typed_inputs(workflow: Workflow, given: Mapping[str, Json]) -> dict[str, Json]:
    """The inputs of a pipeline that another one calls, from evaluated values.

    Raises:
        InvalidArgument: Code ``invalid_input``, as for ``read_inputs``.
    """
    texts = {name: value for name, value in given.items() if isinstance(value, str)}
    rest = {name: value for name, value in given.items() if value is not None}
    return read_inputs(workflow, texts, recorded={n: v for n, v in rest.items() if n not in texts})


def _must_not_be_recorded(spec: Input) -> bool:
    return spec.type in ("string", "list") and not spec.recorded and called_secret(spec.name)


def _typed(spec: Input, text: str) -> Json:
    match spec.type:
        case "int":
            return _whole(spec, text)
        case "bool":
            if text not in {"true", "false"}:
                raise ValueError(f"must be true or false, found '{text}'")
            return text == "true"
        case "choice":
            if text not in spec.options:
                raise ValueError(f"must be {one_of(spec.options)}, found '{text}'")
            return text
        case "duration" | "size":
            return _quantity(spec, text)
        case "list":
            return [item.strip() for item in text.split(",")] if text else []
        case "string":
            if spec.pattern and not Pattern(spec.pattern).fullmatch(text):
                raise ValueError(f"does not match {spec.pattern}: '{text}'")
            return text


def _whole(spec: Input, text: str) -> int:
    if _INT.fullmatch(text) is None:
        raise ValueError(f"must be a whole number, found '{text}'")
    value = int(text)
    if spec.minimum is not None and value < spec.minimum:
        raise ValueError(f"must be at least {spec.minimum}, found {value}")
    if spec.maximum is not None and value > spec.maximum:
        raise ValueError(f"must be at most {spec.maximum}, found {value}")
    return value


def _quantity(spec: Input, text: str) -> str:
    try:
        if spec.type == "duration":
            parse_duration(text)
        else:
            parse_size(text)
    except InvalidArgument as fault:
        raise ValueError(f"is an {fault.message}") from fault
    return text
