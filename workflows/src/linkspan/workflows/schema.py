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
_TEXT: Final[Schema] = {"type": ["string", "number", "boolean"]}
_TEXTS: Final[Schema] = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]}
_BOOL: Final[Schema] = {"type": "boolean"}
_INT: Final[Schema] = {"type": "integer"}
_NUMBER: Final[Schema] = {"type": "number"}
_FLAG: Final[Schema] = {"anyOf": [_BOOL, _EXPRESSION]}
_CONDITION: Final[Schema] = {"type": ["string", "boolean"]}
_DURATION: Final[Schema] = {
    "anyOf": [
        {"type": "string", "pattern": r"^(\d+(\.\d+)?(ns|us|µs|ms|s|m|h|d))+$|^0$"},
        {"const": 0},
    ]
}
_SIZE: Final[Schema] = {"type": "string", "pattern": r"^\d+(\.\d+)?\s*[kKmMgGtTpP](i?[bB]?)$|^0$"}
_TABLE: Final[Schema] = {"type": "object", "additionalProperties": _TEXT}
_NAMES_LIST: Final[Schema] = {"type": "array", "items": {"type": "string", "pattern": _NAME}}
_WORDS_OR_TABLE: Final[Schema] = {"anyOf": [_TABLE, {"type": "array", "items": _TEXT}]}


def _enum(*values: str) -> Schema:
    return {"enum": list(values)}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _named(value: Schema) -> Schema:
    return {"type": "object", "propertyNames": {"pattern": _NAME}, "additionalProperties": value}


def _one_or_more(value: Schema) -> Schema:
    return {"anyOf": [value, {"type": "array", "items": value}]}


def _table(known: Keys, types: Mapping[str, Schema], required: Iterable[str] = ()) -> Schema:
    """A table with the keys that the reader knows and no others; ``x-`` keys hold anchors."""
    return {
        "type": "object",
        "properties": {key: types[key] for key in known.known},
        "patternProperties": {"^x-": {}},
        "additionalProperties": False,
        "required": list(required),
    }


