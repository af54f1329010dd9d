"""What all readers of a pipeline's parts share."""

import posixpath
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import attrs

from linkspan.sdk.diagnostics import Label, Span, did_you_mean
from linkspan.workflows.concealing import MIN_WRITTEN, called_secret
from linkspan.workflows.model import Choice, Input, Requirement, Retry, Secret, Text
from linkspan.workflows.parse import Field, Node, Scalar
from linkspan.workflows.reader import Reader
from linkspan.workflows.values import Expression
from linkspan.workflows.verbs import Verbs
from linkspan.workflows.versions import Range

MAX_FILES: Final = 50
"""Files that one pipeline may be made of."""
PACKAGES: Final = "linkspan-"
"""What names of packages of plugins begin with."""
MAX_CALLS: Final = 10
"""How deep pipelines may call each other."""

T = TypeVar("T")
Fetch = Callable[[str], bytes]
"""Bytes of another file of the workspace, by its path as messages name it; raises OSError."""


@attrs.define(kw_only=True)
class Files:
    """The files a pipeline is made of, and how they are got.

    Attributes:
        fetch: None where no other file can be read.
        texts: Those read so far, by path.
        readers: What is wrong with each of them, in the order read; the first is the pipeline's own.
        calling: Paths of the pipelines that are being read, outermost first.
        use: Role → driver, chosen by whoever starts it; goes before what the files say.
    """

    fetch: Fetch | None = None
    texts: dict[str, str] = attrs.field(factory=dict)
    readers: list[Reader] = attrs.field(factory=list)
    calling: tuple[str, ...] = ()
    use: Mapping[str, str] = attrs.field(factory=dict)

    def resolve(self, base: str, ref: str) -> str:
        """The path of a file that another names: relative to the one that names it."""
        return posixpath.normpath(posixpath.join(posixpath.dirname(base), ref))


@attrs.define(kw_only=True)
class Defaults:
    """``defaults`` of one file."""

    image: Text | None = None
    timeout_s: float | None = None
    retry: Retry = Retry()
    shell: str = ""
    working_directory: str = ""


def inherited(use: Mapping[str, Choice]) -> dict[str, Choice]:
    """Choices of a file as they hold in one that it calls, which has no place for them."""
    return {role: attrs.evolve(choice, span=None) for role, choice in use.items()}


