"""Build checks: what is allowed in a Dockerfile and yet likely a mistake. Names and texts are BuildKit's."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import attrs

from linkspan.plugins.dockerfile_builder import instructions as ins
from linkspan.plugins.dockerfile_builder.fault import DockerfileError, quote, suggestion
from linkspan.plugins.dockerfile_builder.stage_lint import StageLint, names_secret
from linkspan.plugins.dockerfile_builder.stages import Dockerfile
from linkspan.plugins.dockerfile_builder.variables import GlobalScope, expanded
from linkspan.sdk.diagnostics import Diagnostic, Label, Span
from linkspan.sdk.dockerignore import IgnorePatterns
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.reference import parse_reference

EXPERIMENTAL: Final = frozenset({"InvalidDefinitionDescription"})
_RESERVED = ("context", "scratch")
_TARGET_PLATFORM = re.compile(r"\$\{?TARGETPLATFORM\}?")
_LINT_ID = "LS0205"

EnvironmentOf = Callable[[str], Mapping[str, str] | None]
"""The variables of a base image by its name; None if it is not on this machine."""


@attrs.frozen(kw_only=True)
class Finding:
    """One violation of a rule; lines count from 1."""

    rule: str
    message: str
    line: int
    last_line: int


@attrs.frozen(kw_only=True)
class CheckSettings:
    """``# check=skip=A,B;error=true;experimental=C``."""

    skip: frozenset[str] = frozenset()
    experimental: frozenset[str] = frozenset()
    error: bool = False

    @classmethod
    def parse(cls, text: str, file: str) -> "CheckSettings":
        """Read the directive's value.

        Raises:
            DockerfileError: A part is none of the three.
        """
        found: dict[str, str] = {}
        for part in filter(None, (part.strip() for part in text.split(";"))):
            key, equals, value = part.partition("=")
            if not equals or key.strip() not in ("skip", "error", "experimental"):
                raise DockerfileError(f"invalid check option {quote(part)}", file=file)
            found[key.strip()] = value.strip()
        if found.get("error", "false").lower() not in ("true", "false", "1", "0"):
            raise DockerfileError(f"failed to parse check option {quote(text)}", file=file)
        return cls(
            skip=_names(found.get("skip", "")),
            experimental=_names(found.get("experimental", "")),
            error=found.get("error", "").lower() in ("true", "1"),
        )

    def wants(self, rule: str) -> bool:
        """Whether a rule is on."""
        if "all" in self.skip or rule.lower() in self.skip:
            return False
        return rule not in EXPERIMENTAL or bool(self.experimental & {"all", rule.lower()})


def _names(text: str) -> frozenset[str]:
    return frozenset(name.strip().lower() for name in text.split(",") if name.strip())


def lint(
    dockerfile: Dockerfile,
    *,
    settings: CheckSettings,
    scope: GlobalScope,
    environment_of: EnvironmentOf,
    ignored: IgnorePatterns | None = None,
) -> list[Finding]:
    """All findings, in the order of the file.

    Args:
        scope: The build's arguments.
        ignored: What ``.dockerignore`` leaves out of the context.
    """
    checker = _Checker(dockerfile, scope, environment_of, ignored)
    findings = {found for found in checker.findings() if settings.wants(found.rule)}
    return sorted(findings, key=lambda found: (found.line, found.rule, found.message))


def diagnostic(finding: Finding, dockerfile: Dockerfile) -> Diagnostic:
    """A finding with its line drawn."""
    lines = dockerfile.text.splitlines()
    shown = lines[finding.line - 1] if finding.line <= len(lines) else ""
    start = len(shown) - len(shown.lstrip())
    span = Span(line=finding.line, column=start + 1, length=max(1, len(shown.strip())))
    return Diagnostic(
        id=_LINT_ID,
        headline=f"{finding.rule}: {finding.message}",
        file=dockerfile.file,
        primary=Label(span=span),
        source=dockerfile.text,
        severity="warning",
    )


