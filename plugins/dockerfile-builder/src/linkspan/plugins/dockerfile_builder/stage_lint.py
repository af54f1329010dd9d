"""The checks of one stage's instructions, in order: some depend on what stands above."""

import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import Final

import attrs

from linkspan.plugins.dockerfile_builder import instructions as ins
from linkspan.plugins.dockerfile_builder.fault import DockerfileError, quote, suggestion
from linkspan.plugins.dockerfile_builder.remote import is_git, is_url
from linkspan.plugins.dockerfile_builder.variables import GlobalScope, StageScope, expanded
from linkspan.sdk.dockerignore import IgnorePatterns

Violation = tuple[str, str, ins.Instruction]
"""Rule, message, and where."""

_SECRET_WORDS = "apikey|auth|credentials?|key|password|pword|passwd|secret|token"  # noqa: S105
_SECRET: Final = re.compile(rf"(?:_|^)(?:{_SECRET_WORDS})(?:_|$)", re.IGNORECASE)
_PUBLIC: Final = re.compile(r"(?:_|^)public(?:_|$)", re.IGNORECASE)
_HOST_PART: Final = re.compile(r"(?:\[[^\]]*\]|[^:/]*):.+")


def names_secret(name: str) -> bool:
    """Whether a variable's name says that its value is a secret."""
    return bool(_SECRET.search(name)) and not _PUBLIC.search(name)


