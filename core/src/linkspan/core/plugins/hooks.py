"""Calls hooks in the running daemon: pluggy finds and orders them, this awaits and isolates them.

pluggy alone cannot: an async implementation only returns its coroutine, one that raises silences the
rest, and with ``firstresult`` a coroutine is never None. So implementations are taken from
``get_hookimpls()`` and called one by one here.
"""

import inspect
import logging
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import pluggy
import trio

from linkspan.sdk.diagnostics import did_you_mean
from linkspan.sdk.errors import DriverFault, InvalidArgument, LinkspanError
from linkspan.sdk.hooks import PROJECT, interceptors, listeners, registration
from linkspan.sdk.values import define, frozen

T = TypeVar("T")
log = logging.getLogger("linkspan.hooks")

_RECENT: Final = 50


@frozen(kw_only=True)
class HookFailure:
    """An implementation that failed."""

    hook: str
    plugin: str
    reason: str


@define
class HookStats:
    """What one plugin's hooks have done.

    Attributes:
        failures: All of them.
        failures_in_a_row: Back to 0 with the next success.
        muted: It failed too often in a row and gets no events any more.
        last_failure: In words.
    """

    calls: int = 0
    failures: int = 0
    failures_in_a_row: int = 0
    muted: bool = False
    last_failure: str = ""


def make_manager() -> pluggy.PluginManager:
    """A plugin manager that knows every hook of the sdk."""
    manager = pluggy.PluginManager(PROJECT)
    for specs in (registration, interceptors, listeners):
        manager.add_hookspecs(specs)
    return manager


