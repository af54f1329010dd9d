"""Loads driver classes by entry point, with stevedore."""

import functools
import re
from collections.abc import Iterable, Mapping
from importlib import metadata
from typing import Any, Final

import attrs
from stevedore import DriverManager
from stevedore.exception import MultipleMatches
from stevedore.extension import error_on_conflict

from linkspan.sdk.diagnostics import did_you_mean
from linkspan.sdk.drivers.base import Driver
from linkspan.sdk.errors import DriverFault, NotFound
from linkspan.sdk.values import frozen

_GROUP: Final = re.compile(r"linkspan\.([a-z]+)\.v([0-9]+)")


class DriverUnloadable(DriverFault):
    """A driver is installed but its code cannot be loaded."""

    default_code = "driver_unloadable"


@frozen(kw_only=True)
class DriverEntry:
    """An installed driver, not loaded yet.

    Attributes:
        points: Its entry points; more than one is a conflict between packages.
    """

    role: str
    contract: int
    name: str
    points: tuple[metadata.EntryPoint, ...]

    @property
    def group(self) -> str:
        """``linkspan.<role>.v<contract>``."""
        return f"linkspan.{self.role}.v{self.contract}"

    @property
    def distribution(self) -> str:
        """``linkspan-nfs 1.1.0``; several when packages conflict."""
        return ", ".join(sorted({distribution_of(point) for point in self.points}))


def distribution_of(point: metadata.EntryPoint) -> str:
    """Name and version of the distribution that declares an entry point."""
    return _full_name(point.dist) if point.dist is not None else ""


@functools.lru_cache
def _full_name(distribution: metadata.Distribution) -> str:
    """Kept: each look reads and parses a file, and the entry points of a package share their distribution."""
    known = distribution.metadata
    return f"{known['Name']} {known['Version']}"


def find_drivers(points: Iterable[metadata.EntryPoint]) -> Mapping[tuple[str, str], DriverEntry]:
    """Group entry points by role and name; of several contract versions the highest counts."""
    found: dict[tuple[str, str], DriverEntry] = {}
    for point in points:
        match = _GROUP.fullmatch(point.group)
        if match is None:
            continue
        key, version = (match[1], point.name), int(match[2])
        known = found.get(key)
        if known is None or known.contract < version:
            found[key] = DriverEntry(
                role=match[1], contract=version, name=point.name, points=(point,)
            )
        elif known.contract == version and point.value not in {p.value for p in known.points}:
            found[key] = attrs.evolve(known, points=(*known.points, point))
    return found


class _FreshDriverManager(DriverManager[Any]):
    """Takes the entry points it is given.

    Stevedore's own lookup goes through a cache on disk whose key holds modification times as 32-bit
    floats (about two minutes), and hands out entry points that do not know their distribution.
    """

    _points: tuple[metadata.EntryPoint, ...] = ()

    @classmethod
    def of(cls, entry: DriverEntry) -> "_FreshDriverManager":
        bound = type("_BoundDriverManager", (cls,), {"_points": entry.points})
        manager: _FreshDriverManager = bound(
            entry.group,
            entry.name,
            on_missing_entrypoints_callback=None,
            conflict_resolver=error_on_conflict,
        )
        return manager

    def list_entry_points(self) -> list[metadata.EntryPoint]:
        return list(self._points)


def load_driver(entry: DriverEntry) -> type[Driver[Any]]:
    """Import a driver's class.

    Raises:
        DriverUnloadable: Its module cannot be imported, two packages claim the name, or what the entry
            point names is not a driver of that role.
    """
    help_text = f"linkspan plugin show {entry.name}"
    try:
        driver = _FreshDriverManager.of(entry).driver
    except KeyboardInterrupt:
        raise
    except MultipleMatches as exc:
        raise DriverUnloadable(
            f"{entry.role} driver '{entry.name}' is claimed by {entry.distribution}",
            details={"role": entry.role, "driver": entry.name},
            help="uninstall all of them but one",
        ) from exc
    except BaseException as exc:  # a plugin that calls sys.exit() on import must not end us
        raise DriverUnloadable(
            f"{entry.role} driver '{entry.name}' ({entry.distribution}) cannot be loaded: "
            f"{type(exc).__name__}: {exc}",
            details={"role": entry.role, "driver": entry.name},
            help=help_text,
        ) from exc
    if not (isinstance(driver, type) and issubclass(driver, Driver)):
        reason = "is not a subclass of linkspan.sdk.drivers.base.Driver"
    elif not hasattr(driver, "contract") or driver.contract.role != entry.role:
        reason = f"does not implement the contract of role '{entry.role}'"
    else:
        return driver
    raise DriverUnloadable(
        f"{entry.role} driver '{entry.name}' ({entry.distribution}): {entry.points[0].value} {reason}",
        details={"role": entry.role, "driver": entry.name},
        help=help_text,
    )


def no_such_driver(role: str, name: str, known: Iterable[str]) -> NotFound:
    """The error for a driver that nobody installed."""
    names = sorted(known)
    nearest = did_you_mean(name, names)
    if nearest:
        hint = f"did you mean '{nearest}'?"
    elif names:
        hint = f"installed for this role: {', '.join(names)}"
    else:
        hint = "no installed plugin fills this role: linkspan plugin ls"
    return NotFound(
        f"{role} driver '{name}' is not installed",
        code="driver_not_found",
        details={"role": role, "driver": name, "installed": names},
        help=hint,
    )