@attrs.define
class StageLint:
    """What a stage's instructions have said so far.

    Attributes:
        knows_base: The variables of the base image are known.
        last: The last CMD, ENTRYPOINT and HEALTHCHECK of this stage.
    """

    scope: StageScope
    knows_base: bool
    workdir_set: bool = False
    shell_set: bool = False
    declared: set[str] = attrs.field(factory=set)
    last: dict[str, ins.Instruction] = attrs.field(factory=dict)

    @classmethod
    def begin(
        cls, outer: GlobalScope, base: "StageLint | None", image: Mapping[str, str] | None
    ) -> "StageLint":
        """On a stage, or on an image whose variables are known (or not: None)."""
        if base is not None:
            return cls(
                scope=StageScope(outer, dict(base.scope.values), dict(base.scope.args)),
                knows_base=base.knows_base,
                workdir_set=base.workdir_set,
                shell_set=base.shell_set,
                declared=set(base.declared),
            )
        return cls(scope=StageScope(outer, dict(image or {})), knows_base=image is not None)

    def check(
        self, instruction: ins.Instruction, ignored: IgnorePatterns | None
    ) -> Iterator[Violation]:
        """The violations of one instruction; remembers what it says."""
        for word in _words(instruction):
            yield from self._undefined(instruction, word)
        match instruction:
            case ins.Env() | ins.Label():
                yield from self._pairs(instruction)
            case ins.Arg():
                yield from self._arg(instruction)
            case ins.Cmd() | ins.Entrypoint() | ins.Healthcheck():
                yield from self._command(instruction)
            case ins.Maintainer():
                yield (
                    "MaintainerDeprecated",
                    "Maintainer instruction is deprecated in favor of using label",
                    instruction,
                )
            case ins.Shell():
                self.shell_set = True
            case ins.Workdir():
                yield from self._workdir(instruction)
            case ins.Expose():
                yield from self._expose(instruction)
            case ins.Copy() | ins.Add():
                yield from self._ignored_sources(instruction, ignored)
            case _:
                return

    def _undefined(self, instruction: ins.Instruction, word: str) -> Iterator[Violation]:
        if not self.knows_base:
            return
        try:
            unset = expanded(instruction, word, self.scope.values).unset
        except DockerfileError:
            return
        for name in sorted(unset - self.declared):
            near = suggestion(name, self.scope.values).replace("mean ", "mean $")
            yield "UndefinedVar", f"Usage of undefined variable '${name}'{near}", instruction

    def _value(self, instruction: ins.Instruction, word: str) -> str:
        try:
            return expanded(instruction, word, self.scope.values).text
        except DockerfileError:
            return word

    def _pairs(self, instruction: ins.Env | ins.Label) -> Iterator[Violation]:
        keyword = instruction.line.keyword
        values = {}
        for pair in instruction.pairs:
            if pair.legacy:
                yield (
                    "LegacyKeyValueFormat",
                    f'"{keyword} key=value" should be used instead of legacy "{keyword} key'
                    ' value" format',
                    instruction,
                )
            values[pair.key] = self._value(instruction, pair.value)
            if isinstance(instruction, ins.Env) and names_secret(pair.key):
                yield _secret(instruction, pair.key)
        if isinstance(instruction, ins.Env):
            self.scope.values.update(values)

    def _arg(self, instruction: ins.Arg) -> Iterator[Violation]:
        for name, _ in instruction.args:
            self.declared.add(name)
            if names_secret(name):
                yield _secret(instruction, name)
        try:
            self.scope.declare(instruction)
        except DockerfileError:
            return

    def _command(
        self, instruction: ins.Cmd | ins.Entrypoint | ins.Healthcheck
    ) -> Iterator[Violation]:
        keyword = instruction.line.keyword
        if keyword in self.last:
            yield (
                "MultipleInstructionsDisallowed",
                f"Multiple {keyword} instructions should not be used in the same stage because"
                " only the last one will be used",
                self.last[keyword],
            )
        self.last[keyword] = instruction
        if isinstance(instruction, ins.Healthcheck) or not instruction.command.shell_form:
            return
        if instruction.command.words and not self.shell_set:
            yield (
                "JSONArgsRecommended",
                f"JSON arguments recommended for {keyword} to prevent unintended behavior"
                " related to OS signals",
                instruction,
            )

    def _workdir(self, instruction: ins.Workdir) -> Iterator[Violation]:
        path = self._value(instruction, instruction.path)
        if not self.workdir_set and not path.startswith("/"):
            yield (
                "WorkdirRelativePath",
                f"Relative workdir {quote(path)} can have unexpected results if the base image"
                " changes",
                instruction,
            )
        self.workdir_set = True

    def _expose(self, instruction: ins.Expose) -> Iterator[Violation]:
        for port in instruction.ports:
            text = self._value(instruction, port)
            _, slash, protocol = text.rpartition("/")
            if slash and protocol != protocol.lower():
                yield (
                    "ExposeProtoCasing",
                    f"Defined protocol '{text}' in EXPOSE instruction should be lowercase",
                    instruction,
                )
            if _HOST_PART.fullmatch(text):
                yield (
                    "ExposeInvalidFormat",
                    "EXPOSE instruction should not define an IP address or host-port mapping,"
                    f" found '{text}'",
                    instruction,
                )

    def _ignored_sources(
        self, instruction: ins.Copy | ins.Add, ignored: IgnorePatterns | None
    ) -> Iterator[Violation]:
        if not ignored or (isinstance(instruction, ins.Copy) and instruction.source):
            return
        for source in instruction.sources:
            path = self._value(instruction, source)
            if is_url(path) or is_git(path):
                continue
            path = posixpath.normpath(path.lstrip("/") or ".")
            if path != "." and ignored.excludes(path):
                yield (
                    "CopyIgnoredFile",
                    f"Attempting to {instruction.line.keyword.capitalize()} file {quote(source)}"
                    " that is excluded by .dockerignore",
                    instruction,
                )


def _secret(instruction: ins.Instruction, name: str) -> Violation:
    keyword = instruction.line.keyword
    return (
        "SecretsUsedInArgOrEnv",
        f"Do not use ARG or ENV instructions for sensitive data ({keyword} {quote(name)})",
        instruction,
    )


def _words(instruction: ins.Instruction) -> Iterator[str]:
    """The words in which variables are expanded."""
    match instruction:
        case ins.Env() | ins.Label():
            for pair in instruction.pairs:
                yield from (pair.key, pair.value)
        case ins.Arg():
            yield from (value for _, value in instruction.args if value is not None)
        case ins.Copy() | ins.Add():
            yield from (*instruction.sources, instruction.dest)
            yield from (instruction.chown, instruction.chmod)
        case ins.Workdir():
            yield instruction.path
        case ins.User() | ins.StopSignal():
            yield instruction.value
        case ins.Volume():
            yield from instruction.paths
        case ins.Expose():
            yield from instruction.ports
        case _:
            return