class HookRunner:
    """Calls the hooks of all listeners.

    Attributes:
        failures: The last failures, oldest first.
    """

    def __init__(
        self,
        manager: pluggy.PluginManager | None = None,
        *,
        timeout_s: float = 5.0,
        max_failures: int = 5,
    ) -> None:
        """Make a runner.

        Args:
            manager: With the sdk's hooks; a new one by default.
            timeout_s: For one implementation of one call.
            max_failures: In a row, after which a listener is muted.
        """
        self.manager = manager or make_manager()
        self.timeout_s = timeout_s
        self.max_failures = max_failures
        self.failures: list[HookFailure] = []
        self._stats: dict[str, HookStats] = {}

    @property
    def stats(self) -> Mapping[str, HookStats]:
        """By plugin name."""
        return self._stats

    def register(self, plugin: object, name: str) -> None:
        """Add a listener (a module or an object with hook implementations).

        Raises:
            InvalidArgument: It implements a hook that does not exist, takes an argument that the hook
                does not have, or is an async wrapper.
        """
        try:
            self.manager.register(plugin, name=name)
        except (pluggy.PluginValidationError, ValueError) as exc:
            self._drop(plugin)
            raise InvalidArgument(f"plugin '{name}': {exc}", code="invalid_hook") from exc
        problem = self._problem(plugin, name)
        if problem:
            self._drop(plugin)
            raise InvalidArgument(f"plugin '{name}': {problem}", code="invalid_hook")
        self._stats[name] = HookStats()

    def _drop(self, plugin: object) -> None:
        if self.manager.is_registered(plugin):
            self.manager.unregister(plugin)

    def _problem(self, plugin: object, name: str) -> str:
        """pluggy's check_pending names one unknown hook only, and not whose it is."""
        known = [n for n in vars(self.manager.hook) if n.startswith("linkspan_")]
        real = [n for n in known if getattr(self.manager.hook, n).spec is not None]
        for caller in self.manager.get_hookcallers(plugin) or ():
            if caller.spec is None:
                nearest = did_you_mean(caller.name, real)
                return f"there is no hook '{caller.name}'" + (
                    f"; did you mean '{nearest}'?" if nearest else ""
                )
            for impl in caller.get_hookimpls():
                if impl.plugin_name == name and (impl.wrapper or impl.hookwrapper):
                    return f"hook '{caller.name}' cannot be wrapped"
        return ""

    def has(self, name: str) -> bool:
        """Whether any listener implements a hook; lets a hot path skip it."""
        return bool(getattr(self.manager.hook, name).get_hookimpls())

    def _implementations(self, name: str) -> list[pluggy.HookImpl]:
        caller: pluggy.HookCaller = getattr(self.manager.hook, name)
        implementations = caller.get_hookimpls()
        implementations.reverse()  # pluggy keeps them in reverse order of calling
        return implementations

    def call(self, name: str, /, **kwargs: object) -> list[tuple[str, object]]:
        """Call a registration hook of every listener, one after the other.

        Returns:
            Plugin name and answer of each that answered. One that fails is recorded and logged; the
            others are called all the same.
        """
        answers: list[tuple[str, object]] = []
        for impl in self._implementations(name):
            try:
                answer = impl.function(*[kwargs[a] for a in impl.argnames])
            except (Exception, SystemExit) as exc:  # noqa: BLE001 - one plugin's fault is not another's
                self._failed(name, impl.plugin_name, exc)
                continue
            if answer is not None:
                answers.append((impl.plugin_name, answer))
        return answers

    async def intercept(self, name: str, spec: T, /, **kwargs: object) -> T:
        """Call an interceptor of every listener in order; each sees what the one before returned.

        Raises:
            LinkspanError: A listener refuses the operation.
            DriverFault: A listener failed, took too long, or returned something else than ``spec``.
        If cancelled: the operation has not begun.
        """
        for impl in self._implementations(name):
            try:
                answer = await self._await(impl, {"spec": spec, **kwargs})
            except LinkspanError as exc:
                exc.add_note(f"refused by plugin '{impl.plugin_name}' in {name}")
                raise
            except (Exception, SystemExit) as exc:
                raise self._fault(name, impl.plugin_name, exc) from exc
            if answer is None:
                continue
            if not isinstance(answer, type(spec)):
                raise DriverFault(
                    f"plugin '{impl.plugin_name}' returned {type(answer).__name__} "
                    f"instead of {type(spec).__name__} from {name}",
                    details={"plugin": impl.plugin_name, "operation": name},
                )
            spec = answer
        return spec

    async def first(self, name: str, /, **kwargs: object) -> object | None:
        """Ask listeners one by one until one answers; None if nobody does.

        Raises:
            LinkspanError: A listener refuses.
            DriverFault: A listener failed; whom to ask next is not ours to guess.
        """
        for impl in self._implementations(name):
            try:
                answer: object = await self._await(impl, kwargs)
            except LinkspanError:
                raise
            except (Exception, SystemExit) as exc:
                raise self._fault(name, impl.plugin_name, exc) from exc
            if answer is not None:
                return answer
        return None

    async def notify(self, name: str, /, **kwargs: object) -> None:
        """Tell every listener at once and wait for all; a failure is logged, never raised.

        If cancelled: some listeners may not have been told.
        """
        implementations = [
            impl for impl in self._implementations(name) if not self._muted(impl.plugin_name)
        ]
        if not implementations:
            return
        async with trio.open_nursery() as nursery:
            for impl in implementations:
                nursery.start_soon(
                    self._tell, impl, name, kwargs, name=f"{name} {impl.plugin_name}"
                )

    async def _tell(self, impl: pluggy.HookImpl, name: str, kwargs: Mapping[str, object]) -> None:
        try:
            await self._await(impl, kwargs)
        except (Exception, SystemExit) as exc:  # noqa: BLE001 - Cancelled is a BaseException and passes
            self._failed(name, impl.plugin_name, exc)
        else:
            self._of(impl.plugin_name).failures_in_a_row = 0

    async def _await(self, impl: pluggy.HookImpl, kwargs: Mapping[str, object]) -> Any:
        self._of(impl.plugin_name).calls += 1
        with trio.fail_after(self.timeout_s):
            result = impl.function(*[kwargs[a] for a in impl.argnames])
            return await result if inspect.isawaitable(result) else result

    def _of(self, plugin: str) -> HookStats:
        return self._stats.setdefault(plugin, HookStats())

    def _muted(self, plugin: str) -> bool:
        return self._of(plugin).muted

    def _fault(self, hook: str, plugin: str, exc: Exception | SystemExit) -> DriverFault:
        """A listener has failed, and with it the operation."""
        self._failed(hook, plugin, exc)
        return DriverFault(
            f"plugin '{plugin}' failed in {hook}: {_words(exc)}",
            details={"plugin": plugin, "operation": hook},
        )

    def _failed(self, hook: str, plugin: str, exc: Exception | SystemExit) -> None:
        stats = self._of(plugin)
        stats.failures += 1
        stats.failures_in_a_row += 1
        stats.last_failure = f"{hook}: {_words(exc)}"
        self.failures.append(HookFailure(hook=hook, plugin=plugin, reason=_words(exc)))
        del self.failures[:-_RECENT]
        log.error("hook failed", exc_info=exc, extra={"hook": hook, "plugin": plugin})
        if stats.failures_in_a_row >= self.max_failures and not stats.muted:
            stats.muted = True
            log.error("listener muted", extra={"plugin": plugin, "failures": stats.failures})


def _words(exc: Exception | SystemExit) -> str:
    if isinstance(exc, trio.TooSlowError):
        return "it took too long"
    return f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
