"""Reads ``linkspan-plugin.toml`` without importing the plugin."""

import re
import sys
import tomllib
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, Final, Literal

import attrs

from linkspan.core.config.positions import Path as KeyPath, scan
from linkspan.core.config.structure import Fault, FaultsError, structure
from linkspan.sdk.diagnostics import Diagnostic, Label, Span, did_you_mean, render_all
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.manifest import (
    CommandManifest,
    ComponentManifest,
    DriverManifest,
    PluginManifest,
    VerbManifest,
    VerbSetting,
    VerbUndo,
)
from linkspan.sdk.values import frozen

FILE_NAME: Final = "linkspan-plugin.toml"
_MAX_BYTES: Final = 1 << 20
_NAME: Final = re.compile(r"[a-z0-9]+(?:[-./][a-z0-9]+)*")
_TARGET: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_MODULE: Final = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
_FEATURE: Final = re.compile(r"[a-z]+\.[a-z{][a-z-]*\}?")
_AT: Final = re.compile(r"\s*\(at line (\d+), column (\d+)\)$")


class ManifestError(InvalidArgument):
    """A plugin's manifest is wrong or missing."""

    default_code = "invalid_manifest"

    def __init__(self, diagnostics: list[Diagnostic]) -> None:
        super().__init__(render_all(diagnostics))
        self.diagnostics = tuple(diagnostics)


def _matches(pattern: re.Pattern[str], form: str) -> Any:
    def check(_instance: object, _field: "attrs.Attribute[Any]", value: str) -> None:
        if value and not pattern.fullmatch(value):
            raise ValueError(f"'{value}' is not of the form {form}")

    return check


def _name() -> Any:
    return attrs.field(validator=_matches(_NAME, "lower-case-words"))


def _target(**kwargs: Any) -> Any:
    return attrs.field(validator=_matches(_TARGET, "module:attribute"), **kwargs)


def _no_secrets_inside(_: object, __: object, keys: "dict[str, _Setting]") -> None:
    if any(setting.type == "secrets" for setting in keys.values()):
        raise ValueError("type 'secrets' is for a verb's own settings, not for keys of one")


@frozen(kw_only=True)
class _Setting:
    type: Literal[
        "string",
        "int",
        "float",
        "bool",
        "duration",
        "size",
        "list",
        "map",
        "port",
        "any",
        "secrets",
    ]
    required: bool = False
    help: str = ""
    default: Any = None
    options: tuple[str, ...] = ()
    secret: bool = False
    keys: dict[str, "_Setting"] = attrs.field(factory=dict, validator=_no_secrets_inside)
    feature: str = attrs.field(default="", validator=_matches(_FEATURE, "role.feature"))

    def public(self) -> VerbSetting:
        return VerbSetting(
            type=self.type,
            required=self.required,
            help=self.help,
            default=self.default,
            options=self.options,
            secret=self.secret,
            keys={name: setting.public() for name, setting in self.keys.items()},
            feature=self.feature,
        )


@frozen(kw_only=True)
class _Verb:
    name: str = _name()
    summary: str
    with_: dict[str, _Setting] = attrs.field(factory=dict)
    outputs: tuple[str, ...] = ()
    workspace: bool = True
    undo: VerbUndo = "records"


@frozen(kw_only=True)
class _Driver:
    role: str = _name()
    name: str = _name()
    contract: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    features: tuple[str, ...] = ()


@frozen(kw_only=True)
class _Command:
    words: str
    run: str = _target()
    summary: str = ""


@frozen(kw_only=True)
class _Component:
    name: str = _name()
    config: str = _target(default="")


@frozen(kw_only=True)
class _Manifest:
    name: str = _name()
    version: str
    summary: str = ""
    stage: Literal["alpha", "beta", "ga"] = "beta"
    listener: str = attrs.field(default="", validator=_matches(_MODULE, "package.module"))
    driver: tuple[_Driver, ...] = ()
    verb: tuple[_Verb, ...] = ()
    command: tuple[_Command, ...] = ()
    component: tuple[_Component, ...] = ()


