"""What is installed in a file system: the databases of dpkg, apk and rpm, and what Python's installers leave.

Images are hostile: databases are read up to a limit, links are followed inside, and what cannot be read is
named, not raised.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

import attrs

from linkspan.plugins.dockerfile_builder.rpm_headers import RpmUnreadable, read_ndb, read_sqlite
from linkspan.plugins.dockerfile_builder.tree import MAX_DEPTH, Node, Tree
from linkspan.sdk.model.image import Package

_MAX_BYTES: Final = 64 << 20
"""Of one database of text; Debian's with 4000 packages has 4 MiB."""
_MAX_METADATA_BYTES: Final = 1 << 20
_DPKG: Final = "var/lib/dpkg"
_APK: Final = ("lib/apk/db/installed", "usr/lib/apk/db/installed")
_RPM: Final = ("var/lib/rpm", "usr/lib/sysimage/rpm", "usr/share/rpm")
_NOT_FILES: Final = frozenset({"proc", "sys", "dev"})
"""Folders of the root in which an image has nothing of its own."""
_SITES: Final = frozenset({"site-packages", "dist-packages"})

Fields = Mapping[str, str]


@attrs.frozen
class Found:
    """What is there, and the databases of which one cannot tell; a sentence each."""

    packages: tuple[Package, ...]
    unread: tuple[str, ...]


def find_packages(tree: Tree) -> Found:
    """Look through a file system. Blocks, some seconds for a large one."""
    unread: list[str] = []
    found = [
        package
        for read in (_dpkg, _apk, _rpm, _python)
        for package in read(tree, _os_release(tree), unread)
    ]
    found = list(dict.fromkeys(found))
    found.sort(key=lambda p: (p.kind, p.name, p.version, p.architecture))
    return Found(tuple(found), tuple(unread))


def _os_release(tree: Tree) -> Fields:
    for path in ("etc/os-release", "usr/lib/os-release"):
        text = _text(tree, tree.lookup(path), _MAX_METADATA_BYTES)
        if text:
            pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
            return {name.strip(): value.strip().strip("\"'") for name, value in pairs}
    return {}


def _origin(system: Fields, default: str) -> dict[str, str]:
    """Who distributes what a system's package manager has installed."""
    name, version = system.get("ID", ""), system.get("VERSION_ID", "")
    distro = f"{name}-{version}" if name and version else name
    return {"namespace": name or default, "distro": distro}


def _dpkg(tree: Tree, system: Fields, unread: list[str]) -> Iterator[Package]:
    texts = [_database(tree, f"{_DPKG}/status", unread)]
    # Images without a package manager have a file for each package.
    folder = tree.lookup(f"{_DPKG}/status.d")
    if folder is not None and folder.kind == "directory":
        names = [name for name in tree.children(folder) if not name.endswith(".md5sums")]
        texts += [_database(tree, f"{_DPKG}/status.d/{name}", unread) for name in names]
    for fields in (fields for text in texts for fields in _stanzas(text)):
        status = fields.get("Status", "install ok installed")
        if fields.get("Package") and fields.get("Version") and status.split()[-1:] == ["installed"]:
            yield Package(
                kind="deb",
                name=fields["Package"],
                version=fields["Version"],
                architecture=fields.get("Architecture", ""),
                source=fields.get("Source", "").partition(" ")[0],
                **_origin(system, "debian"),
            )


def _apk(tree: Tree, system: Fields, unread: list[str]) -> Iterator[Package]:
    seen: list[Node] = []
    for path in _APK:
        node = tree.lookup(path)
        if node is None or any(node is other for other in seen):
            continue
        seen.append(node)
        for fields in _stanzas(_database(tree, path, unread), separator=":"):
            if fields.get("P") and fields.get("V"):
                source = fields.get("o", "")
                yield Package(
                    kind="apk",
                    name=fields["P"],
                    version=fields["V"],
                    architecture=fields.get("A", ""),
                    source="" if source == fields["P"] else source,
                    license=fields.get("L", ""),
                    **_origin(system, "alpine"),
                )


def _rpm(tree: Tree, system: Fields, unread: list[str]) -> Iterator[Package]:
    readers: Mapping[str, Callable[[Tree, Node], Iterable[Fields]]] = {
        "rpmdb.sqlite": read_sqlite,
        "Packages.db": read_ndb,
    }
    seen: list[Node] = []
    for path in (f"{folder}/{name}" for folder in _RPM for name in (*readers, "Packages")):
        node = tree.lookup(path)
        if node is None or node.kind != "file" or any(node is other for other in seen):
            continue
        seen.append(node)
        reader = readers.get(path.rpartition("/")[2])
        if reader is None:
            unread.append(f"/{path}: rpm's old format (Berkeley DB) is not read")
            continue
        try:
            for fields in reader(tree, node):
                if fields.get("name") and fields["name"] != "gpg-pubkey":
                    yield Package(kind="rpm", **fields, **_origin(system, "rpm"))
        except (RpmUnreadable, OSError) as error:
            unread.append(f"/{path}: {error}")


def _python(tree: Tree, system: Fields, unread: list[str]) -> Iterator[Package]:
    for node in _python_metadata(tree):
        fields = next(_stanzas(_text(tree, node, _MAX_METADATA_BYTES)), {})
        if fields.get("Name") and fields.get("Version"):
            yield Package(
                kind="pypi",
                name=fields["Name"],
                version=fields["Version"],
                license=fields.get("License-Expression") or _one_line(fields.get("License", "")),
            )


def _python_metadata(tree: Tree) -> Iterator[Node]:
    """``METADATA`` and ``PKG-INFO`` of everything that was installed, wherever that is."""
    pending: list[tuple[str, Node, int]] = [("", tree.root, 0)]
    while pending:
        name, folder, depth = pending.pop()
        children = tree.children(folder)
        for child_name, child in children.items():
            if name in _SITES and child_name.endswith((".dist-info", ".egg-info")):
                file = child if child.kind == "file" else None
                for each in ("METADATA", "PKG-INFO") if child.kind == "directory" else ():
                    file = file or tree.children(child).get(each)
                if file is not None and file.kind == "file":
                    yield file
            elif (
                child.kind == "directory"
                and depth < MAX_DEPTH
                and (depth or child_name not in _NOT_FILES)
            ):
                pending.append((child_name, child, depth + 1))


def _one_line(text: str) -> str:
    """A licence's name; some put the whole text there."""
    return text if len(text) <= 100 else ""


def _database(tree: Tree, path: str, unread: list[str]) -> str:
    node = tree.lookup(path)
    if node is not None and node.size > _MAX_BYTES:
        unread.append(f"/{path}: it has more than {_MAX_BYTES >> 20} MiB")
        return ""
    return _text(tree, node, _MAX_BYTES)


def _text(tree: Tree, node: Node | None, limit: int) -> str:
    if node is None or node.kind != "file":
        return ""
    with tree.open(node) as file:
        return file.read(limit).decode("utf-8", "replace")


def _stanzas(text: str, *, separator: str = ": ") -> Iterator[Fields]:
    """Blocks of ``Name: value`` lines, an empty line between them; of a value only its first line."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip():
            if fields:
                yield fields
            fields = {}
        elif not line[0].isspace():
            name, found, value = line.partition(separator)
            if found:
                fields.setdefault(name, value.strip())
    if fields:
        yield fields
