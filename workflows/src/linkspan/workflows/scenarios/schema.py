"""Scenario files as a JSON Schema (2020-12), for editors.

What a pipeline has (its jobs, steps, inputs and outputs) ``linkspan workflow test`` compares.
"""

from collections.abc import Mapping
from typing import Final

from linkspan.workflows.scenarios import expecting, loading
from linkspan.workflows.schema import (
    BOOL,
    DURATION,
    TEXT,
    TEXTS,
    Schema,
    enum_of,
    one_or_more,
    ref_to,
    table_of,
)

_VALUES: Final[Schema] = {"type": "object"}
_STRINGS: Final[Schema] = {"type": "object", "additionalProperties": TEXT}
_STEP: Final[Schema] = {"type": "string", "pattern": "^[^/]+/[^/]+$"}
_STEPS: Final[Schema] = {"type": "array", "items": _STEP}
_SHA: Final[Schema] = {"type": ["string", "number"]}
_GIT: Final[Mapping[str, Schema]] = {
    "sha": _SHA,
    "short_sha": _SHA,
    "branch": TEXT,
    "tag": TEXT,
    "dirty": BOOL,
}
_ANSWER: Final[Mapping[str, Schema]] = {
    "outputs": {**_VALUES, "description": "What the step gives to others"},
    "log": {**TEXTS, "description": "Lines that it writes"},
    "exit": {"type": "integer", "minimum": 0, "maximum": 255, "description": "Of a script"},
    "fails": {**TEXT, "description": "The message of its failure"},
    "cause": {**enum_of(*loading.CAUSES), "description": "Why, as retry.on compares it"},
    "takes": {**DURATION, "description": "How long, on the clock of the scenario"},
    "files": {**_STRINGS, "description": "Written to the workspace: path and text"},
    "undo": {**BOOL, "description": "Whether a verb knows its way back"},
    "undo-fails": {**TEXT, "description": "The message of a way back that fails"},
    "decision": {**enum_of(*loading.DECISIONS), "description": "Of whoever is asked"},
    "applied": {**BOOL, "description": "What a verb says of itself after a crash"},
}
_PULL: Final[Mapping[str, Schema]] = {
    "fails": {**TEXT, "description": "The message of its failure"},
    "cause": enum_of(*loading.CAUSES[:2]),
    "takes": DURATION,
}
_EXPECTED_STEP: Final[Mapping[str, Schema]] = {
    "result": enum_of(*expecting.RESULTS),
    "tries": {"type": "integer", "minimum": 0},
    "with": {**_VALUES, "description": "Of a verb its settings, of a script its image"},
    "env": _VALUES,
    "outputs": _VALUES,
    "log": {**TEXTS, "description": "Some line holds this"},
    "error": {**TEXTS, "description": "The message holds this"},
}
_EXPECT: Final[Mapping[str, Schema]] = {
    "result": {**enum_of(*expecting.RESULTS), "description": "Of the run"},
    "order": {**_STEPS, "description": "They began in this order"},
    "undone": {**_STEPS, "description": "All steps that were taken back"},
    "skipped": {**_STEPS, "description": "All steps that were skipped"},
    "kept": {**_STEPS, "description": "All steps that a resume found done"},
    "jobs": {"type": "object", "additionalProperties": enum_of(*expecting.RESULTS)},
    "steps": {
        "type": "object",
        "additionalProperties": table_of(expecting.STEP, _EXPECTED_STEP),
    },
}
_SCENARIO: Final[Mapping[str, Schema]] = {
    "name": {**TEXT, "description": "What it shows"},
    "inputs": {**_STRINGS, "description": "As on the command line"},
    "secrets": {**_STRINGS, "description": "Values by name; one that is not here has none"},
    "git": table_of(loading.GIT, _GIT),
    "files": {**_STRINGS, "description": "The sources: path and text"},
    "images": {
        "type": "object",
        "additionalProperties": one_or_more(ref_to("pull")),
        "description": "What comes of pulling them, the first time, the second time …",
    },
    "steps": {
        "type": "object",
        "propertyNames": _STEP,
        "additionalProperties": one_or_more(ref_to("answer")),
        "description": "What they answer, the first time, the second time …",
    },
    "crash": {
        **table_of(loading.CRASH, {"after": _STEP, "during": _STEP}),
        "minProperties": 1,
        "maxProperties": 1,
        "description": "When the daemon dies; the run is resumed",
    },
    "cancel": {
        **table_of(loading.CANCEL, {"during": _STEP, "kill": BOOL}, ["during"]),
        "description": "While which step somebody stops the run",
    },
    "resume": {**BOOL, "description": "Go on once with a run that did not succeed"},
    "expect": ref_to("expect"),
}


def scenario_schema() -> Schema:
    """The schema of a scenario file."""
    scenario = table_of(loading.SCENARIO, _SCENARIO, ["name", "expect"])
    top = {
        "pipeline": {**TEXT, "description": "A name in .linkspan, or a path"},
        "scenarios": {"type": "array", "items": scenario, "minItems": 1},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Scenarios of a Linkspan pipeline",
        **table_of(loading.FILE, top, ["pipeline", "scenarios"]),
        "$defs": {
            "answer": table_of(loading.ANSWER, _ANSWER),
            "pull": table_of(loading.PULL, _PULL),
            "expect": {**table_of(expecting.EXPECT, _EXPECT), "minProperties": 1},
        },
    }
