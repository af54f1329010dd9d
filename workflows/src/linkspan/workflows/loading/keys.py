"""The keys of every table of the language (v1), and the habits of other tools that are answered."""

from typing import Final

from linkspan.workflows.reader import Keys

_ORDER = "the order comes from `needs` of each job"

TOP: Final = Keys(
    table="top",
    known=(
        "linkspan",
        "name",
        "on",
        "inputs",
        "env",
        "secrets",
        "use",
        "requires",
        "defaults",
        "concurrency",
        "include",
        "jobs",
        "finally",
        "outputs",
    ),
    foreign={
        "stages": f"{_ORDER}; `linkspan workflow adopt FILE` converts",
        "stage": _ORDER,
        "pipeline": "write `jobs`",
        "steps": "steps belong to a job:  jobs: {main: {steps: [...]}}",
        "when": "write `on:`, or `if:` at a job",
        "services": "services belong to a job: move them below `jobs.JOB.services`",
        "version": "write  linkspan: v1",
        "variables": "write `env`",
        "environment": "write `env`, or `environment: NAME` at a job",
        "image": "write  defaults: {image: NAME}",
        "before_script": "write a first step with `run: |`",
        "after_script": "write a job below `finally`",
        "script": "write  jobs: {main: {steps: [{run: |...}]}}",
        "workflow": "write `on:`",
        "rules": "write `if:` at a job",
        "permissions": "there are no forge permissions here; remove it",
        "run-name": "write `name`",
        "volumes": "volumes belong to a job: move them below `jobs.JOB.volumes`",
        "networks": "each job has a network of its own; remove it",
        "clone": "sources are in the workspace already; remove it",
        "matrix": "write  strategy: {matrix: {...}}  at a job",
        "cache": "write `cache` at a job",
    },
)
INPUT: Final = Keys(
    table="input",
    known=(
        "type",
        "default",
        "options",
        "min",
        "max",
        "pattern",
        "required",
        "untrusted",
        "help",
    ),
    foreign={"description": "write `help`"},
)
SECRET: Final = Keys(
    table="secret",
    known=("from", "key", "required", "generate"),
    foreign={"external": "write `from: PROVIDER`", "file": "write `from: file`"},
)
GENERATE: Final = Keys(table="generate", known=("length",))
REQUIREMENT: Final = Keys(table="requirement", known=("role", "features", "plugin", "version"))
CONCURRENCY: Final = Keys(
    table="concurrency",
    known=("group", "on-conflict"),
    foreign={
        "cancel-in-progress": "write `on-conflict: cancel-running`",
        "queue": "write `on-conflict: queue`",
    },
)
INCLUDE: Final = Keys(
    table="include",
    known=("file", "digest"),
    foreign={
        "local": "write  file: ./PATH",
        "remote": "only files of the workspace are included: fetch it into the repository",
        "project": "only files of the workspace are included: fetch it into the repository",
        "template": "only files of the workspace are included",
    },
)
DEFAULTS: Final = Keys(
    table="defaults",
    known=("image", "timeout", "retry", "shell", "working-directory"),
    foreign={"run": "write `shell` and `working-directory` directly below `defaults`"},
)
JOB: Final = Keys(
    table="job",
    known=(
        "name",
        "needs",
        "if",
        "strategy",
        "image",
        "env",
        "secrets",
        "services",
        "volumes",
        "cache",
        "artifacts",
        "load-artifacts",
        "outputs",
        "environment",
        "lock",
        "labels",
        "timeout",
        "continue-on-error",
        "steps",
        "uses",
        "with",
    ),
    foreign={
        "runs-on": "`image:` names the container; machines are chosen by `use.runtime` or labels",
        "timeout-minutes": "write `timeout: 10m`",
        "container": "write `image: NAME`",
        "script": "write `steps: [{run: a}, {run: b}]`",
        "before_script": "write a first step with `run: |`",
        "after_script": "write a step with `if: always()`",
        "commands": "write `steps: [{run: |...}]`",
        "stage": _ORDER,
        "depends_on": "write `needs`",
        "dependencies": "write `load-artifacts`",
        "permissions": "there are no forge permissions here; remove it",
        "variables": "write `env`",
        "rules": "write `if`",
        "only": "write `if`, or `on.push.branches` for the whole pipeline",
        "except": "write `if`",
        "when": "write `if`",
        "tags": "machines are chosen by `use.runtime`; remove it",
        "allow_failure": "write `continue-on-error: true`",
        "failure": "write `continue-on-error: true`",
        "parallel": "write  strategy: {matrix: {...}}",
        "matrix": "write  strategy: {matrix: {...}}",
        "resource_group": "write `lock: NAME`",
        "concurrency": "write `lock: NAME` at a job, or `concurrency` at the top",
        "retry": "write `retry` at a step, or `defaults: {retry: ...}`",
        "extends": "there is no `extends`; write an anchor and `<<: *NAME`",
        "defaults": "write `defaults` at the top",
        "ports": "ports belong to a service, or to the verb `deploy`",
    },
)
STRATEGY: Final = Keys(
    table="strategy",
    known=("matrix", "fail-fast", "max-parallel"),
)
AXIS: Final = Keys(table="axis", known=("type", "values"))
CACHE: Final = Keys(
    table="cache",
    known=("path", "key", "restore", "save"),
    foreign={
        "paths": "write one entry with `path` for each",
        "restore-keys": "write `restore: [...]`",
        "policy": "write `save: always`, `success` or `never`",
        "when": "write `save: always`, `success` or `never`",
    },
)
LOAD: Final = Keys(table="load", known=("name", "from", "path"))
STEP: Final = Keys(
    table="step",
    known=(
        "id",
        "name",
        "if",
        "run",
        "uses",
        "parallel",
        "wait",
        "cancel",
        "with",
        "image",
        "env",
        "secrets",
        "shell",
        "working-directory",
        "sources",
        "generates",
        "retry",
        "timeout",
        "grace",
        "continue-on-error",
        "on-failure",
        "undo",
        "reports",
        "background",
    ),
    foreign={
        "timeout-minutes": "write `timeout: 10m`",
        "container": "write `image: NAME`",
        "script": "write `run: |`",
        "commands": "write `run: |`",
        "plugin": "write `uses`",
        "settings": "write `with`",
        "environment": "write `env`",
        "variables": "write `env`",
        "when": "write `if`",
        "depends_on": "steps run in the order written; jobs have `needs`",
        "failure": "write `continue-on-error: true`",
        "detach": "write `background: true`",
        "services": "services belong to the job",
        "outputs": "write  name=value  lines to $LINKSPAN_OUTPUT in the script",
    },
)
UNDO: Final = Keys(table="undo", known=("uses", "with"))
SERVICE: Final = Keys(
    table="service",
    known=(
        "if",
        "image",
        "command",
        "entrypoint",
        "environment",
        "healthcheck",
        "tmpfs",
        "user",
        "working_dir",
        "depends_on",
        "cap_add",
        "cap_drop",
        "dns",
        "extra_hosts",
        "hostname",
        "init",
        "labels",
        "mem_limit",
        "ports",
        "privileged",
        "pull_policy",
        "read_only",
        "shm_size",
        "stop_grace_period",
        "sysctls",
        "ulimits",
        "volumes",
    ),
    foreign={
        "env": "write `environment`, as in Compose",
        "options": "write Compose's keys",
        "credentials": "log in before the run: `linkspan login`",
        "build": "build the image in a step of a job before, with `uses: build`",
        "container_name": "a service is found by its own name; remove it",
        "deploy": "services of a job are one container each; remove it",
        "env_file": "write `environment`",
        "expose": "every port is open in the job's network; remove it",
        "networks": "each job has a network of its own; remove it",
        "network_mode": "each job has a network of its own; remove it",
        "restart": "a service that ends before its time fails the job; remove it",
        "secrets": "grant them to the job and read them:  environment: {X: '${{ secrets.X }}'}",
        "logging": "the log belongs to the job; remove it",
        "links": "services find each other by name; remove it",
    },
)
HEALTHCHECK: Final = Keys(
    table="healthcheck",
    known=(
        "test",
        "interval",
        "timeout",
        "retries",
        "start_period",
        "start_interval",
        "disable",
    ),
)
RETRY: Final = Keys(
    table="retry",
    known=("max", "backoff", "factor", "max-delay", "jitter", "on"),
    foreign={"when": "write `on`", "attempts": "write `max`", "limit": "write `max`"},
)
PUSH: Final = Keys(
    table="push",
    known=("branches", "paths"),
    foreign={
        "branches-ignore": "write `branches: ['**', '!NAME']`",
        "paths-ignore": "write `paths: ['**', '!NAME']`",
        "tags": "write the trigger `tag`",
    },
)
TAG: Final = Keys(table="tag", known=("tags",))
SCHEDULE: Final = Keys(table="schedule", known=("cron", "timezone"))
WATCH: Final = Keys(table="watch", known=("paths", "debounce"))
WEBHOOK: Final = Keys(
    table="webhook",
    known=("provider", "secret", "events", "branches"),
    foreign={"event": "write `events`", "token": "write `secret: NAME`"},
)
