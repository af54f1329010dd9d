"""The language as a JSON Schema (2020-12), for editors: completion, hover texts, red lines as one types.

It says what can be said without reading the whole file. What it cannot say (graphs, expressions, what
is granted) ``lint`` says.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from linkspan.sdk.manifest import VerbSetting
from linkspan.workflows.loading import keys
from linkspan.workflows.loading.pipeline import VERSION
from linkspan.workflows.reader import Keys
from linkspan.workflows.triggers import NAMES
from linkspan.workflows.verbs import Verb, Verbs

Schema = dict[str, Any]

_NAME: Final = "^[A-Za-z_][A-Za-z0-9_-]*$"
_EXPRESSION: Final[Schema] = {"type": "string", "pattern": r"^\s*\$\{\{[\s\S]*\}\}\s*$"}
TEXT: Final[Schema] = {"type": ["string", "number", "boolean"]}
TEXTS: Final[Schema] = {"anyOf": [TEXT, {"type": "array", "items": TEXT}]}
BOOL: Final[Schema] = {"type": "boolean"}
INT: Final[Schema] = {"type": "integer"}
_NUMBER: Final[Schema] = {"type": "number"}
_FLAG: Final[Schema] = {"anyOf": [BOOL, _EXPRESSION]}
_CONDITION: Final[Schema] = {"type": ["string", "boolean"]}
DURATION: Final[Schema] = {
    "anyOf": [
        {"type": "string", "pattern": r"^(\d+(\.\d+)?(ns|us|µs|ms|s|m|h|d))+$|^0$"},
        {"const": 0},
    ]
}
_SIZE: Final[Schema] = {"type": "string", "pattern": r"^\d+(\.\d+)?\s*[kKmMgGtTpP](i?[bB]?)$|^0$"}
_TABLE: Final[Schema] = {"type": "object", "additionalProperties": TEXT}
_NAMES_LIST: Final[Schema] = {"type": "array", "items": {"type": "string", "pattern": _NAME}}
_WORDS_OR_TABLE: Final[Schema] = {"anyOf": [_TABLE, {"type": "array", "items": TEXT}]}


def enum_of(*values: str) -> Schema:
    """One of these texts."""
    return {"enum": list(values)}


def ref_to(name: str) -> Schema:
    """One of ``$defs``."""
    return {"$ref": f"#/$defs/{name}"}


def _named(value: Schema) -> Schema:
    return {"type": "object", "propertyNames": {"pattern": _NAME}, "additionalProperties": value}


def one_or_more(value: Schema) -> Schema:
    """A value, or a list of such."""
    return {"anyOf": [value, {"type": "array", "items": value}]}


def table_of(known: Keys, types: Mapping[str, Schema], required: Iterable[str] = ()) -> Schema:
    """A table with the keys that the reader knows and no others; ``x-`` keys hold anchors."""
    return {
        "type": "object",
        "properties": {key: types[key] for key in known.known},
        "patternProperties": {"^x-": {}},
        "additionalProperties": False,
        "required": list(required),
    }


_RETRY: Final = table_of(
    keys.RETRY,
    {
        "max": {"type": "integer", "minimum": 0, "maximum": 100},
        "backoff": DURATION,
        "factor": _NUMBER,
        "max-delay": DURATION,
        "jitter": BOOL,
        "on": one_or_more({"type": "string", "pattern": r"^(network|timeout|oom|any|exit:\d+)$"}),
    },
)
_HEALTHCHECK: Final = table_of(
    keys.HEALTHCHECK,
    {
        "test": TEXTS,
        "interval": DURATION,
        "timeout": DURATION,
        "retries": {"type": "integer", "minimum": 1},
        "start_period": DURATION,
        "start_interval": DURATION,
        "disable": BOOL,
    },
)
_SERVICE: Final = table_of(
    keys.SERVICE,
    {
        "if": _CONDITION,
        "image": TEXT,
        "command": TEXTS,
        "entrypoint": TEXTS,
        "environment": _WORDS_OR_TABLE,
        "healthcheck": ref_to("healthcheck"),
        "tmpfs": TEXTS,
        "user": TEXT,
        "working_dir": TEXT,
        "depends_on": {"anyOf": [TEXTS, {"type": "object"}]},
        "cap_add": TEXTS,
        "cap_drop": TEXTS,
        "dns": TEXTS,
        "extra_hosts": _WORDS_OR_TABLE,
        "hostname": TEXT,
        "init": BOOL,
        "labels": _WORDS_OR_TABLE,
        "mem_limit": _SIZE,
        "ports": {"type": "array", "items": TEXT},
        "privileged": BOOL,
        "pull_policy": enum_of("always", "missing", "never", "if_not_present"),
        "read_only": BOOL,
        "shm_size": _SIZE,
        "stop_grace_period": DURATION,
        "sysctls": _WORDS_OR_TABLE,
        "ulimits": {"type": "object"},
        "volumes": {"type": "array", "items": TEXT},
    },
    ["image"],
)
_CACHE: Final = table_of(
    keys.CACHE,
    {
        "path": TEXT,
        "key": TEXT,
        "restore": TEXTS,
        "save": enum_of("always", "success", "never"),
    },
    ["path", "key"],
)
_LOAD: Final = table_of(keys.LOAD, {"name": TEXT, "from": TEXT, "path": TEXT}, ["name"])
_AXIS: Final = table_of(
    keys.AXIS,
    {"type": enum_of("string", "int", "bool", "float"), "values": {"type": "array"}},
    ["values"],
)
_STRATEGY: Final = table_of(
    keys.STRATEGY,
    {
        "matrix": {
            "type": "object",
            "properties": {
                "include": {"type": "array", "items": {"type": "object"}},
                "exclude": {"type": "array", "items": {"type": "object"}},
            },
            "additionalProperties": {"anyOf": [{"type": "array", "minItems": 1}, _AXIS]},
        },
        "fail-fast": BOOL,
        "max-parallel": {"type": "integer", "minimum": 1},
    },
    ["matrix"],
)
_ON_FAILURE: Final[Schema] = {"type": "string", "pattern": "^(rollback(:.+)?|pause|leave)$"}
_STEP_TYPES: Final[Mapping[str, Schema]] = {
    "id": {"type": "string", "pattern": _NAME},
    "name": TEXT,
    "if": _CONDITION,
    "run": {"type": "string"},
    "uses": {"type": "string"},
    "parallel": {"type": "array", "items": ref_to("step"), "minItems": 1},
    "wait": TEXTS,
    "cancel": TEXTS,
    "with": {"type": "object"},
    "image": TEXT,
    "env": ref_to("env"),
    "secrets": _NAMES_LIST,
    "shell": enum_of("sh", "bash", "none"),
    "working-directory": TEXT,
    "sources": TEXTS,
    "generates": TEXTS,
    "retry": ref_to("retry"),
    "timeout": DURATION,
    "grace": DURATION,
    "continue-on-error": _FLAG,
    "on-failure": _ON_FAILURE,
    "undo": {"type": "object", "required": ["uses"]},
    "reports": {"type": "object", "properties": {"junit": TEXT}, "additionalProperties": False},
    "background": BOOL,
}
_JOB_TYPES: Final[Mapping[str, Schema]] = {
    "name": TEXT,
    "needs": TEXTS,
    "if": _CONDITION,
    "strategy": _STRATEGY,
    "image": TEXT,
    "env": ref_to("env"),
    "secrets": _NAMES_LIST,
    "services": _named(ref_to("service")),
    "volumes": {"type": "array", "items": TEXT},
    "cache": one_or_more(_CACHE),
    "artifacts": _named(TEXTS),
    "load-artifacts": one_or_more({"anyOf": [{"type": "string"}, _LOAD]}),
    "outputs": ref_to("env"),
    "environment": TEXT,
    "lock": TEXT,
    "labels": _TABLE,
    "timeout": DURATION,
    "continue-on-error": _FLAG,
    "steps": {"type": "array", "items": ref_to("step"), "minItems": 1},
    "uses": {"type": "string", "pattern": r"^\.\.?/"},
    "with": {"type": "object"},
}
_INPUT: Final = table_of(
    keys.INPUT,
    {
        "type": enum_of("string", "int", "bool", "duration", "size", "choice", "list"),
        "default": {},
        "options": {"type": "array", "items": TEXT},
        "min": INT,
        "max": INT,
        "pattern": {"type": "string"},
        "required": BOOL,
        "untrusted": BOOL,
        "help": TEXT,
    },
)
_SECRET: Final = table_of(
    keys.SECRET,
    {
        "from": {"type": "string"},
        "key": TEXT,
        "required": BOOL,
        "generate": table_of(keys.GENERATE, {"length": {"type": "integer", "minimum": 8}}),
    },
    ["from"],
)
_TRIGGERS: Final[Mapping[str, Schema]] = {
    "push": {"anyOf": [{"type": "null"}, table_of(keys.PUSH, {"branches": TEXTS, "paths": TEXTS})]},
    "tag": {"anyOf": [{"type": "null"}, table_of(keys.TAG, {"tags": TEXTS})]},
    "schedule": one_or_more(
        table_of(
            keys.SCHEDULE, {"cron": {"type": "string"}, "timezone": {"type": "string"}}, ["cron"]
        )
    ),
    "watch": {
        "anyOf": [
            {"type": "null"},
            table_of(keys.WATCH, {"paths": TEXTS, "debounce": DURATION}),
        ]
    },
    "webhook": one_or_more(
        table_of(
            keys.WEBHOOK,
            {
                "provider": enum_of("github", "gitlab", "generic"),
                "secret": {"type": "string"},
                "events": TEXTS,
                "branches": TEXTS,
            },
            ["secret"],
        )
    ),
    "manual": {"type": ["boolean", "null"]},
}
_CONCURRENCY: Final[Schema] = {
    "anyOf": [
        TEXT,
        table_of(
            keys.CONCURRENCY,
            {"group": TEXT, "on-conflict": enum_of("queue", "cancel-running", "reject")},
            ["group"],
        ),
    ]
}
_INCLUDE: Final[Schema] = one_or_more(
    {
        "anyOf": [
            {"type": "string"},
            table_of(
                keys.INCLUDE,
                {"file": TEXT, "digest": {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"}},
                ["file"],
            ),
        ]
    }
)
_REQUIREMENT: Final = table_of(
    keys.REQUIREMENT,
    {
        "role": {"type": "string"},
        "features": TEXTS,
        "plugin": {"type": "string"},
        "version": {"type": "string"},
    },
)
_DEFAULTS: Final = table_of(
    keys.DEFAULTS,
    {
        "image": TEXT,
        "timeout": DURATION,
        "retry": ref_to("retry"),
        "shell": _STEP_TYPES["shell"],
        "working-directory": TEXT,
    },
)


def schema_of(verbs: Verbs) -> Schema:
    """The schema with the verbs that are installed here."""
    top: dict[str, Schema] = {
        "linkspan": {"const": VERSION, "description": "The version of the language"},
        "name": TEXT,
        "on": {
            "anyOf": [
                one_or_more(enum_of(*NAMES)),
                {"type": "object", "properties": dict(_TRIGGERS), "additionalProperties": False},
            ]
        },
        "inputs": _named(_INPUT),
        "env": ref_to("env"),
        "secrets": _named(_SECRET),
        "use": _use(verbs),
        "requires": {"type": "array", "items": _REQUIREMENT},
        "defaults": _DEFAULTS,
        "concurrency": _CONCURRENCY,
        "include": _INCLUDE,
        "jobs": _named(ref_to("job")),
        "finally": _named(ref_to("job")),
        "outputs": ref_to("env"),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A Linkspan pipeline",
        **table_of(keys.TOP, top, ["linkspan"]),
        "$defs": {
            "env": {"type": "object", "additionalProperties": TEXT},
            "retry": _RETRY,
            "healthcheck": _HEALTHCHECK,
            "service": _SERVICE,
            "job": {
                **table_of(keys.JOB, _JOB_TYPES),
                "oneOf": [{"required": ["steps"]}, {"required": ["uses"]}],
            },
            "step": _step(verbs),
        },
    }


def _use(verbs: Verbs) -> Schema:
    if not verbs.roles:
        return _named({"type": "string"})
    roles = {role: enum_of(*verbs.drivers_of(role)) for role in verbs.roles}
    return {"type": "object", "properties": roles, "additionalProperties": False}


def _step(verbs: Verbs) -> Schema:
    kinds = ("run", "uses", "parallel", "wait", "cancel")
    names = [{"const": verb.name, "description": verb.manifest.summary} for verb in verbs.values()]
    # Other verbs are not wrong to an editor: they may be installed where the pipeline runs.
    uses = {"anyOf": [*names, {"type": "string", "pattern": "/"}]} if names else {"type": "string"}
    step = table_of(keys.STEP, {**_STEP_TYPES, "uses": uses})
    return {
        **step,
        "oneOf": [{"required": [kind]} for kind in kinds],
        "allOf": [_with(verb) for verb in verbs.values()],
    }


def _with(verb: Verb) -> Schema:
    """What ``with`` may hold if a step uses this verb."""
    settings = verb.manifest.settings
    required = [name for name, setting in settings.items() if setting.required]
    then: Schema = {"properties": {"with": _settings(settings)}}
    if required:
        then["required"] = ["with"]
    uses = {"properties": {"uses": {"const": verb.name}}, "required": ["uses"]}
    return {"if": uses, "then": then}


def _settings(settings: Mapping[str, VerbSetting]) -> Schema:
    return {
        "type": "object",
        "properties": {name: _setting(setting) for name, setting in settings.items()},
        "additionalProperties": False,
        "required": [name for name, setting in settings.items() if setting.required],
    }


def _setting(setting: VerbSetting) -> Schema:
    kind = {
        "string": TEXT,
        "int": INT,
        "float": _NUMBER,
        "bool": BOOL,
        "duration": DURATION,
        "size": _SIZE,
        "port": {"type": "integer", "minimum": 0, "maximum": 65535},
        "list": {"type": "array"},
        "map": {"type": "object"},
        "any": {},
        "secrets": _WORDS_OR_TABLE,
    }[setting.type]
    if setting.options:
        kind = enum_of(*setting.options)
    elif setting.type == "map" and setting.keys:
        kind = _settings(setting.keys)
    found: Schema = dict(kind)
    if setting.type not in ("string", "any") or setting.options:
        found = {"anyOf": [kind, _EXPRESSION]}
    if setting.help:
        found["description"] = setting.help
    if setting.default is not None:
        found["default"] = setting.default
    return found
