"""Which variables an instruction sees: ENV, ARG, build arguments, platform.

``later line wins`` holds inside a stage, as in BuildKit: an ARG after an ENV of the same name is what
RUN sees, while the image keeps the ENV.
"""

from collections.abc import Mapping

import attrs

from linkspan.plugins.dockerfile_builder.expansion import Expanded, ExpansionError, expand
from linkspan.plugins.dockerfile_builder.instructions import Arg, Instruction
from linkspan.sdk.model.image import Platform

# Given with --build-arg they need no ARG, reach RUN, and stay out of history and cache keys.
PROXIES = tuple(
    name
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (upper, upper.lower())
)
# Read by the builder itself; giving them without an ARG is no mistake.
_SPECIAL = ("SOURCE_DATE_EPOCH",)
_SPECIAL_PREFIX = "BUILDKIT_"


def expanded(
    instruction: Instruction, word: str, values: Mapping[str, str], *, raw_quotes: bool = False
) -> Expanded:
    """Expand one word of an instruction; ``raw_quotes`` leaves quotes alone.

    Raises:
        DockerfileError: The word cannot be expanded.
    """
    try:
        return expand(word, values, instruction.line.escape, raw_quotes=raw_quotes)
    except ExpansionError as error:
        raise instruction.line.error(str(error), framed=False) from error


def platform_args(target: Platform, build: Platform, stage: str) -> dict[str, str]:
    """TARGETPLATFORM and its kin."""
    args = {"TARGETSTAGE": stage or "default"}
    for prefix, platform in (("TARGET", target), ("BUILD", build)):
        args |= {
            f"{prefix}PLATFORM": str(platform),
            f"{prefix}OS": platform.os,
            f"{prefix}OSVERSION": platform.os_version,
            f"{prefix}ARCH": platform.architecture,
            f"{prefix}VARIANT": platform.variant,
        }
    return args


class GlobalScope:
    """ARG before the first FROM.

    Attributes:
        given: ``--build-arg``.
        predefined: Platform arguments.
        values: What FROM sees.
    """

    def __init__(
        self, given: Mapping[str, str], predefined: Mapping[str, str], args: tuple[Arg, ...]
    ) -> None:
        self.given = given
        self.predefined = predefined
        self.values: dict[str, str] = dict(predefined)
        self.declared: dict[str, str | None] = {}
        for arg in args:
            for name, default in arg.args:
                value = given.get(name)
                if value is None and default is not None:
                    value = expanded(arg, default, self.values).text
                if value is None:
                    value = self.values.get(name)
                self.declared[name] = value
                if value is not None:
                    self.values[name] = value

    def unconsumed(self, declared: set[str]) -> list[str]:
        """Build arguments that no ARG asks for."""
        return sorted(
            name
            for name in self.given
            if name not in declared
            and name not in PROXIES
            and name not in _SPECIAL
            and not name.startswith(_SPECIAL_PREFIX)
        )


@attrs.define
class StageScope:
    """What the instructions of one stage see.

    Attributes:
        values: Environment and arguments, the later line wins.
        args: Arguments in scope that have a value, in order: they are part of RUN's history.
    """

    outer: GlobalScope
    values: dict[str, str]
    args: dict[str, str] = attrs.field(factory=dict)

    def declare(self, arg: Arg) -> None:
        """Run an ARG."""
        for name, default in arg.args:
            value = self.outer.given.get(name)
            if value is None and default is not None:
                value = expanded(arg, default, self.values).text
            if value is None:
                value = self.outer.declared.get(name)
            if value is None:
                value = self.outer.predefined.get(name)
            if value is not None:
                self.values[name] = self.args[name] = value

    def run_environment(self) -> dict[str, str]:
        """What a RUN step gets beside the variables that count for the cache."""
        proxies: dict[str, str] = {}
        for name in PROXIES:
            value = self.outer.given.get(name)
            if value is not None and name not in self.values:
                # Programs disagree about the case; BuildKit sets both.
                for other in (name, name.upper(), name.lower()):
                    if other not in self.values:
                        proxies.setdefault(other, value)
        return proxies
