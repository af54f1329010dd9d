"""Which parameters and fields of the Engine API our handlers read, found by reading their code.

A handler reads a name if the name stands as a text in its code, or in code of the plugin that it uses. That is
more than it really reads, now and then, and never less: names that are put together are few.
"""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

SOURCES: Final = (
    Path(__file__).resolve().parents[3] / "plugins/docker-api/src/linkspan/plugins/docker_api"
)
_PACKAGE: Final = "linkspan.plugins.docker_api."
_Function = ast.FunctionDef | ast.AsyncFunctionDef


def asked_for(operation: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, str]:
    """``query all``, ``header X-…`` and ``body HostConfig.Binds`` of an operation → the bare name."""
    found = {}
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "body":
            for path in _properties(parameter["schema"], definitions, "", ()):
                found[f"body {path}"] = path.rpartition(".")[2].rstrip("[]{}")
        elif parameter["in"] != "path":
            found[f"{parameter['in']} {parameter['name']}"] = parameter["name"]
    return found


def _properties(
    schema: Mapping[str, Any], definitions: Mapping[str, Any], path: str, above: tuple[str, ...]
) -> Iterator[str]:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name not in above:
            yield from _properties(definitions[name], definitions, path, (*above, name))
        return
    for part in schema.get("allOf", ()):
        yield from _properties(part, definitions, path, above)
    for name, inner in schema.get("properties", {}).items():
        place = f"{path}.{name}" if path else name
        yield place
        yield from _properties(inner, definitions, place, above)
    if "items" in schema:
        yield from _properties(schema["items"], definitions, f"{path}[]", above)
    if isinstance(schema.get("additionalProperties"), dict):
        yield from _properties(schema["additionalProperties"], definitions, f"{path}{{}}", above)


@attrs.define
class _Module:
    """What stands at the top of a module, and what it takes from others of the plugin."""

    names: dict[str, ast.AST]
    imported: dict[str, tuple[str, str]]

    @classmethod
    def of(cls, path: Path) -> "_Module":
        """Read a module."""
        tree = ast.parse(path.read_text())
        names: dict[str, ast.AST] = {}
        for node in tree.body:
            match node:
                case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                    names[node.name] = node
                case (
                    ast.Assign(targets=[ast.Name(id=name)])
                    | ast.AnnAssign(target=ast.Name(id=name))
                ):
                    names[name] = node
                case _:
                    pass
        imported = {
            alias.asname or alias.name: (node.module.removeprefix(_PACKAGE), alias.name)
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(_PACKAGE)
            for alias in node.names
            if node.module
        }
        return cls(names, imported)


class Code:
    """The plugin's code."""

    def __init__(self) -> None:
        self._modules = {
            ".".join(path.relative_to(SOURCES).with_suffix("").parts).removesuffix(
                ".__init__"
            ): _Module.of(path)
            for path in SOURCES.rglob("*.py")
        }

    def read_by(self, module: str, owner: str, method: str) -> set[str]:
        """All texts, in small letters, of a handler and what it uses."""
        found = self._method(module, owner, method)
        assert found is not None, f"{module}:{owner}.{method}"
        return set(self._texts(*found, set()))

    def _find(self, module: str, name: str) -> tuple[str, str] | None:
        here = self._modules[module]
        return (module, name) if name in here.names else here.imported.get(name)

    def _method(self, module: str, owner: str, name: str) -> tuple[str, str, _Function] | None:
        cls = self._modules[module].names[owner]
        assert isinstance(cls, ast.ClassDef)
        for node in cls.body:
            if isinstance(node, _Function) and node.name == name:
                return module, owner, node
        for base in cls.bases:
            inner = base.value if isinstance(base, ast.Subscript) else base
            place = self._find(module, inner.id) if isinstance(inner, ast.Name) else None
            if place is not None and (found := self._method(*place, name)) is not None:
                return found
        return None

    def _texts(self, module: str, owner: str, code: ast.AST, seen: set[int]) -> Iterator[str]:
        if id(code) in seen:
            return
        seen.add(id(code))
        for node in ast.walk(code):
            match node:
                case ast.Constant(value=str(text)):
                    yield text.lower()
                    yield from text.lower().split()
                case ast.Name(id=name):
                    place = self._find(module, name)
                    if place is not None:
                        used = self._modules[place[0]].names.get(place[1])
                        if used is not None:
                            yield from self._texts(*place, used, seen)
                case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name) if owner:
                    if isinstance(self._modules[module].names.get(owner), ast.ClassDef):
                        found = self._method(module, owner, name)
                        if found is not None:
                            yield from self._texts(*found, seen)
                case _:
                    pass
