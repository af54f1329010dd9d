"""A scenario file to scenarios; whatever is wrong with it is told with its place before anything runs."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Final, TypeVar

import attrs

from linkspan.sdk.diagnostics import Diagnostic, did_you_mean
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.reference import parse_reference
from linkspan.workflows import sources
from linkspan.workflows.check import check
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.files import DiskFiles
from linkspan.workflows.inputs import read_inputs
from linkspan.workflows.model import Step, Workflow
from linkspan.workflows.parse import (
    Field,
    Mapping as MappingNode,
    Node,
    ParseFailed,
    Scalar,
    decode,
    parse,
)
from linkspan.workflows.reader import Keys, Reader, core_value, describe
from linkspan.workflows.scenarios.expecting import Expecting
from linkspan.workflows.scenarios.model import Answer, Cancel, Crash, Pull, Scenario, ScenarioFile
from linkspan.workflows.scenarios.places import Places
from linkspan.workflows.verbs import Verbs

T = TypeVar("T")

FILE: Final = Keys(table="scenarios", known=("pipeline", "scenarios"))
SCENARIO: Final = Keys(
    table="scenario",
    known=(
        "name",
        "inputs",
        "secrets",
        "git",
        "files",
        "images",
        "steps",
        "crash",
        "cancel",
        "resume",
        "expect",
    ),
)
ANSWER: Final = Keys(
    table="answer",
    known=(
        "outputs",
        "log",
        "exit",
        "fails",
        "cause",
        "takes",
        "files",
        "undo",
        "undo-fails",
        "decision",
        "applied",
    ),
)
CRASH: Final = Keys(table="crash", known=("after", "during"))
CANCEL: Final = Keys(table="cancel", known=("during", "kill"))
PULL: Final = Keys(table="pull", known=("fails", "cause", "takes"))
GIT: Final = Keys(table="git", known=("sha", "short_sha", "branch", "tag", "dirty"))

CAUSES: Final = ("network", "timeout", "oom")
DECISIONS: Final = ("approve", "reject", "none")


@attrs.frozen(kw_only=True)
class Loaded:
    """What became of a file.

    Attributes:
        found: None if there are errors.
        diagnostics: Of the scenario file, or of the pipeline that it names.
    """

    found: ScenarioFile | None
    diagnostics: Sequence[Diagnostic]


def load_scenarios(path: Path, data: bytes, verbs: Verbs) -> Loaded:
    """Read a scenario file and the pipeline that it names. Blocks.

    Args:
        path: As the user wrote it.
        data: What the file holds.
        verbs: What the installed plugins answer.
    """
    file = str(path)
    try:
        document = parse(decode(data, file), file)
    except ParseFailed as failed:
        return Loaded(found=None, diagnostics=tuple(failed.diagnostics))
    reader = Reader(document)
    loader = _Loader(reader, path, verbs)
    found = None
    if document.root is None:
        start = document.span_at(0, 1)
        reader.fault("LS1008", "the file is empty", start, helps=["add  pipeline: NAME"])
    else:
        found = loader.file(document.root)
    own = tuple(_unmendable(each) for each in sorted(reader.diagnostics, key=_place))
    broken = any(each.severity == "error" for each in (*own, *loader.of_pipeline))
    return Loaded(found=None if broken else found, diagnostics=(*loader.of_pipeline, *own))


def _place(diagnostic: Diagnostic) -> tuple[int, int]:
    primary = diagnostic.primary
    return (primary.span.line, primary.span.column) if primary else (0, 0)


def _unmendable(diagnostic: Diagnostic) -> Diagnostic:
    """Without the hint at ``lint --fix``, which mends pipelines."""
    helps = tuple(text.partition("   (apply with")[0] for text in diagnostic.helps)
    return attrs.evolve(diagnostic, helps=helps, fix=None, edits=())


class _Loader:
    def __init__(self, reader: Reader, path: Path, verbs: Verbs) -> None:
        self.r = reader
        self.path = path
        self.verbs = verbs
        self.of_pipeline: Sequence[Diagnostic] = ()

    def file(self, root: Node) -> ScenarioFile | None:
        """The whole of it; None if it cannot be read any further."""
        fields = self.r.table(root, "the scenario file", FILE)
        what = "the scenario file"
        if not self.r.require(fields, "pipeline", what, root, "pipeline: NAME") or not (
            self.r.require(fields, "scenarios", what, root, "scenarios: [...]")
        ):
            return None
        found = self._pipeline(fields["pipeline"].value)
        if found is None:
            return None
        pipeline, workflow = found
        places = Places(self.r, workflow)
        scenarios = [
            self._scenario(node, places)
            for node in self.r.items(fields["scenarios"].value, "'scenarios'")
        ]
        self._twice(scenarios)
        if not scenarios:
            self.r.fault("LS1013", "there is no scenario", fields["scenarios"].key)
        return ScenarioFile(
            file=str(self.path), pipeline=pipeline, workflow=workflow, scenarios=scenarios
        )

    def _twice(self, scenarios: Sequence[Scenario]) -> None:
        names: set[str] = set()
        for scenario in scenarios:
            if scenario.name in names:
                headline = f"two scenarios are called '{scenario.name}'"
                self.r.fault("LS1014", headline, scenario.span)
            names.add(scenario.name)

    # the pipeline

    def _pipeline(self, node: Node) -> tuple[Path, Workflow] | None:
        name = self.r.text(node, "'pipeline'")
        if name is None:
            return None
        tried = self._candidates(name)
        path = next((each for each in tried if each.is_file()), None)
        if path is None:
            where = ", ".join(str(each) for each in tried)
            self.r.fault(
                "LS1017", f"there is no pipeline '{name}'", node, helps=[f"tried: {where}"]
            )
            return None
        try:
            data = path.read_bytes()
        except OSError as error:
            self.r.fault("LS1017", f"'{path}' cannot be read: {error.strerror}", node)
            return None
        fetch = DiskFiles(sources.workspace_of(path))
        checked = check(data, str(path), self.verbs, fetch=fetch)
        if checked.errors or checked.workflow is None:
            self.of_pipeline = checked.errors or checked.diagnostics
            return None
        return path, checked.workflow

    def _candidates(self, name: str) -> list[Path]:
        """A path is relative to the scenario file; a bare name is one of ``.linkspan``, or beside it."""
        folder = self.path.parent
        if "/" in name or name.endswith(sources.SUFFIXES):
            return [folder / name]
        tests_of_project = folder.resolve().parent.name == sources.FOLDER
        homes = [folder.parent if folder.name else Path("..")] if tests_of_project else []
        homes += [folder, folder / sources.FOLDER]
        return [home / f"{name}{suffix}" for home in homes for suffix in sources.SUFFIXES]

    # one scenario

    def _get(
        self,
        fields: Mapping[str, Field],
        name: str,
        read: Callable[[Node, str], T | None],
        plain: T,
    ) -> T:
        if name not in fields:
            return plain
        found = read(fields[name].value, f"'{name}'")
        return plain if found is None else found

    def _scenario(self, node: Node, places: Places) -> Scenario:
        fields = self.r.table(node, "a scenario", SCENARIO)
        self.r.require(fields, "name", "a scenario", node, "name: what it shows")
        self.r.require(fields, "expect", "a scenario", node, "expect: {result: success}")
        name = self._get(fields, "name", self.r.text, "")
        crash = self._get(fields, "crash", lambda n, _: self._crash(n, places), None)
        answers: dict[str, Sequence[Answer]] = {}
        if "steps" in fields:
            for place, field in self.r.entries(fields["steps"].value, "'steps'").items():
                step = places.step(place, field.key)
                if step is not None:
                    answers[place] = [
                        self._answer(each, step) for each in self.r.one_or_more(field.value)
                    ]
        expected = Expecting(self.r, places, self._json)
        return Scenario(
            name=name,
            span=(fields["name"].value if "name" in fields else node).span,
            inputs=self._inputs(fields, places.workflow, node),
            secrets=self._secrets(fields, places.workflow),
            git=self._git(fields),
            files=self._get(fields, "files", self._files, {}),
            answers=answers,
            images=self._get(fields, "images", self._images, {}),
            crash=crash,
            cancel=self._get(fields, "cancel", lambda n, _: self._cancel(n, places), None),
            resume=self._get(fields, "resume", self.r.boolean, False) or crash is not None,
            expected=expected(fields["expect"].value) if "expect" in fields else (),
        )

    def _texts(self, node: Node, what: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for name, field in self.r.entries(node, what).items():
            if isinstance(field.value, Scalar):
                found[name] = field.value.text
            else:
                headline = f"'{name}' must be a text, found {describe(field.value)}"
                self.r.fault("LS1010", headline, field.value)
        return found

    def _inputs(
        self, fields: Mapping[str, Field], workflow: Workflow, node: Node
    ) -> Mapping[str, str]:
        given: dict[str, str] = self._get(fields, "inputs", self._texts, {})
        try:
            read_inputs(workflow, given)
        except InvalidArgument as error:
            place = fields["inputs"].key if "inputs" in fields else node
            for line in error.message.splitlines():
                self.r.fault("LS1013", line.partition(": --input")[0], place)
        return given

    def _secrets(self, fields: Mapping[str, Field], workflow: Workflow) -> Mapping[str, str]:
        """Values by what the driver calls them; the file may name them as the pipeline does."""
        given: dict[str, str] = self._get(fields, "secrets", self._texts, {})
        keys = {name: secret.key or name for name, secret in workflow.secrets.items()}
        return {keys.get(name, name): value for name, value in given.items()}

    def _git(self, fields: Mapping[str, Field]) -> Mapping[str, Json]:
        if "git" not in fields:
            return {}
        table = self.r.table(fields["git"].value, "'git'", GIT)
        found: dict[str, Json] = {}
        for name, field in table.items():
            read: Callable[[Node, str], Json] = self.r.boolean if name == "dirty" else self.r.text
            value = read(field.value, f"'{name}'")
            if value is not None:
                found[name] = value
        return found

    def _files(self, node: Node, what: str) -> dict[str, str]:
        found = self._texts(node, what)
        for name, field in self.r.quiet_entries(node).items():
            parts = PurePosixPath(name).parts
            if "\0" in name:
                self.r.fault("LS1013", "a path cannot hold a NUL", field.key)
            elif not parts or PurePosixPath(name).is_absolute() or ".." in parts:
                self.r.fault("LS1013", f"'{name}' leads out of the workspace", field.key)
        return found

    def _crash(self, node: Node, places: Places) -> Crash | None:
        fields = self.r.table(node, "'crash'", CRASH)
        if len(fields) != 1:
            helps = ["crash: {after: JOB/STEP}", "crash: {during: JOB/STEP}"]
            self.r.fault("LS1008", "'crash' needs 'after' or 'during'", node, helps=helps)
            return None
        (name, field), *_ = fields.items()
        place = self.r.text(field.value, f"'{name}'")
        if place is None or places.step(place, field.value) is None:
            return None
        return Crash(when="after" if name == "after" else "during", place=place)

    def _cancel(self, node: Node, places: Places) -> Cancel | None:
        fields = self.r.table(node, "'cancel'", CANCEL)
        if not self.r.require(fields, "during", "'cancel'", node, "during: JOB/STEP"):
            return None
        place = self.r.text(fields["during"].value, "'during'")
        if place is None or places.step(place, fields["during"].value) is None:
            return None
        return Cancel(place=place, kill=self._get(fields, "kill", self.r.boolean, False))

    def _images(self, node: Node, what: str) -> dict[str, Sequence[Pull]]:
        found: dict[str, Sequence[Pull]] = {}
        for name, field in self.r.entries(node, what).items():
            try:
                parse_reference(name)
            except InvalidArgument as error:
                self.r.fault("LS1013", error.message, field.key)
                continue
            found[name] = [self._pull(each) for each in self.r.one_or_more(field.value)]
        return found

    def _pull(self, node: Node) -> Pull:
        fields = self.r.table(node, "a pull", PULL)
        pull = Pull(
            fails=self._get(fields, "fails", self.r.text, ""),
            cause=self._get(fields, "cause", lambda n, w: self.r.choice(n, w, CAUSES[:2]), ""),
            takes_s=self._get(fields, "takes", self.r.duration, 0.0),
        )
        if pull.cause and not pull.fails:
            headline = f"the cause '{pull.cause}' needs `fails: MESSAGE`"
            self.r.fault("LS1601", headline, fields["cause"].value)
        return pull

    # answers

    def _answer(self, node: Node, step: Step) -> Answer:
        r = self.r
        fields = r.table(node, "an answer", ANSWER)
        fields = {name: field for name, field in fields.items() if self._fits(name, field, step)}
        log = fields.get("log")
        lines = () if log is None else r.one_or_more(log.value)
        answer = Answer(
            outputs=self._get(fields, "outputs", lambda n, w: self._outputs(n, w, step), {}),
            log=tuple(filter(None, (r.text(line, "a line of 'log'") for line in lines))),
            exit=self._get(fields, "exit", lambda n, w: r.integer(n, w, least=0, most=255), 0),
            fails=self._get(fields, "fails", r.text, ""),
            cause=self._get(fields, "cause", lambda n, w: r.choice(n, w, CAUSES), ""),
            takes_s=self._get(fields, "takes", r.duration, 0.0),
            files=self._get(fields, "files", self._files, {}),
            undo=self._get(fields, "undo", r.boolean, True),
            undo_fails=self._get(fields, "undo-fails", r.text, ""),
            decision=self._get(fields, "decision", lambda n, w: r.choice(n, w, DECISIONS), ""),
            applied=self._get(fields, "applied", r.boolean, True),
        )
        if answer.cause and (answer.cause == "oom") == bool(step.verb or answer.fails):
            wanted = "is for scripts, alone" if answer.cause == "oom" else "needs `fails: MESSAGE`"
            r.fault("LS1601", f"the cause '{answer.cause}' {wanted}", fields["cause"].value)
        return answer

    def _fits(self, name: str, field: Field, step: Step) -> bool:
        """Whether a key means something for this step; a fault if not."""
        only_script, only_verb = ("exit",), ("undo", "undo-fails", "applied")
        wrong = only_script if step.verb else only_verb
        if name not in wrong:
            return True
        kind = f"answers with the verb '{step.verb}'" if step.verb else "is a script"
        self.r.fault("LS1601", f"'{name}' means nothing here: step '{step.id}' {kind}", field.key)
        return False

    def _outputs(self, node: Node, what: str, step: Step) -> Mapping[str, Json]:
        if not step.verb:
            return self._texts(node, what)
        declared = self.verbs[step.verb].manifest.outputs
        found: dict[str, Json] = {}
        for name, field in self.r.entries(node, what).items():
            if name not in declared:
                near = did_you_mean(name, declared)
                known = f"it has: {', '.join(declared)}" if declared else "it has none"
                helps = [f"did you mean '{near}'?" if near else known]
                headline = f"the verb '{step.verb}' has no output '{name}'"
                self.r.fault("LS1601", headline, field.key, helps=helps)
            found[name] = self._json(field.value)
        return found

    def _json(self, node: Node) -> Json:
        """A value as JSON has it; unquoted numbers and booleans are such."""
        if isinstance(node, Scalar):
            return core_value(node)
        if isinstance(node, MappingNode):
            entries = self.r.entries(node, "a value")
            return {name: self._json(field.value) for name, field in entries.items()}
        return [self._json(item) for item in node.items]