class _Checker:
    def __init__(
        self,
        dockerfile: Dockerfile,
        scope: GlobalScope,
        environment_of: EnvironmentOf,
        ignored: IgnorePatterns | None,
    ) -> None:
        self._dockerfile = dockerfile
        self._scope = scope
        self._environment_of = environment_of
        self._ignored = ignored

    def findings(self) -> Iterator[Finding]:
        yield from self._casing()
        for number in self._dockerfile.empty_continuations:
            yield Finding(
                rule="NoEmptyContinuation",
                message="Empty continuation line",
                line=number,
                last_line=number,
            )
        for arg in self._dockerfile.global_args:
            yield from _described(arg, *(name for name, _ in arg.args))
            for name, _ in arg.args:
                if names_secret(name):
                    yield _secret(arg, name)
        yield from self._stage_names()
        done: list[StageLint] = []
        for stage in self._dockerfile.stages:
            yield from self._from(stage.source)
            base_name = self._quietly_expanded(stage.source, stage.source.base)
            base = self._dockerfile.stage_named(base_name, stage.index)
            lint_of = StageLint.begin(
                self._scope,
                done[base.index] if base is not None else None,
                self._environment_of(base_name) if base is None else None,
            )
            done.append(lint_of)
            for instruction in stage.instructions:
                for rule, message, at in lint_of.check(instruction, self._ignored):
                    yield _at(at, rule, message)

    def _quietly_expanded(self, instruction: ins.Instruction, word: str) -> str:
        try:
            return expanded(instruction, word, self._scope.values).text
        except DockerfileError:
            return ""

    def _casing(self) -> Iterator[Finding]:
        every: list[ins.Instruction] = [*self._dockerfile.global_args]
        for stage in self._dockerfile.stages:
            every += [stage.source, *stage.instructions]
        words = [instruction.line.written_keyword for instruction in every]
        lower = sum(word.islower() for word in words)
        upper = sum(word.isupper() for word in words)
        majority = "lowercase" if lower > upper else "uppercase"
        for instruction in every:
            word = instruction.line.written_keyword
            if not (word.islower() if lower > upper else word.isupper()):
                yield _at(
                    instruction,
                    "ConsistentInstructionCasing",
                    f"Command '{word}' should match the case of the command majority ({majority})",
                )

    def _stage_names(self) -> Iterator[Finding]:
        seen: set[str] = set()
        for stage in self._dockerfile.stages:
            source = stage.source
            if not source.name:
                continue
            if source.name in _RESERVED:
                yield _at(
                    source,
                    "ReservedStageName",
                    "Stage name should not use the same name as reserved stage"
                    f" {quote(source.name)}",
                )
            if source.name in seen:
                yield _at(
                    source,
                    "DuplicateStageName",
                    f"Duplicate stage name {quote(source.written_name)}, stage names should be"
                    " unique",
                )
            seen.add(source.name)
            yield from _described(source, source.name)

    def _from(self, source: ins.From) -> Iterator[Finding]:
        if source.name != source.written_name:
            yield _at(
                source,
                "StageNameCasing",
                f"Stage name '{source.written_name}' should be lowercase",
            )
        keyword = source.line.written_keyword
        if source.written_as and _case(source.written_as) != _case(keyword):
            yield _at(
                source,
                "FromAsCasing",
                f"'{source.written_as}' and '{keyword}' keywords' casing do not match",
            )
        for word in (source.base, source.platform):
            yield from self._undeclared(source, word)
        yield from self._default_base(source)
        if not source.platform:
            return
        if _TARGET_PLATFORM.fullmatch(source.platform):
            yield _at(
                source,
                "RedundantTargetPlatform",
                f"Setting platform to predefined {source.platform} in FROM is redundant as this"
                " is the default behavior",
            )
        elif "$" not in source.platform:
            parts = source.platform.lower().split("/")
            if not any(part in source.name for part in parts if part):
                yield _at(
                    source,
                    "FromPlatformFlagConstDisallowed",
                    f"FROM --platform flag should not use constant value {quote(source.platform)}",
                )

    def _undeclared(self, source: ins.From, word: str) -> Iterator[Finding]:
        try:
            unset = expanded(source, word, self._scope.values).unset
        except DockerfileError:
            return
        for name in sorted(unset):
            near = suggestion(name, self._scope.values)
            yield _at(source, "UndefinedArgInFrom", f"FROM argument '{name}' is not declared{near}")

    def _default_base(self, source: ins.From) -> Iterator[Finding]:
        """Whether the defaults of the arguments alone give a base image's name."""
        if "$" not in source.base:
            return
        defaults = GlobalScope({}, self._scope.predefined, self._dockerfile.global_args).values
        try:
            result = expanded(source, source.base, defaults)
            if not result.unset:
                parse_reference(result.text)
                return
            if result.text:
                parse_reference(result.text)
                return
        except (DockerfileError, InvalidArgument):
            pass
        yield _at(
            source,
            "InvalidDefaultArgInFrom",
            f"Default value for ARG {source.base} results in empty or invalid base image name",
        )


def _case(word: str) -> str:
    return "upper" if word.isupper() else "lower" if word.islower() else "mixed"


def _at(instruction: ins.Instruction, rule: str, message: str) -> Finding:
    line = instruction.line
    return Finding(rule=rule, message=message, line=line.first_line, last_line=line.last_line)


def _secret(arg: ins.Arg, name: str) -> Finding:
    return _at(
        arg,
        "SecretsUsedInArgOrEnv",
        f"Do not use ARG or ENV instructions for sensitive data (ARG {quote(name)})",
    )


def _described(instruction: ins.Instruction, *names: str) -> Iterator[Finding]:
    """A comment right above should begin with the name that it describes."""
    comment = instruction.line.comment
    if comment and comment.split()[0] not in names:
        yield _at(
            instruction,
            "InvalidDefinitionDescription",
            "Comment for build stage or argument should follow the format:"
            " `# <arg/stage name> <description>`. If this is not intended to be a description"
            " comment, add an empty line or comment between the instruction and the comment.",
        )
