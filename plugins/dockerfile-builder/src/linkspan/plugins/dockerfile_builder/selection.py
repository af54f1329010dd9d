"""What a COPY or ADD selects from a tree, and the digest of it that the cache goes by."""

import hashlib
import posixpath
from collections.abc import Callable, Iterator

import attrs

from linkspan.plugins.dockerfile_builder.tree import Check, Node, Tree, split_path
from linkspan.sdk.dockerignore import IgnorePatterns
from linkspan.sdk.glob import PatternError, filename_glob, has_wildcard


class TransferError(ValueError):
    """COPY, ADD or WORKDIR cannot be done as written; the text has Docker's wording."""


@attrs.frozen(kw_only=True)
class Source:
    """One thing to copy, links followed.

    Attributes:
        name: Its name inside a destination directory; a directory gives its contents, not itself.
        node: Never a symbolic link.
    """

    name: str
    node: Node


@attrs.frozen(kw_only=True)
class Selection:
    """All that one instruction copies.

    Attributes:
        many: More than one source was written or matched: the destination must be a directory.
    """

    sources: tuple[Source, ...]
    many: bool


@attrs.frozen(kw_only=True)
class Selector:
    """How an instruction names its sources.

    Attributes:
        from_context: The build context, where ``..`` beyond the root is an error and whose errors speak
            of ``.dockerignore``; otherwise a stage or image.
        exclude: Values of ``--exclude``.
        parents: ``--parents``.
    """

    keyword: str
    from_context: bool = True
    exclude: tuple[str, ...] = ()
    parents: bool = False

    def select(self, tree: Tree, sources: tuple[str, ...]) -> Selection:
        """Find what the sources name. Blocking; for a worker thread.

        Raises:
            TransferError: A source leaves the context, does not exist, or is no pattern.
        """
        try:
            exclude = IgnorePatterns(tuple(_cleaned(pattern) for pattern in self.exclude))
            if self.parents:
                return self._with_parents(tree, sources, exclude)
            found: list[Source] = []
            for source in sources:
                for name, node in self._matches(tree, source):
                    kept = _without(tree, name, node, exclude)
                    if kept is not None:
                        found.append(Source(name=name, node=kept))
        except PatternError as error:
            raise TransferError(str(error)) from error
        return Selection(sources=tuple(found), many=len(found) > 1)

    def _matches(self, tree: Tree, source: str) -> Iterator[tuple[str, Node]]:
        path = self._inside(source)
        if not has_wildcard(path):
            yield posixpath.basename(path), self._existing(tree, path, source)
            return
        for matched in _wildcard(tree, split_path(path), deep=False):
            yield posixpath.basename(matched), self._existing(tree, matched, matched)

    def _inside(self, source: str) -> str:
        """The path below the tree's root, cleaned."""
        cleaned = posixpath.normpath(source.lstrip("/") or ".")
        if cleaned == ".." or cleaned.startswith("../"):
            if self.from_context and not source.startswith("/"):
                raise TransferError(
                    f"{self.keyword} failed: forbidden path outside the build context: {source} ()"
                )
            cleaned = posixpath.normpath(f"/{cleaned}").lstrip("/")
        return "" if cleaned == "." else cleaned

    def _existing(self, tree: Tree, path: str, written: str) -> Node:
        node = tree.lookup(path)
        if node is not None:
            return node
        shown = posixpath.normpath(written).lstrip("/")
        where = "file not found in build context or excluded by .dockerignore: "
        raise TransferError(
            f"{self.keyword} failed: {where if self.from_context else ''}"
            f"stat {shown}: file does not exist"
        )

    def _with_parents(
        self, tree: Tree, sources: tuple[str, ...], exclude: IgnorePatterns
    ) -> Selection:
        """One directory that holds the sources below their own paths."""
        top = Node(kind="directory", children={})
        for source in sources:
            # `/./` marks where the kept part of the path begins.
            before, pivot, _ = source.removeprefix("./").partition("/./")
            start = len(split_path(self._inside(before))) if pivot else 0
            path = self._inside(source)
            paths = (
                list(_wildcard(tree, split_path(path), deep=True)) if has_wildcard(path) else [path]
            )
            for matched in paths:
                node = self._existing(tree, matched, source)
                kept = _without(tree, posixpath.basename(matched), node, exclude)
                if kept is not None:
                    _graft(tree, top, split_path(matched), start, kept)
        if not top.children:
            return Selection(sources=(), many=False)
        return Selection(sources=(Source(name="", node=top),), many=False)


