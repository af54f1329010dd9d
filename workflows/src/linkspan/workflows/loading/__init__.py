"""Tree of nodes to model: the keys of the language (v1), typed, with every fault noted.

``pipeline`` reads a file's top and hands its parts to the other rooms; ``keys`` has all keys, and what
is answered to those of other tools.
"""

from collections.abc import Mapping

from linkspan.workflows.loading.pipeline import VERSION, read_pipeline
from linkspan.workflows.loading.scene import Fetch, Files, Scene
from linkspan.workflows.model import Workflow
from linkspan.workflows.parse import Document
from linkspan.workflows.reader import Reader
from linkspan.workflows.verbs import Verbs

__all__ = ["VERSION", "Fetch", "load"]


def load(
    document: Document,
    verbs: Verbs,
    *,
    fetch: Fetch | None = None,
    use: Mapping[str, str],
) -> tuple[Workflow | None, list[Reader]]:
    """Read a pipeline and all files that it is made of.

    Args:
        document: The pipeline's own.
        verbs: What the installed plugins offer.
        fetch: Gets the others; None where no other file can be read.
        use: Role → driver, chosen before the pipelines' own ``use``.

    Returns:
        The model, as far as it could be read (None if there is no pipeline at all), and the readers of
        its files with what is wrong, its own first; the model may run only if they hold no error.
    """
    reader = Reader(document)
    files = Files(fetch=fetch, readers=[reader], calling=(document.file,), use=use)
    scene = Scene(r=reader, verbs=verbs, files=files)
    return read_pipeline(scene, document), files.readers
