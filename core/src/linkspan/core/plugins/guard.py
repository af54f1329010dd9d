"""A proxy around a driver: whatever it raises outside its contract becomes a DriverFault.

The engine sees LinkspanErrors only, and every fault names the plugin, its version and the operation;
``sys.exit`` in a plugin is one, too. Cancellation, KeyboardInterrupt and other BaseExceptions pass
untouched.
"""

import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, TypeVar, cast

from linkspan.sdk.errors import DriverFault, LinkspanError, OutOfSpace
from linkspan.sdk.files import is_full
from linkspan.sdk.pouring import Pourable
from linkspan.sdk.values import define, frozen

D = TypeVar("D")


@define
class CallStats:
    """What a plugin's driver has done so far.

    Attributes:
        calls: Calls of its methods.
        faults: Calls that broke the contract.
    """

    calls: int = 0
    faults: int = 0


@frozen
class _Owner:
    plugin: str
    version: str
    role: str
    stats: CallStats

    def fault(self, operation: str, exc: Exception | SystemExit) -> LinkspanError:
        """What to raise for an exception; the exception itself if it is within the contract."""
        if isinstance(exc, LinkspanError):
            return exc
        single = _only_error(exc)
        if isinstance(single, LinkspanError):
            return single
        name = f"{self.role}.{operation}" if self.role else operation
        if isinstance(exc, OSError) and is_full(exc):
            place = f": {exc.filename}" if exc.filename else ""
            return OutOfSpace(
                f"{exc.strerror}{place} (plugin '{self.plugin}' in {name})",
                details={"plugin": self.plugin, "operation": name},
                help="free some space, then try again",
            )
        self.stats.faults += 1
        cause = f"{type(single).__name__}: {single}" if str(single) else type(single).__name__
        return DriverFault(
            f"plugin '{self.plugin}' {self.version} failed in {name}: {cause}",
            details={"plugin": self.plugin, "version": self.version, "operation": name},
            help=f"linkspan plugin show {self.plugin}",
        )


def _only_error(exc: BaseException) -> BaseException:
    """The error inside a group of one, which a nursery makes of it; anything else as it is."""
    while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    return exc


class _Guard:
    """Looks like the driver (isinstance included); wraps each method at its first use."""

    _guarded_driver: object
    _guard_owner: _Owner

    def __init__(self, driver: object, owner: _Owner) -> None:
        object.__setattr__(self, "_guarded_driver", driver)
        object.__setattr__(self, "_guard_owner", owner)

    @property  # type: ignore[misc]  # object's own is writable
    def __class__(self) -> type:
        return type(self._guarded_driver)

    def __getattr__(self, name: str) -> object:
        # Only called while the name is not in the instance's own dict: once a method.
        driver, owner = self._guarded_driver, self._guard_owner
        try:
            value = getattr(driver, name)
        except AttributeError:
            if hasattr(type(driver), name):  # a property that failed inside
                raise owner.fault(name, AttributeError(name)) from None
            raise
        except (Exception, SystemExit) as exc:
            raise owner.fault(name, exc) from exc
        if not inspect.isroutine(value):
            return value
        wrapped = _wrap(value, name, owner)
        object.__setattr__(self, name, wrapped)
        return wrapped

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._guarded_driver, name, value)

    def __repr__(self) -> str:
        return f"<guarded {self._guarded_driver!r}>"


def guarded(
    driver: D, *, plugin: str, version: str, role: str = "", stats: CallStats | None = None
) -> D:
    """Wrap a driver.

    Args:
        driver: An open driver.
        plugin: The plugin's name, for messages.
        version: The plugin's version, for messages.
        role: For messages: ``volume.mount`` instead of ``mount``.
        stats: Where calls and faults are counted.

    Returns:
        An object with the driver's methods; ``isinstance`` answers as for the driver.
    """
    owner = _Owner(plugin, version, role, stats if stats is not None else CallStats())
    return cast(D, _Guard(driver, owner))


def guarded_open(
    opening: AbstractAsyncContextManager[D],
    *,
    plugin: str,
    version: str,
    role: str = "",
    stats: CallStats | None = None,
) -> AbstractAsyncContextManager[D]:
    """Guard the opening and closing of a driver, and the driver that comes out of it.

    Args:
        opening: What the driver's ``open`` returned.
        plugin: As for ``guarded``.
        version: As for ``guarded``.
        role: As for ``guarded``.
        stats: As for ``guarded``.
    """
    owner = _Owner(plugin, version, role, stats if stats is not None else CallStats())
    context: AbstractAsyncContextManager[D] = _OpeningContext(opening, "open", owner)
    return context


