"""Whose code is on a thread's stack, and whether it may be broken off there.

What blocks is asked in the main thread's signal handler: nothing runs there meanwhile, so what is said of
the stack stays true until an exception is raised into it.
"""

import inspect
from collections.abc import Iterable, Mapping
from types import CodeType, FrameType
from typing import Final

from linkspan.sdk.manifest import PluginManifest
from linkspan.sdk.values import frozen

_HOUSE: Final = "linkspan"
"""Names of modules below it belong to this repository (docs/how-to/plugin.md)."""
_LOOP: Final = ("trio", "outcome")
_LOOP_MODULE: Final = "trio._core._run"
_AWAITS: Final = (
    inspect.CO_COROUTINE
    | inspect.CO_ITERABLE_COROUTINE
    | inspect.CO_GENERATOR
    | inspect.CO_ASYNC_GENERATOR
)


class LoopBlocked(Exception):
    """Raised inside a plugin's code that blocks the event loop: for the plugin it is as its own error."""


class LoopStillBlocked(SystemExit):
    """The same for code that has swallowed it; whoever guards plugins takes ``sys.exit`` for a fault, too."""


@frozen
class Place:
    """A line that is being executed.

    Attributes:
        file: Its file.
        line: Counted from 1.
        function: In which it lies.
    """

    file: str
    line: int
    function: str

    @classmethod
    def of(cls, frame: FrameType) -> "Place":
        """Where a frame is."""
        code = frame.f_code
        # A frame that is just being entered may have no line yet.
        return cls(code.co_filename, frame.f_lineno or code.co_firstlineno, code.co_qualname)

    def __str__(self) -> str:
        """``/usr/lib/…/acme/steps.py:12 (Fsck.apply)``."""
        return f"{self.file}:{self.line} ({self.function})"


@frozen(kw_only=True)
class Holder:
    """Who is at work on a stack.

    Attributes:
        plugin: The innermost plugin; empty if there is none.
        place: In that plugin's code, or else in the house's.
        inner: What is being executed, called from there.
        safe: Whether an exception may be raised there now.
    """

    plugin: str = ""
    place: Place
    inner: Place
    safe: bool = False


class Owners:
    """Tells by the names of modules which plugin code belongs to."""

    def __init__(self, plugins: Mapping[str, str]) -> None:
        """Know the plugins: their names by the module, or the package, that their code lies in."""
        self._plugins = dict(plugins)
        self._known: dict[str, str | None] = {}

    @classmethod
    def of(
        cls, manifests: Iterable[PluginManifest], modules: Iterable[tuple[str, str]]
    ) -> "Owners":
        """Of what is installed.

        Args:
            manifests: Each names its package.
            modules: Further modules and whose they are.
        """
        return cls({**dict(modules), **{each.package: each.name for each in manifests}})

    def plugin_of(self, module: str) -> str | None:
        """A plugin's name; None for the library's code, and any other that is nobody's."""
        if module not in self._known:
            name = module
            while name not in self._plugins and "." in name:
                name = name.rpartition(".")[0]
            self._known[module] = self._plugins.get(name)
        return self._known[module]

    def look(self, innermost: FrameType) -> Holder | None:
        """Who is at work on a stack; None if it is neither a plugin nor the house.

        An exception may be raised where a plugin's code is the innermost, but for libraries that it has
        called. Where it has called back into the house or into trio it may not: lines of theirs belong
        together. Nor may it where trio calls a plain function of the plugin (an abort function, an
        instrument): what those raise ends the event loop.
        """
        ours: FrameType | None = None
        theirs: FrameType | None = None
        plugin: str | None = None
        frame: FrameType | None = innermost
        while frame is not None:
            module = frame.f_globals.get("__name__") or ""
            top = module.partition(".")[0]
            house = top == _HOUSE or top in _LOOP
            if plugin is None:
                if house:
                    ours = ours or frame
                else:
                    plugin, theirs = self.plugin_of(module), frame
            elif house:
                awaits = top == _HOUSE or bool(frame.f_code.co_flags & _AWAITS)
                return _holder(innermost, theirs, plugin, safe=ours is None and awaits)
            frame = frame.f_back
        if plugin is not None:
            return _holder(innermost, theirs, plugin)
        return _holder(innermost, ours, "")


def _holder(
    innermost: FrameType, frame: FrameType | None, plugin: str, *, safe: bool = False
) -> Holder | None:
    if frame is None:
        return None
    return Holder(plugin=plugin, place=Place.of(frame), inner=Place.of(innermost), safe=safe)


def step_of(frame: FrameType | None) -> tuple[int, CodeType] | None:
    """Names the step of a task that a stack is of: the same until that task gives way; None if of none."""
    step = None
    while frame is not None and frame.f_back is not None:
        below = frame.f_back
        # The loop is a generator. Coroutines of the same module lie further in: the outermost counts.
        looping = below.f_code.co_flags & inspect.CO_GENERATOR
        if looping and below.f_globals.get("__name__") == _LOOP_MODULE:
            step = (id(frame), frame.f_code)
        frame = below
    return step
