"""Tree of nodes to model: the keys of the language (v1), typed, with every fault noted.

Keys that belong to the language but are not built yet are refused by name (LS1016), never ignored.
"""

import re
from collections.abc import Callable
from typing import Final, TypeVar

import attrs

from linkspan.sdk.diagnostics import did_you_mean
from linkspan.workflows.expressions.patterns import Pattern, PatternError
from linkspan.workflows.model import (
    HealthcheckText,
    Input,
    InputType,
    Job,
    JobService,
    Need,
    OnFailure,
    Retry,
    Step,
    Text,
    Workflow,
)
from linkspan.workflows.parse import Document, Mapping, Node, Scalar, Sequence
from linkspan.workflows.reader import Field, Keys, Reader
from linkspan.workflows.script import check_script
from linkspan.workflows.settings import read_settings
from linkspan.workflows.values import Expression, Value
from linkspan.workflows.verbs import Verbs

VERSION: Final = "v1"
T = TypeVar("T")

_TRIGGERS = ("push", "tag", "schedule", "watch", "webhook", "manual")
_TOP = Keys(
    known=("linkspan", "name", "on", "inputs", "env", "defaults", "jobs", "finally"),
    later=("secrets", "use", "requires", "concurrency", "include", "outputs"),
    foreign={
        "stages": "the order comes from `needs` of each job",
        "pipeline": "write `jobs`",
        "steps": "steps belong to a job:  jobs: {main: {steps: [...]}}",
        "services": "services belong to a job: move them below `jobs.JOB.services`",
        "version": "write  linkspan: v1",
    },
)
_INPUT = Keys(
    known=("type", "default", "options", "min", "max", "pattern", "required", "help"),
    later=("untrusted",),
    foreign={"description": "write `help`"},
)
_DEFAULTS = Keys(known=("image", "timeout", "retry", "shell", "working-directory"))
_JOB = Keys(
    known=(
        "name",
        "needs",
        "if",
        "image",
        "env",
        "services",
        "outputs",
        "timeout",
        "continue-on-error",
        "steps",
    ),
    later=(
        "strategy",
        "secrets",
        "volumes",
        "cache",
        "artifacts",
        "load-artifacts",
        "environment",
        "lock",
        "uses",
        "with",
    ),
    foreign={
        "runs-on": "`image:` names the container that steps run in",
        "timeout-minutes": "write `timeout: 10m`",
        "container": "write `image: NAME`",
        "script": "write `steps: [{run: a}, {run: b}]`",
        "commands": "write `steps: [{run: |...}]`",
        "stage": "the order comes from `needs`",
        "depends_on": "write `needs`",
        "permissions": "there are no forge permissions here; remove it",
    },
)
_STEP = Keys(
    known=(
        "id",
        "name",
        "if",
        "run",
        "uses",
        "with",
        "image",
        "env",
        "shell",
        "working-directory",
        "retry",
        "timeout",
        "grace",
        "continue-on-error",
        "on-failure",
    ),
    later=(
        "parallel",
        "secrets",
        "sources",
        "generates",
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
    },
)
_SERVICE = Keys(
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
    ),
    later=(
        "build",
        "cap_add",
        "cap_drop",
        "container_name",
        "deploy",
        "dns",
        "env_file",
        "expose",
        "extra_hosts",
        "hostname",
        "init",
        "labels",
        "mem_limit",
        "networks",
        "ports",
        "privileged",
        "pull_policy",
        "read_only",
        "restart",
        "secrets",
        "shm_size",
        "stop_grace_period",
        "sysctls",
        "ulimits",
        "volumes",
    ),
    foreign={"env": "write `environment`, as in Compose", "options": "write Compose's keys"},
)
_HEALTHCHECK = Keys(
    known=("test", "interval", "timeout", "retries", "start_period"),
    later=("start_interval", "disable"),
)
_RETRY = Keys(known=("max", "backoff", "factor", "max-delay", "jitter", "on"))
_CAUSES = ("network", "timeout", "oom", "any")
_EXIT = re.compile(r"exit:(\d{1,3})")


def load(document: Document, verbs: Verbs) -> tuple[Workflow | None, Reader]:
    """Read a pipeline.

    Returns:
        The model, as far as it could be read (None if there is no pipeline at all), and the reader
        with what is wrong; the model may run only if that holds no error.
    """
    reader = Reader(document)
    return _Loader(reader, verbs).workflow(document), reader


