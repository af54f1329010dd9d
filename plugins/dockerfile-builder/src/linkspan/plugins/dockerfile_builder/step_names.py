"""What steps are called where each is shown by itself: ``[build 2/3] RUN make``, as BuildKit writes it."""

import math
import re
from collections.abc import Mapping

from linkspan.plugins.dockerfile_builder import instructions as ins
from linkspan.plugins.dockerfile_builder.stages import Stage

_VARIABLE = re.compile(r"(?<!\\)\$(?:\{(\w+)\}|(\w+))")
_SHOWN = (ins.Run, ins.Copy, ins.Add, ins.Workdir)


class StepNames:
    """Names of the steps of one stage, given out in order. Steps that make no layer have none.

    Args:
        stages: How many the file has.
        on_image: The stage begins with an image, which is its first step.
    """

    def __init__(self, stage: Stage, *, stages: int, on_image: bool) -> None:
        self._title = f"{stage.source.written_name or stage.title} " if stages > 1 else ""
        shown = sum(isinstance(instruction, _SHOWN) for instruction in stage.instructions)
        self._total = shown + on_image
        self._given = 0

    def base(self, reference: str) -> str:
        """Of FROM."""
        return self._next(f"FROM {reference}")

    def step(self, instruction: ins.Instruction, values: Mapping[str, str]) -> str:
        """Of an instruction: with the variables that are set put in."""
        if not isinstance(instruction, _SHOWN):
            return ""

        def value(found: re.Match[str]) -> str:
            return values.get(found[1] or found[2], found[0])

        return self._next(_VARIABLE.sub(value, instruction.line.text))

    def _next(self, text: str) -> str:
        self._given += 1
        width = 1 + int(math.log10(max(self._total, 1)))
        return f"[{self._title}{self._given:>{width}}/{self._total}] {text}"