@attrs.define(kw_only=True)
class Scene:
    """One file while it is read.

    Attributes:
        secrets: Those that may be granted.
        use: Role → driver, and where it was written: here, or in the pipeline that calls this one.
        inputs: Names of the pipeline's inputs.
    """

    r: Reader
    verbs: Verbs
    files: Files
    defaults: Defaults = attrs.field(factory=Defaults)
    secrets: dict[str, Secret] = attrs.field(factory=dict)
    use: dict[str, Choice] = attrs.field(factory=dict)
    inputs: tuple[str, ...] = ()

    @property
    def keeper(self) -> str:
        """Who keeps secrets, for texts that can be pasted: the keyring, or who is there in its place."""
        names = self.verbs.drivers_of("secrets")
        return "keyring" if "keyring" in names or not names else names[0]

    def get(
        self, fields: Mapping[str, Field], name: str, read: Callable[[Node], T | None]
    ) -> T | None:
        """The value of a key; None if it is missing or wrong."""
        return read(fields[name].value) if name in fields else None

    def given(
        self,
        fields: Mapping[str, Field],
        name: str,
        read: Callable[[Node, str], T | None],
        default: T,
    ) -> T:
        """The value of a key, or its default."""
        value = read(fields[name].value, f"'{name}'") if name in fields else None
        return default if value is None else value

    def text(self, fields: Mapping[str, Field], name: str) -> str:
        """A text without expressions; empty if it is missing or wrong."""
        return self.given(fields, name, self.r.text, "")

    def template(self, fields: Mapping[str, Field], name: str) -> Text | None:
        """A text with expressions."""
        return self.r.template(fields[name].value, f"'{name}'") if name in fields else None

    def templates(self, fields: Mapping[str, Field], name: str) -> tuple[Text, ...]:
        """One or more texts with expressions."""
        if name not in fields:
            return ()
        found = (self.r.template(n, f"'{name}'") for n in self.r.one_or_more(fields[name].value))
        return tuple(text for text in found if text is not None)

    def words(self, fields: Mapping[str, Field], name: str) -> tuple[str, ...]:
        """One or more texts."""
        if name not in fields:
            return ()
        found = (self.r.text(n, f"'{name}'") for n in self.r.one_or_more(fields[name].value))
        return tuple(text for text in found if text is not None)

    def flag(self, fields: Mapping[str, Field], name: str) -> bool | Expression:
        """``true``, ``false`` or an expression; false if it is missing or wrong."""
        found = self.r.flag(fields[name].value, f"'{name}'") if name in fields else None
        return False if found is None else found

    def texts(self, field: Field | None, what: str) -> dict[str, Text]:
        """Names with texts, as in ``env``."""
        if field is None:
            return {}
        texts: dict[str, Text] = {}
        for name, each in self.r.names(field.value, what).items():
            text = self.r.template(each.value, f"'{name}'")
            if text is not None:
                texts[name] = text
                self._looks_like_password(name, text, each.value)
        return texts

    def labels(self, field: Field | None, what: str) -> dict[str, Text]:
        """Like ``texts``, with free keys."""
        if field is None:
            return {}
        found = {
            name: self.r.template(each.value, f"'{name}'")
            for name, each in self.r.entries(field.value, what).items()
        }
        return {name: text for name, text in found.items() if text is not None}

    def _looks_like_password(self, name: str, text: Text, node: Node) -> None:
        written = isinstance(text, str) and len(text) >= MIN_WRITTEN and "/" not in text
        if written and called_secret(name):
            self.r.fault(
                "LS1304",
                "this looks like a password written in the file",
                node,
                severity="warning",
                notes=["silence for one line with  # linkspan: allow LS1304 <reason>"],
                helps=[f"declare it:  secrets: {{{name}: {{from: {self.keeper}}}}}"],
            )

    def sounds_secret(self, spec: Input, node: Node) -> None:
        """LS1304 for an input that is called like a secret: what is given for it is recorded."""
        if spec.type in ("string", "list") and called_secret(spec.name):
            self.r.fault(
                "LS1304",
                f"what is given for input '{spec.name}' would be recorded with the run, so it is refused",
                node,
                severity="warning",
                notes=["if it is no secret:  # linkspan: allow LS1304 <reason>"],
                helps=[f"secrets: {{{spec.name.upper().replace('-', '_')}: {{from: file}}}}"],
            )

    def granted(self, fields: Mapping[str, Field]) -> tuple[str, ...]:
        """``secrets`` of a job or a step: names that must be declared (LS1302)."""
        if "secrets" not in fields:
            return ()
        node = fields["secrets"].value
        if isinstance(node, Scalar) and node.text == "inherit":
            self.r.fault(
                "LS1009",
                "'secrets: inherit' is a habit of another tool",
                node,
                helps=["name the secrets this step may read:  secrets: [NAME]"],
            )
            return ()
        names: list[str] = []
        for item in self.r.items(node, "'secrets'"):
            name = self.r.text(item, "a name in 'secrets'")
            if name is None:
                continue
            self.declared(name, item)
            names.append(name)
        return tuple(dict.fromkeys(names))

    def declared(self, name: str, node: Node) -> bool:
        """Whether there is such a secret; a fault (LS1302) if not."""
        if not name or name in self.secrets:
            return bool(name)
        near = did_you_mean(name, self.secrets)
        self.r.fault(
            "LS1302",
            f"secret '{name}' is not declared",
            node,
            helps=[
                f"did you mean '{near}'?"
                if near
                else f"secrets: {{{name}: {{from: {self.keeper}}}}}"
            ],
        )
        return False

    def check_requirement(self, wanted: Requirement) -> None:
        """Faults if nothing installed can meet an entry of ``requires``."""
        verbs, r = self.verbs, self.r
        if wanted.plugin:
            version = verbs.plugins.get(wanted.plugin)
            if version is None:
                bounds = Range(wanted.version).as_specifier() if wanted.version else ""
                name = wanted.plugin
                package = f"{name if name.startswith(PACKAGES) else PACKAGES + name}{bounds}"
                helps = [f"pip install '{package}'" if bounds else f"pip install {package}"]
                near = did_you_mean(wanted.plugin, verbs.plugins)
                helps = [f"did you mean '{near}'?", *helps] if near else helps
                r.fault(
                    "LS1407", f"no plugin '{wanted.plugin}' is installed", wanted.span, helps=helps
                )
            elif wanted.version and not Range(wanted.version).holds(version):
                package = verbs.packages.get(wanted.plugin, wanted.plugin)
                r.fault(
                    "LS1406",
                    f"plugin '{wanted.plugin}' is {version}, this pipeline needs {wanted.version}",
                    wanted.span,
                    helps=[f"pip install '{package}{Range(wanted.version).as_specifier()}'"],
                )
            return
        if wanted.role not in verbs.roles:
            r.fault("LS1407", f"no plugin plays the role '{wanted.role}'", wanted.span)
            return
        for feature in wanted.features:
            self.check_feature(wanted.role, feature, f"'{feature}'", wanted.span)

    def check_feature(
        self, role: str, feature: str, what: str, place: Node | Span, alternative: str = ""
    ) -> None:
        """LS1404 if the driver that is chosen, or any where none is, cannot do something.

        Args:
            alternative: The key that may name another feature instead; empty if there is none.
        """
        if role not in self.verbs.roles:
            return
        chosen = self.use.get(role)
        names = [chosen.driver] if chosen else self.verbs.drivers_of(role)
        able = self.verbs.offering(role, feature)
        if set(names) & set(able):
            return
        secondary: tuple[Label, ...] = ()
        offers = [self._offered(role, name) for name in names]
        if chosen is not None and chosen.span is not None:
            secondary = (Label(span=chosen.span, text=f"offers: {offers[0]}"),)
        helps = [f"use: {{{role}: {name}}}  (offers {self._offered(role, name)})" for name in able]
        if helps and alternative and offers[0]:
            helps[0] = f"{alternative}: {offers[0].rpartition(', ')[2]}, or  {helps[0]}"
        if not helps:
            helps = [f"no installed plugin can: {', '.join(names)} offers {offers[0] or 'nothing'}"]
        self.r.fault(
            "LS1404",
            f"{role} '{names[0]}' cannot do {what}",
            place,
            f"needs feature {role}.{feature}",
            secondary=secondary,
            helps=[*helps, "found in preflight: nothing has been started"],
        )

    def _offered(self, role: str, name: str) -> str:
        driver = self.verbs.driver(role, name)
        return ", ".join(driver.features) if driver else ""