def _graft(tree: Tree, top: Node, parts: tuple[str, ...], start: int, leaf: Node) -> None:
    """Put a node at a path below ``top``, its directories with the metadata they have in the tree."""
    folder = top
    for depth in range(start, len(parts) - 1):
        assert folder.children is not None
        below = folder.children.get(parts[depth])
        if below is None or below.children is None:
            found = tree.lookup("/".join(parts[: depth + 1]))
            below = attrs.evolve(found or Node(kind="directory"), children={})
            folder.children[parts[depth]] = below
        folder = below
    assert folder.children is not None
    if len(parts) > start:
        folder.children[parts[-1]] = leaf
    else:
        folder.children.update(tree.children(leaf))


def _cleaned(pattern: str) -> str:
    negated = pattern.startswith("!")
    cleaned = posixpath.normpath(pattern.removeprefix("!") or ".").lstrip("/")
    return f"!{cleaned}" if negated else cleaned


def _without(tree: Tree, name: str, node: Node, exclude: IgnorePatterns) -> Node | None:
    """The node less what is excluded; paths of patterns begin below a directory source."""
    if not exclude:
        return node
    if node.kind != "directory":
        return None if exclude.excludes(name) else node
    return _filtered(tree, node, "", exclude, 0)


_MAX_FILTER_DEPTH = 256


def _filtered(tree: Tree, node: Node, prefix: str, exclude: IgnorePatterns, depth: int) -> Node:
    if depth > _MAX_FILTER_DEPTH:
        raise TransferError("--exclude: the source is nested too deeply")
    kept: dict[str, Node] = {}
    for name, child in tree.children(node).items():
        path = f"{prefix}{name}"
        left_out = exclude.excludes(path)
        if child.kind != "directory":
            if not left_out:
                kept[name] = child
            continue
        if left_out and not exclude.has_negation:
            continue
        below = _filtered(tree, child, f"{path}/", exclude, depth + 1)
        if below.children or not left_out:
            kept[name] = below
    return attrs.evolve(node, children=kept)


def _wildcard(tree: Tree, parts: tuple[str, ...], *, deep: bool) -> Iterator[str]:
    """Paths that match, component by component, in sorted order.

    Links before the first wildcard are followed, links among the matches are not (until the match
    itself is looked up). ``**`` means any number of directories with ``deep``, else the same as ``*``.
    """
    fixed = 0
    while fixed < len(parts) and not has_wildcard(parts[fixed]):
        fixed += 1
    start = tree.lookup("/".join(parts[:fixed]))
    if start is None or start.kind != "directory":
        return
    pending: list[tuple[str, Node, int]] = [("/".join(parts[:fixed]), start, fixed)]
    globs = {index: filename_glob(parts[index]) for index in range(fixed, len(parts))}
    seen: set[tuple[str, int]] = set()
    while pending:
        path, node, index = pending.pop()
        if (path, index) in seen:
            continue
        seen.add((path, index))
        if index == len(parts):
            yield path
            continue
        if node.kind != "directory":
            continue
        if deep and parts[index] == "**":
            pending.append((path, node, index + 1))
        for name, child in sorted(tree.children(node).items(), reverse=True):
            below = f"{path}/{name}" if path else name
            if deep and parts[index] == "**":
                if index + 1 == len(parts):
                    pending.append((below, child, index + 1))
                elif child.kind == "directory":
                    pending.append((below, child, index))
            elif globs[index].matches(name):
                pending.append((below, child, index + 1))


def selection_digest(tree: Tree, selection: Selection, *, keep_owner: bool, check: Check) -> str:
    """sha256 over all that is copied, but times.

    Names, kinds, modes, link targets, devices, attributes and data count; owners only where they are
    kept (``--from``). Blocking: may read files.
    """
    hasher = hashlib.sha256()
    for source in selection.sources:
        _hash_tree(tree, source, hasher.update, keep_owner, check)
    return hasher.hexdigest()


def _hash_tree(
    tree: Tree, source: Source, update: Callable[[bytes], object], keep_owner: bool, check: Check
) -> None:
    pending: list[tuple[str, Node]] = [(source.name, source.node)]
    linked: dict[int, str] = {}
    update(f"source {len(source.name)}\n".encode())
    while pending:
        path, node = pending.pop()
        first = linked.setdefault(id(node), path)
        owner = (node.uid, node.gid) if keep_owner else ()
        fields = (path, node.kind, node.mode, owner, node.target, node.device, first)
        update(repr(fields).encode("utf-8", "surrogateescape"))
        attributes = node.xattrs
        if attributes:
            update(repr(sorted(attributes.items())).encode("utf-8", "surrogateescape"))
        if node.kind == "file":
            update(tree.digest(node))
        elif node.kind == "directory":
            check()
            children = sorted(tree.children(node).items(), reverse=True)
            pending.extend((f"{path}/{name}", child) for name, child in children)