class _Loader:
    def __init__(self, reader: Reader, verbs: Verbs) -> None:
        self.r = reader
        self.verbs = verbs
        self.image: Text | None = None
        self.timeout_s: float | None = None
        self.retry = Retry()
        self.shell = ""
        self.working_directory = ""

    def workflow(self, document: Document) -> Workflow | None:
        r = self.r
        if document.root is None:
            r.fault(
                "LS1008",
                "the file is empty",
                document.span_at(0, 1),
                helps=["begin with  linkspan: v1  and  jobs:"],
            )
            return None
        top = r.table(document.root, "the pipeline", _TOP)
        if not isinstance(document.root, Mapping):
            return None
        self._version(top, document)
        r.require(top, "jobs", "a pipeline", document.root)
        if "on" in top:
            self._triggers(top["on"].value)
        if "defaults" in top:
            self._defaults(top["defaults"].value)
        name = self._get(top, "name", lambda n: r.text(n, "'name'"))
        return Workflow(
            name=name
            or document.file.rsplit("/", 1)[-1].removesuffix(".yaml").removesuffix(".yml"),
            file=document.file,
            text=document.text,
            inputs=self._inputs(top.get("inputs")),
            env=self._texts(top.get("env"), "'env'"),
            jobs=self._jobs(top.get("jobs"), "'jobs'", ()),
            cleanup=self._cleanup(top),
        )

    def _get(
        self, fields: dict[str, Field], name: str, read: Callable[[Node], T | None]
    ) -> T | None:
        return read(fields[name].value) if name in fields else None

    def _version(self, top: dict[str, Field], document: Document) -> None:
        if "linkspan" not in top:
            # Snippets and first drafts: the version is asked for, but nothing else depends on it.
            self.r.fault(
                "LS1008",
                "a pipeline needs the key 'linkspan', its syntax version",
                document.root.span if document.root else document.span_at(0, 1),
                helps=["linkspan: v1"],
            )
            return
        node = top["linkspan"].value
        version = self.r.text(node, "'linkspan'")
        if version is not None and version != VERSION:
            self.r.fault(
                "LS1015",
                f"syntax version '{version}' is unknown here",
                node,
                helps=[f"write {VERSION}, or upgrade Linkspan"],
                fix=VERSION,
            )

    def _triggers(self, node: Node) -> None:
        if isinstance(node, Mapping):
            keys: list[Scalar] = [field.key for field in self.r.entries(node, "'on'").values()]
        else:
            keys = [item for item in self.r.one_or_more(node) if isinstance(item, Scalar)]
        for key in keys:
            if key.text not in _TRIGGERS:
                near = did_you_mean(key.text, _TRIGGERS)
                helps = [f"triggers here: {', '.join(_TRIGGERS)}"]
                if key.text.replace("_", "-").startswith("pull-request"):
                    helps.append(
                        "linkspan runs no forge; call it from your forge's own pull-request job, "
                        "or use `webhook`"
                    )
                elif near:
                    helps.insert(0, f"did you mean '{near}'?")
                self.r.fault("LS1012", f"trigger '{key.text}' does not exist", key, helps=helps)
            elif key.text != "manual":
                self.r.fault(
                    "LS1016",
                    f"the trigger '{key.text}' is not supported yet",
                    key,
                    helps=["write `on: manual` and run it with `linkspan workflow run`"],
                )

    # inputs

    def _inputs(self, field: Field | None) -> dict[str, Input]:
        if field is None:
            return {}
        found = self.r.names(field.value, "'inputs'")
        return {name: self._input(name, each) for name, each in found.items()}

    def _input(self, name: str, field: Field) -> Input:
        r, what = self.r, f"input '{name}'"
        fields = r.table(field.value, what, _INPUT)
        kinds = ("string", "int", "bool", "duration", "size", "choice", "list")
        kind: InputType = "string"
        if "type" in fields:
            kind = r.choice(fields["type"].value, "'type'", kinds) or "string"  # type: ignore[assignment]
        options = tuple(
            text
            for node in (
                r.items(fields["options"].value, "'options'") if "options" in fields else ()
            )
            if (text := r.text(node, "an option")) is not None
        )
        if kind == "choice" and not options:
            r.fault("LS1008", f"{what} is a choice and needs 'options'", field.key)
        least = self._get(fields, "min", lambda n: r.integer(n, "'min'"))
        most = self._get(fields, "max", lambda n: r.integer(n, "'max'"))
        required = self._get(fields, "required", lambda n: r.boolean(n, "'required'"))
        spec = Input(
            name=name,
            type=kind,
            required=bool(required),
            options=options,
            minimum=least,
            maximum=most,
            pattern=self._pattern(fields),
            help=self._get(fields, "help", lambda n: r.text(n, "'help'")) or "",
            type_span=fields["type"].value.span if "type" in fields else None,
        )
        if "default" not in fields:
            return spec
        default = self._input_default(spec, fields["default"].value)
        return attrs.evolve(spec, default=default)

    def _pattern(self, fields: dict[str, Field]) -> str:
        if "pattern" not in fields:
            return ""
        node = fields["pattern"].value
        pattern = self.r.text(node, "'pattern'") or ""
        try:
            Pattern(pattern)
        except PatternError as fault:
            self.r.fault("LS1013", f"'pattern' cannot be read: {fault}", node)
            return ""
        return pattern

    def _input_default(self, spec: Input, node: Node) -> str | int | bool | tuple[str, ...] | None:
        r, what = self.r, "'default'"
        match spec.type:
            case "int":
                return r.integer(node, what, least=spec.minimum, most=spec.maximum)
            case "bool":
                return r.boolean(node, what)
            case "duration":
                return r.text(node, what) if r.duration(node, what) is not None else None
            case "size":
                return r.text(node, what) if r.size(node, what) is not None else None
            case "choice":
                return r.choice(node, what, spec.options) if spec.options else None
            case "list":
                texts = [r.text(item, "an item of 'default'") for item in r.items(node, what)]
                return tuple(text for text in texts if text is not None)
            case "string":
                text = r.text(node, what)
                if text is not None and spec.pattern and not Pattern(spec.pattern).fullmatch(text):
                    r.fault("LS1013", f"'default' does not match the pattern {spec.pattern}", node)
                return text

    # shared pieces

    def _template(self, fields: dict[str, Field], name: str) -> Text | None:
        return self.r.template(fields[name].value, f"'{name}'") if name in fields else None

    def _flag(self, fields: dict[str, Field], name: str) -> bool | Expression:
        flag = self.r.flag(fields[name].value, f"'{name}'") if name in fields else None
        return False if flag is None else flag

    def _defaults(self, node: Node) -> None:
        r = self.r
        fields = r.table(node, "'defaults'", _DEFAULTS)
        self.image = self._template(fields, "image")
        self.timeout_s = self._get(fields, "timeout", lambda n: r.duration(n, "'timeout'"))
        self.retry = self._get(fields, "retry", self._retry) or Retry()
        self.shell = self._get(fields, "shell", self._shell) or ""
        self.working_directory = self._get(fields, "working-directory", self._folder) or ""

    def _texts(self, field: Field | None, what: str) -> dict[str, Text]:
        if field is None:
            return {}
        texts: dict[str, Text] = {}
        for name, each in self.r.names(field.value, what).items():
            text = self.r.template(each.value, f"'{name}'")
            if text is not None:
                texts[name] = text
                self._looks_like_password(name, text, each.value)
        return texts

    def _looks_like_password(self, name: str, text: Text, node: Node) -> None:
        words = set(re.split(r"[_-]", name.lower()))
        risky = words & {"password", "passwd", "secret", "token", "apikey"}
        if risky and isinstance(text, str) and len(text) >= 8 and "/" not in text:
            self.r.fault(
                "LS1304",
                "this looks like a password written in the file",
                node,
                severity="warning",
                notes=["whoever can read the file or the run's record can read it"],
            )

    def _shell(self, node: Node) -> str | None:
        return self.r.choice(node, "'shell'", ("sh", "bash", "none"))

    def _folder(self, node: Node) -> str | None:
        text = self.r.text(node, "'working-directory'")
        if text is not None and ".." in text.split("/"):
            self.r.fault("LS1013", "'working-directory' may not lead out of the workspace", node)
            return None
        return text

    def _retry(self, node: Node) -> Retry | None:
        r = self.r
        fields = r.table(node, "'retry'", _RETRY)
        causes: tuple[str, ...] = ()
        if "on" in fields:
            causes = tuple(filter(None, map(self._cause, r.one_or_more(fields["on"].value))))
        plain = Retry()

        def given(name: str, read: Callable[[Node, str], T | None], default: T) -> T:
            value = self._get(fields, name, lambda n: read(n, f"'{name}'"))
            return default if value is None else value

        return Retry(
            max=given("max", lambda n, w: r.integer(n, w, least=0, most=100), 0),
            backoff_s=given("backoff", r.duration, plain.backoff_s),
            factor=given("factor", r.number, plain.factor),
            max_delay_s=given("max-delay", r.duration, plain.max_delay_s),
            jitter=given("jitter", r.boolean, plain.jitter),
            on=causes,
        )

    def _cause(self, node: Node) -> str | None:
        text = self.r.text(node, "a cause of 'on'")
        if text is None or text in _CAUSES:
            return text
        exit_code = _EXIT.fullmatch(text)
        if exit_code is not None and int(exit_code[1]) <= 255:
            return text
        near = did_you_mean(text, _CAUSES)
        helps = [
            f"did you mean '{near}'?" if near else "causes: network, timeout, oom, exit:N, any"
        ]
        self.r.fault("LS1013", f"'{text}' is not a cause of a failure", node, helps=helps)
        return None

    # jobs

    def _jobs(self, field: Field | None, what: str, taken: tuple[str, ...]) -> dict[str, Job]:
        if field is None:
            return {}
        jobs: dict[str, Job] = {}
        for name, each in self.r.names(field.value, what).items():
            if name in taken:
                self.r.fault("LS1014", f"job '{name}' is written twice", each.key)
            else:
                jobs[name] = self._job(name, each, cleanup=bool(what == "'finally'"))
        if not jobs and isinstance(field.value, Mapping) and not field.value.entries:
            self.r.fault("LS1008", f"{what} holds no job", field.value)
        return jobs

    def _cleanup(self, top: dict[str, Field]) -> dict[str, Job]:
        names: tuple[str, ...] = ()
        if "jobs" in top and isinstance(top["jobs"].value, Mapping):
            keys = (key for key, _ in top["jobs"].value.entries)
            names = tuple(key.text for key in keys if isinstance(key, Scalar))
        return self._jobs(top.get("finally"), "'finally'", names)

    def _job(self, name: str, field: Field, *, cleanup: bool) -> Job:
        r, what = self.r, f"job '{name}'"
        fields = r.table(field.value, what, _JOB)
        if isinstance(field.value, Mapping):
            r.require(fields, "steps", what, field.key)
        if cleanup and "needs" in fields:
            r.fault(
                "LS1001",
                f"unknown key 'needs' in {what} of 'finally'",
                fields["needs"].key,
                notes=["jobs of `finally` begin together, after all others have ended"],
            )
            del fields["needs"]
        image = self._template(fields, "image")
        return Job(
            id=name,
            name=self._get(fields, "name", lambda n: r.text(n, "'name'")) or "",
            needs=self._needs(fields.get("needs")),
            needs_span=fields["needs"].value.span if "needs" in fields else None,
            condition=self._get(fields, "if", r.condition),
            image=self.image if image is None else image,
            env=self._texts(fields.get("env"), "'env'"),
            services=self._services(fields.get("services")),
            outputs=self._texts(fields.get("outputs"), "'outputs'"),
            timeout_s=self._get(fields, "timeout", lambda n: r.duration(n, "'timeout'")),
            continue_on_error=self._flag(fields, "continue-on-error"),
            steps=self._steps(fields.get("steps"), what),
            span=field.key.span,
        )

    def _needs(self, field: Field | None) -> tuple[Need, ...]:
        needs: dict[str, Need] = {}
        for node in () if field is None else self.r.one_or_more(field.value):
            name = self.r.text(node, "an entry of 'needs'")
            if name is not None and name in needs:
                self.r.fault(
                    "LS1014", f"'{name}' stands twice in 'needs'", node, severity="warning"
                )
            elif name is not None:
                needs[name] = Need(job=name, span=node.span)
        return tuple(needs.values())

    def _services(self, field: Field | None) -> dict[str, JobService]:
        if field is None:
            return {}
        found = self.r.names(field.value, "'services'")
        services = {name: self._service(name, each) for name, each in found.items()}
        for service in services.values():
            for other in service.depends_on:
                if other not in services:
                    self.r.fault(
                        "LS1101",
                        f"service '{service.name}' depends on '{other}', which does not exist",
                        service.span,
                    )
        return services

    def _service(self, name: str, field: Field) -> JobService:
        r, what = self.r, f"service '{name}'"
        fields = r.table(field.value, what, _SERVICE)
        if isinstance(field.value, Mapping):
            r.require(fields, "image", what, field.key)
        tmpfs = () if "tmpfs" not in fields else r.one_or_more(fields["tmpfs"].value)
        needed = () if "depends_on" not in fields else r.one_or_more(fields["depends_on"].value)
        return JobService(
            name=name,
            image=self._template(fields, "image") or "",
            condition=self._get(fields, "if", r.condition),
            command=self._command(fields.get("command")),
            entrypoint=self._command(fields.get("entrypoint")),
            environment=self._texts(fields.get("environment"), "'environment'"),
            healthcheck=self._get(fields, "healthcheck", self._healthcheck),
            tmpfs=tuple(t for n in tmpfs if (t := r.text(n, "'tmpfs'")) is not None),
            user=self._get(fields, "user", lambda n: r.text(n, "'user'")) or "",
            working_dir=self._get(fields, "working_dir", lambda n: r.text(n, "'working_dir'"))
            or "",
            depends_on=tuple(t for n in needed if (t := r.text(n, "'depends_on'")) is not None),
            span=field.key.span,
        )

    def _command(self, field: Field | None) -> tuple[Text, ...] | None:
        """A command as a list; a text is run by the shell, as Compose's is split (not here)."""
        if field is None:
            return None
        if isinstance(field.value, Scalar):
            text = self.r.template(field.value, f"'{field.key.text}'")
            return None if text is None else ("/bin/sh", "-c", text)
        texts = [self.r.template(n, "a word") for n in self.r.items(field.value, "'command'")]
        return tuple(text for text in texts if text is not None)

    def _healthcheck(self, node: Node) -> HealthcheckText | None:
        r = self.r
        fields = r.table(node, "'healthcheck'", _HEALTHCHECK)
        if not isinstance(node, Mapping) or not r.require(fields, "test", "a healthcheck", node):
            return None
        test = fields["test"].value
        words: tuple[Text, ...]
        if isinstance(test, Sequence):
            words = tuple(t for n in test.items if (t := r.template(n, "a word")) is not None)
            if not words or words[0] not in ("CMD", "CMD-SHELL", "NONE"):
                r.fault("LS1013", "'test' must begin with CMD, CMD-SHELL or NONE", test)
        else:
            words = ("CMD-SHELL", r.template(test, "'test'") or "")
        plain = HealthcheckText(test=())

        def seconds(name: str, default: float) -> float:
            value = self._get(fields, name, lambda n: r.duration(n, f"'{name}'"))
            return default if value is None else value

        retries = self._get(fields, "retries", lambda n: r.integer(n, "'retries'", least=1))
        return HealthcheckText(
            test=words,
            interval_s=seconds("interval", plain.interval_s),
            timeout_s=seconds("timeout", plain.timeout_s),
            retries=plain.retries if retries is None else retries,
            start_period_s=seconds("start_period", plain.start_period_s),
        )

    # steps

    def _steps(self, field: Field | None, what: str) -> tuple[Step, ...]:
        if field is None:
            return ()
        steps: list[Step] = []
        taken: dict[str, Step] = {}
        nodes = self.r.items(field.value, f"'steps' of {what}")
        if isinstance(field.value, Sequence) and not nodes:
            self.r.fault("LS1008", f"{what} has no step", field.value)
        for number, node in enumerate(nodes, 1):
            step = self._step(node, number, what)
            if step is None:
                continue
            if step.id in taken:
                self.r.fault("LS1014", f"step id '{step.id}' is written twice in {what}", step.span)
            taken[step.id] = step
            steps.append(step)
        return tuple(steps)

    def _step(self, node: Node, number: int, job: str) -> Step | None:
        r, what = self.r, f"step {number} of {job}"
        if not isinstance(node, Mapping):
            r.fault("LS1010", f"{what} must be a mapping, with `run` or `uses`", node)
            return None
        fields = r.table(node, what, _STEP)
        if not fields.keys() & {"run", "uses"} and not _has_later(node, _STEP):
            r.fault("LS1008", f"{what} needs `run` or `uses`", node)
        if "run" in fields and "uses" in fields:
            r.fault("LS1001", f"{what} has both `run` and `uses`", fields["uses"].key)
        if "run" in fields and "with" in fields:
            r.fault(
                "LS1001",
                f"'with' belongs to `uses`, {what} has `run`",
                fields["with"].key,
                helps=["give values to a script with `env`"],
            )
        verb, settings = self._uses(fields)
        written = self._get(fields, "id", self._id)
        retry = self._get(fields, "retry", self._retry)
        timeout = self._get(fields, "timeout", lambda n: r.duration(n, "'timeout'"))
        grace = self._get(fields, "grace", lambda n: r.duration(n, "'grace'"))
        return Step(
            id=written or f"{(verb or 'run').replace('/', '-')}-{number}",
            named=written is not None,
            name=self._get(fields, "name", lambda n: r.text(n, "'name'")) or "",
            condition=self._get(fields, "if", r.condition),
            run=self._get(fields, "run", lambda n: check_script(r, n)),
            verb=verb,
            settings=settings,
            image=self._template(fields, "image"),
            env=self._texts(fields.get("env"), "'env'"),
            shell=self._get(fields, "shell", self._shell) or self.shell,
            working_directory=self._get(fields, "working-directory", self._folder)
            or self.working_directory,
            retry=self.retry if retry is None else retry,
            timeout_s=self.timeout_s if timeout is None else timeout,
            grace_s=10.0 if grace is None else grace,
            continue_on_error=self._flag(fields, "continue-on-error"),
            on_failure=self._get(fields, "on-failure", self._on_failure),
            span=(fields["id"].value if "id" in fields else node).span,
        )

    def _id(self, node: Node) -> str | None:
        text = self.r.text(node, "'id'")
        if text is not None and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", text) is None:
            self.r.fault(
                "LS1014",
                f"'{text}' is not a valid step id",
                node,
                helps=["use letters, digits, '_' and '-', not beginning with a digit or '-'"],
            )
            return None
        return text

    def _on_failure(self, node: Node) -> OnFailure | None:
        text = self.r.text(node, "'on-failure'")
        if text is None:
            return None
        action, _, target = text.partition(":")
        if action == "pause":
            self.r.fault("LS1016", "`on-failure: pause` is not supported yet", node)
        elif action == "rollback" and (target or ":" not in text):
            return OnFailure(action="rollback", target=target)
        elif text == "leave":
            return OnFailure(action="leave")
        else:
            self.r.fault(
                "LS1013",
                f"'on-failure' must be rollback, rollback:STEP or leave, found '{text}'",
                node,
            )
        return None

    def _uses(self, fields: dict[str, Field]) -> tuple[str, dict[str, Value]]:
        """The verb and its settings; the verb is named even if nobody answers it."""
        r = self.r
        if "uses" not in fields:
            return "", {}
        node = fields["uses"].value
        text = r.text(node, "'uses'")
        if text is None or not isinstance(node, Scalar):
            return "", {}
        if text.startswith("actions/checkout"):
            r.fault(
                "LS1009",
                "sources are in the workspace already",
                node,
                helps=["remove this step"],
            )
            return text, {}
        name, at, _ = text.partition("@")
        verb = self.verbs.get(name)
        if verb is None:
            self._unknown_verb(name, node)
            return name, {}
        if at:
            r.fault("LS1016", "a version after a verb is not supported yet", node)
        for key in ("image", "shell", "working-directory"):
            if key in fields:
                r.fault(
                    "LS1001",
                    f"'{key}' belongs to `run`, this step uses `{name}`",
                    fields[key].key,
                )
        return name, read_settings(r, verb, node, fields.get("with"))

    def _unknown_verb(self, name: str, node: Scalar) -> None:
        near = did_you_mean(name, self.verbs)
        helps = [f"did you mean '{near}'?"] if near else []
        if self.verbs:
            helps.append(f"verbs you have: {', '.join(self.verbs)}")
        else:
            helps.append("no installed plugin has verbs; install linkspan-standard-steps")
        self.r.fault(
            "LS1401", f"no installed plugin answers `uses: {name}`", node, helps=helps, fix=near
        )


def _has_later(node: Mapping, keys: Keys) -> bool:
    return any(isinstance(key, Scalar) and key.text in keys.later for key, _ in node.entries)