_RETRY: Final = _table(
    keys.RETRY,
    {
        "max": {"type": "integer", "minimum": 0, "maximum": 100},
        "backoff": _DURATION,
        "factor": _NUMBER,
        "max-delay": _DURATION,
        "jitter": _BOOL,
        "on": _one_or_more({"type": "string", "pattern": r"^(network|timeout|oom|any|exit:\d+)$"}),
    },
)
_HEALTHCHECK: Final = _table(
    keys.HEALTHCHECK,
    {
        "test": _TEXTS,
        "interval": _DURATION,
        "timeout": _DURATION,
        "retries": {"type": "integer", "minimum": 1},
        "start_period": _DURATION,
        "start_interval": _DURATION,
        "disable": _BOOL,
    },
)
_SERVICE: Final = _table(
    keys.SERVICE,
    {
        "if": _CONDITION,
        "image": _TEXT,
        "command": _TEXTS,
        "entrypoint": _TEXTS,
        "environment": _WORDS_OR_TABLE,
        "healthcheck": _ref("healthcheck"),
        "tmpfs": _TEXTS,
        "user": _TEXT,
        "working_dir": _TEXT,
        "depends_on": {"anyOf": [_TEXTS, {"type": "object"}]},
        "cap_add": _TEXTS,
        "cap_drop": _TEXTS,
        "dns": _TEXTS,
        "extra_hosts": _WORDS_OR_TABLE,
        "hostname": _TEXT,
        "init": _BOOL,
        "labels": _WORDS_OR_TABLE,
        "mem_limit": _SIZE,
        "ports": {"type": "array", "items": _TEXT},
        "privileged": _BOOL,
        "pull_policy": _enum("always", "missing", "never", "if_not_present"),
        "read_only": _BOOL,
        "shm_size": _SIZE,
        "stop_grace_period": _DURATION,
        "sysctls": _WORDS_OR_TABLE,
        "ulimits": {"type": "object"},
        "volumes": {"type": "array", "items": _TEXT},
    },
    ["image"],
)
_CACHE: Final = _table(
    keys.CACHE,
    {
        "path": _TEXT,
        "key": _TEXT,
        "restore": _TEXTS,
        "save": _enum("always", "success", "never"),
    },
    ["path", "key"],
)
_LOAD: Final = _table(keys.LOAD, {"name": _TEXT, "from": _TEXT, "path": _TEXT}, ["name"])
_AXIS: Final = _table(
    keys.AXIS,
    {"type": _enum("string", "int", "bool", "float"), "values": {"type": "array"}},
    ["values"],
)
_STRATEGY: Final = _table(
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
        "fail-fast": _BOOL,
        "max-parallel": {"type": "integer", "minimum": 1},
    },
    ["matrix"],
)
_ON_FAILURE: Final[Schema] = {"type": "string", "pattern": "^(rollback(:.+)?|pause|leave)$"}
_STEP_TYPES: Final[Mapping[str, Schema]] = {
    "id": {"type": "string", "pattern": _NAME},
    "name": _TEXT,
    "if": _CONDITION,
    "run": {"type": "string"},
    "uses": {"type": "string"},
    "parallel": {"type": "array", "items": _ref("step"), "minItems": 1},
    "wait": _TEXTS,
    "cancel": _TEXTS,
    "with": {"type": "object"},
    "image": _TEXT,
    "env": _ref("env"),
    "secrets": _NAMES_LIST,
    "shell": _enum("sh", "bash", "none"),
    "working-directory": _TEXT,
    "sources": _TEXTS,
    "generates": _TEXTS,
    "retry": _ref("retry"),
    "timeout": _DURATION,
    "grace": _DURATION,
    "continue-on-error": _FLAG,
    "on-failure": _ON_FAILURE,
    "undo": {"type": "object", "required": ["uses"]},
    "reports": {"type": "object", "properties": {"junit": _TEXT}, "additionalProperties": False},
    "background": _BOOL,
}
_JOB_TYPES: Final[Mapping[str, Schema]] = {
    "name": _TEXT,
    "needs": _TEXTS,
    "if": _CONDITION,
    "strategy": _STRATEGY,
    "image": _TEXT,
    "env": _ref("env"),
    "secrets": _NAMES_LIST,
    "services": _named(_ref("service")),
    "volumes": {"type": "array", "items": _TEXT},
    "cache": _one_or_more(_CACHE),
    "artifacts": _named(_TEXTS),
    "load-artifacts": _one_or_more({"anyOf": [{"type": "string"}, _LOAD]}),
    "outputs": _ref("env"),
    "environment": _TEXT,
    "lock": _TEXT,
    "labels": _TABLE,
    "timeout": _DURATION,
    "continue-on-error": _FLAG,
    "steps": {"type": "array", "items": _ref("step"), "minItems": 1},
    "uses": {"type": "string", "pattern": r"^\.\.?/"},
    "with": {"type": "object"},
}
_INPUT: Final = _table(
    keys.INPUT,
    {
        "type": _enum("string", "int", "bool", "duration", "size", "choice", "list"),
        "default": {},
        "options": {"type": "array", "items": _TEXT},
        "min": _INT,
        "max": _INT,
        "pattern": {"type": "string"},
        "required": _BOOL,
        "untrusted": _BOOL,
        "help": _TEXT,
    },
)
_SECRET: Final = _table(
    keys.SECRET,
    {
        "from": {"type": "string"},
        "key": _TEXT,
        "required": _BOOL,
        "generate": _table(keys.GENERATE, {"length": {"type": "integer", "minimum": 8}}),
    },
    ["from"],
)
_TRIGGERS: Final[Mapping[str, Schema]] = {
    "push": {"anyOf": [{"type": "null"}, _table(keys.PUSH, {"branches": _TEXTS, "paths": _TEXTS})]},
    "tag": {"anyOf": [{"type": "null"}, _table(keys.TAG, {"tags": _TEXTS})]},
    "schedule": _one_or_more(
        _table(
            keys.SCHEDULE, {"cron": {"type": "string"}, "timezone": {"type": "string"}}, ["cron"]
        )
    ),
    "watch": {
        "anyOf": [
            {"type": "null"},
            _table(keys.WATCH, {"paths": _TEXTS, "debounce": _DURATION}),
        ]
    },
    "webhook": _one_or_more(
        _table(
            keys.WEBHOOK,
            {
                "provider": _enum("github", "gitlab", "generic"),
                "secret": {"type": "string"},
                "events": _TEXTS,
                "branches": _TEXTS,
            },
            ["secret"],
        )
    ),
    "manual": {"type": ["boolean", "null"]},
}
_CONCURRENCY: Final[Schema] = {
    "anyOf": [
        _TEXT,
        _table(
            keys.CONCURRENCY,
            {"group": _TEXT, "on-conflict": _enum("queue", "cancel-running", "reject")},
            ["group"],
        ),
    ]
}
_INCLUDE: Final[Schema] = _one_or_more(
    {
        "anyOf": [
            {"type": "string"},
            _table(
                keys.INCLUDE,
                {"file": _TEXT, "digest": {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"}},
                ["file"],
            ),
        ]
    }
)
_REQUIREMENT: Final = _table(
    keys.REQUIREMENT,
    {
        "role": {"type": "string"},
        "features": _TEXTS,
        "plugin": {"type": "string"},
        "version": {"type": "string"},
    },
)
_DEFAULTS: Final = _table(
    keys.DEFAULTS,
    {
        "image": _TEXT,
        "timeout": _DURATION,
        "retry": _ref("retry"),
        "shell": _STEP_TYPES["shell"],
        "working-directory": _TEXT,
    },
)


def schema_of(verbs: Verbs) -> Schema:
    """The schema with the verbs that are installed here."""
    top: dict[str, Schema] = {
        "linkspan": {"const": VERSION, "description": "The version of the language"},
        "name": _TEXT,
        "on": {
            "anyOf": [
                _one_or_more(_enum(*NAMES)),
                {"type": "object", "properties": dict(_TRIGGERS), "additionalProperties": False},
            ]
        },
        "inputs": _named(_INPUT),
        "env": _ref("env"),
        "secrets": _named(_SECRET),
        "use": _use(verbs),
        "requires": {"type": "array", "items": _REQUIREMENT},
        "defaults": _DEFAULTS,
        "concurrency": _CONCURRENCY,
        "include": _INCLUDE,
        "jobs": _named(_ref("job")),
        "finally": _named(_ref("job")),
        "outputs": _ref("env"),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A Linkspan pipeline",
        **_table(keys.TOP, top, ["linkspan"]),
        "$defs": {
            "env": {"type": "object", "additionalProperties": _TEXT},
            "retry": _RETRY,
            "healthcheck": _HEALTHCHECK,
            "service": _SERVICE,
            "job": {
                **_table(keys.JOB, _JOB_TYPES),
                "oneOf": [{"required": ["steps"]}, {"required": ["uses"]}],
            },
            "step": _step(verbs),
        },
    }


def _use(verbs: Verbs) -> Schema:
    if not verbs.roles:
        return _named({"type": "string"})
    roles = {role: _enum(*verbs.drivers_of(role)) for role in verbs.roles}
    return {"type": "object", "properties": roles, "additionalProperties": False}


def _step(verbs: Verbs) -> Schema:
    kinds = ("run", "uses", "parallel", "wait", "cancel")
    names = [{"const": verb.name, "description": verb.manifest.summary} for verb in verbs.values()]
    # Other verbs are not wrong to an editor: they may be installed where the pipeline runs.
    uses = {"anyOf": [*names, {"type": "string", "pattern": "/"}]} if names else {"type": "string"}
    step = _table(keys.STEP, {**_STEP_TYPES, "uses": uses})
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
        "string": _TEXT,
        "int": _INT,
        "float": _NUMBER,
        "bool": _BOOL,
        "duration": _DURATION,
        "size": _SIZE,
        "port": {"type": "integer", "minimum": 0, "maximum": 65535},
        "list": {"type": "array"},
        "map": {"type": "object"},
        "any": {},
    }[setting.type]
    if setting.options:
        kind = _enum(*setting.options)
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
