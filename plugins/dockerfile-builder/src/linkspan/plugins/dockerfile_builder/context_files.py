"""The files of a context that the builder itself reads: the Dockerfile and what it leaves out."""

from typing import Final

from linkspan.plugins.dockerfile_builder.fault import DockerfileError
from linkspan.plugins.dockerfile_builder.parser import MAX_FILE_BYTES
from linkspan.plugins.dockerfile_builder.tree import Tree
from linkspan.sdk.dockerignore import IgnorePatterns
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.glob import PatternError

IGNORE_FILE: Final = ".dockerignore"


def missing(file: str) -> InvalidArgument:
    """There is no Dockerfile of that name."""
    return InvalidArgument(
        f"Cannot locate specified Dockerfile: {file}",
        code="dockerfile_missing",
        help="name it with -f, as a path inside the build context",
    )


def read_text(tree: Tree, path: str) -> str | None:
    """A text file of the context; None if there is none. Blocking."""
    node = tree.lookup(path)
    if node is None or node.kind != "file":
        return None
    with tree.open(node) as file:
        return file.read(MAX_FILE_BYTES + 1).decode("utf-8", "surrogateescape")


def patterns_of(text: str | None, file: str) -> IgnorePatterns:
    """The patterns of a ``.dockerignore``.

    Raises:
        DockerfileError: One cannot be read.
    """
    try:
        return IgnorePatterns.parse(text or "")
    except PatternError as error:
        raise DockerfileError(str(error), file=file, code="dockerignore") from error