def parse_manifest(
    text: str, *, file: str = FILE_NAME, package: str = "", distribution: str = ""
) -> PluginManifest:
    """Read a manifest's text.

    Args:
        text: The TOML document.
        file: For messages.
        package: Import name of the package that holds it.
        distribution: Name and version of what was installed.

    Raises:
        ManifestError: Everything that is wrong, with line and column.
    """
    text = text.replace("\r\n", "\n")
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as exc:
        at = _AT.search(str(exc))
        span = Span(line=int(at[1]), column=int(at[2])) if at else None
        headline = f"not valid TOML: {_AT.sub('', str(exc))}"
        raise ManifestError([_diagnostic("LS3002", headline, file, span, text)]) from exc
    try:
        raw = structure(document, _Manifest)
    except FaultsError as exc:
        places = scan(text)
        raise ManifestError(
            [_fault_diagnostic(fault, places, file, text) for fault in exc.faults]
        ) from exc
    return PluginManifest(
        name=raw.name,
        version=raw.version,
        summary=raw.summary,
        stage=raw.stage,
        listener=raw.listener,
        drivers=tuple(
            DriverManifest(role=d.role, name=d.name, contract=d.contract, features=d.features)
            for d in raw.driver
        ),
        verbs=tuple(
            VerbManifest(
                name=v.name,
                summary=v.summary,
                settings={name: setting.public() for name, setting in v.with_.items()},
                outputs=v.outputs,
                workspace=v.workspace,
                undo=v.undo,
            )
            for v in raw.verb
        ),
        commands=tuple(
            CommandManifest(words=c.words, run=c.run, summary=c.summary) for c in raw.command
        ),
        components=tuple(ComponentManifest(name=c.name, config=c.config) for c in raw.component),
        package=package,
        distribution=distribution,
    )


def _fault_diagnostic(fault: Fault, places: Any, file: str, text: str) -> Diagnostic:
    path: KeyPath = fault.path
    while path and path not in places:
        path = path[:-1]
    place = places.get(path)
    span = None
    if place is not None:
        span = place.key if fault.kind in ("unknown", "missing") else place.value
    name = ".".join(str(part) for part in fault.path)
    nearest = did_you_mean(str(fault.path[-1]), fault.choices) if fault.path else None
    helps = (f"did you mean '{nearest}'?",) if nearest else ()
    return _diagnostic("LS3002", f"'{name}' {fault.message}", file, span, text, helps)


def _diagnostic(
    identifier: str,
    headline: str,
    file: str,
    span: Span | None,
    source: str,
    helps: tuple[str, ...] = (),
) -> Diagnostic:
    return Diagnostic(
        id=identifier,
        headline=headline,
        file=file,
        primary=Label(span=span) if span else None,
        helps=helps,
        source=source,
    )


class ManifestFinder:
    """Finds manifests without importing their packages or those packages' parents.

    ``importlib.util.find_spec("a.b")`` imports ``a``; asking the finders level by level does not. Plugins
    share parents, so a finder remembers where those are; for a later look, make a new one.
    """

    def __init__(self) -> None:
        self._folders: dict[str, list[str] | None] = {}

    def find(self, package: str) -> Path | None:
        """The manifest of a package; None if it, or the package, is not there."""
        for folder in self._folders_of(package) or ():
            file = Path(folder) / FILE_NAME
            if file.is_file():
                return file
        return None

    def _folders_of(self, package: str) -> list[str] | None:
        """Where the modules of a package lie; None if there is no such package."""
        if package in self._folders:
            return self._folders[package]
        parent = package.rpartition(".")[0]
        search = self._folders_of(parent) if parent else None
        spec = _find_spec(package, search) if search is not None or not parent else None
        locations = spec.submodule_search_locations if spec else None
        found = self._folders[package] = None if locations is None else list(locations)
        return found


def _find_spec(name: str, search: list[str] | None) -> ModuleSpec | None:
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        found: ModuleSpec | None = find(name, search, None) if find else None
        if found is not None:
            return found
    return None


def read_manifest(
    package: str, distribution: str = "", *, finder: ManifestFinder | None = None
) -> PluginManifest:
    """Find and read the manifest of a package.

    Args:
        finder: Of whoever reads several.

    Raises:
        ManifestError: It is missing, unreadable or wrong.
    """
    file = (finder or ManifestFinder()).find(package)
    if file is None:
        headline = f"package '{package}' holds no {FILE_NAME}"
        raise ManifestError([_diagnostic("LS3001", headline, "", None, "")])
    try:
        with file.open("rb") as stream:
            raw = stream.read(_MAX_BYTES + 1)
        if len(raw) > _MAX_BYTES:
            headline = f"the manifest is larger than {_MAX_BYTES} bytes"
            raise ManifestError([_diagnostic("LS3001", headline, str(file), None, "")])
        text = raw.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        headline = f"cannot read the manifest: {exc}"
        raise ManifestError([_diagnostic("LS3001", headline, str(file), None, "")]) from exc
    return parse_manifest(text, file=str(file), package=package, distribution=distribution)