def _wrap(method: Callable[..., Any], name: str, owner: _Owner) -> Callable[..., Any]:
    stats = owner.stats
    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def call_async(*args: object, **kwargs: object) -> object:
            stats.calls += 1
            try:
                return await method(*args, **kwargs)
            except LinkspanError:
                raise
            except (Exception, SystemExit) as exc:
                raise owner.fault(name, exc) from exc

        return call_async

    @functools.wraps(method)
    def call(*args: object, **kwargs: object) -> object:
        stats.calls += 1
        try:
            result = method(*args, **kwargs)
        except LinkspanError:
            raise
        except (Exception, SystemExit) as exc:
            raise owner.fault(name, exc) from exc
        if hasattr(type(result), "__aenter__"):
            return _GuardedContext(result, name, owner)
        if hasattr(type(result), "__anext__"):
            return _guard_iterator(result, name, owner)
        if inspect.isawaitable(result):
            return _guard_awaitable(result, name, owner)
        return result

    return call


async def _guard_awaitable(result: Any, name: str, owner: _Owner) -> object:
    try:
        return await result
    except LinkspanError:
        raise
    except (Exception, SystemExit) as exc:
        raise owner.fault(name, exc) from exc


class _GuardedIterator(AsyncIterator[Any]):
    def __init__(self, inner: AsyncIterator[Any], name: str, owner: _Owner) -> None:
        self._inner, self._name, self._owner = inner, name, owner

    async def __anext__(self) -> object:
        try:
            return await self._inner.__anext__()
        except (LinkspanError, StopAsyncIteration):
            raise
        except (Exception, SystemExit) as exc:
            raise self._owner.fault(self._name, exc) from exc

    async def aclose(self) -> None:
        close = getattr(self._inner, "aclose", None)
        if close is not None:
            await close()


class _GuardedPourable(_GuardedIterator):
    """An iterator that is ``linkspan.sdk.pouring.Pourable``, too."""

    def __init__(self, inner: Any, name: str, owner: _Owner) -> None:
        super().__init__(inner, name, owner)
        self._pour: Callable[[int], Awaitable[int]] = inner.pour

    async def pour(self, pipe: int) -> int:
        try:
            return await self._pour(pipe)
        except (LinkspanError, BrokenPipeError):
            raise
        except (Exception, SystemExit) as exc:
            raise self._owner.fault(self._name, exc) from exc


def _guard_iterator(inner: AsyncIterator[Any], name: str, owner: _Owner) -> _GuardedIterator:
    kind = _GuardedPourable if isinstance(inner, Pourable) else _GuardedIterator
    return kind(inner, name, owner)


class _GuardedContext(AbstractAsyncContextManager[Any, bool | None]):
    """Tells what the driver raises from what the body of ``async with`` raised."""

    def __init__(
        self, inner: AbstractAsyncContextManager[Any, bool | None], name: str, owner: _Owner
    ) -> None:
        self._inner, self._name, self._owner = inner, name, owner

    async def __aenter__(self) -> object:
        try:
            entered = await self._inner.__aenter__()
        except LinkspanError:
            raise
        except (Exception, SystemExit) as exc:
            raise self._owner.fault(self._name, exc) from exc
        if hasattr(type(entered), "__anext__"):
            return _guard_iterator(entered, self._name, self._owner)
        return entered

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        try:
            return await self._inner.__aexit__(exc_type, exc, traceback)
        except LinkspanError:
            raise
        except (Exception, SystemExit) as raised:
            if raised is exc or _holds(raised, exc):
                raise
            raise self._owner.fault(self._name, raised) from raised


class _OpeningContext(_GuardedContext):
    """Hands out the driver guarded, rather than an iterator or a plain value."""

    async def __aenter__(self) -> object:
        return _Guard(await super().__aenter__(), self._owner)


def _holds(group: BaseException, exc: BaseException | None) -> bool:
    """Whether a nursery of the driver has only wrapped what the body raised."""
    return (
        exc is not None
        and isinstance(group, BaseExceptionGroup)
        and all(e is exc or _holds(e, exc) for e in group.exceptions)
    )
