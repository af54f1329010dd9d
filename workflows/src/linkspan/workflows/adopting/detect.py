"""Which files of a folder can be adopted, and what each of them is."""

from pathlib import Path
from typing import Final, Literal

import attrs

from linkspan.workflows.adopting.compose import adopt_compose
from linkspan.workflows.adopting.dockerfile import adopt_dockerfile
from linkspan.workflows.adopting.draft import Draft, Loss, fields, job_id, text, written
from linkspan.workflows.adopting.github import adopt_github
from linkspan.workflows.adopting.gitlab import adopt_gitlab
from linkspan.workflows.adopting.gitlab_files import REFERENCE
from linkspan.workflows.adopting.woodpecker import adopt_woodpecker
from linkspan.workflows.parse import Document, decode, parse
from linkspan.workflows.verbs import Verbs

Kind = Literal["dockerfile", "compose", "github", "gitlab", "woodpecker"]
_COMPOSE: Final = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")


@attrs.frozen(kw_only=True)
class Source:
    """A file that can be adopted."""

    path: Path
    kind: Kind


@attrs.frozen(kw_only=True)
class Adopted:
    """A pipeline that was made of another tool's file.

    Attributes:
        name: Of the pipeline and of its file.
        losses: What had no counterpart.
        notes: What is fine, but good to know.
        calls: Files of the same kind that it calls: they must be adopted, too.
    """

    name: str
    text: str
    losses: tuple[Loss, ...]
    notes: tuple[str, ...]
    calls: tuple[Path, ...] = ()


def find_sources(folder: Path) -> list[Source]:
    """What can be adopted below a folder; a compose file stands for the Dockerfiles it builds."""
    found = [
        Source(path=path, kind="github")
        for path in sorted((folder / ".github" / "workflows").glob("*.y*ml"))
    ]
    gitlab = [folder / f".gitlab-ci{end}" for end in (".yml", ".yaml")]
    found += [Source(path=path, kind="gitlab") for path in gitlab if path.is_file()]
    woodpecker = [folder / f".woodpecker{end}" for end in (".yaml", ".yml")]
    woodpecker += sorted((folder / ".woodpecker").glob("*.y*ml"))
    found += [Source(path=path, kind="woodpecker") for path in woodpecker if path.is_file()]
    compose = [Source(path=folder / name, kind="compose") for name in _COMPOSE]
    compose = [source for source in compose if source.path.is_file()][:1]
    found += compose
    dockerfile = folder / "Dockerfile"
    if dockerfile.is_file() and not compose:
        found.append(Source(path=dockerfile, kind="dockerfile"))
    return found


def kind_of(path: Path, content: str) -> Kind | None:
    """What a file is, from its name and, where that says nothing, from its keys."""
    if "dockerfile" in path.name.lower() or path.name == "Containerfile":
        return "dockerfile"
    if path.suffix not in (".yaml", ".yml"):
        return None
    keys = set(fields(parse(content, str(path), list_tag=REFERENCE).root))
    if "jobs" in keys and "linkspan" not in keys:
        return "github"
    if path.stem.endswith(".gitlab-ci") or {"stages", "before_script", "default"} & keys:
        return "gitlab"
    if "steps" in keys or ("pipeline" in keys and "jobs" not in keys):
        return "woodpecker"
    return "compose" if "services" in keys else None


def adopt(source: Source, folder: Path, verbs: Verbs, *, alone: bool = False) -> Adopted:
    """Make a pipeline of a file.

    Args:
        source: The file.
        folder: What the pipeline's workspace will be.
        verbs: What the installed plugins answer.
        alone: No other pipeline will lie beside it.

    Raises:
        ParseFailed: The file is not YAML, too large, or not text.
        OSError: It cannot be read.
    """
    file = str(source.path)
    content = decode(source.path.read_bytes(), file)
    if source.kind == "dockerfile":
        document = Document(file=file, text=content, root=None)
    else:
        document = parse(content, file, list_tag=REFERENCE if source.kind == "gitlab" else "")
    name = _name(source, folder, document)
    draft = Draft(
        name=name, source=document, verbs=verbs, root=_root(source.path, folder), alone=alone
    )
    match source.kind:
        case "dockerfile":
            context = source.path.resolve().parent
            inside = context.relative_to(folder) if context.is_relative_to(folder) else Path()
            adopt_dockerfile(draft, content, source.path.name, str(inside))
        case "compose":
            adopt_compose(draft)
        case "github":
            adopt_github(draft)
        case "gitlab":
            adopt_gitlab(draft)
        case "woodpecker":
            adopt_woodpecker(draft)
    notes = tuple(dict.fromkeys(draft.notes))
    return Adopted(
        name=name,
        text=written(draft),
        losses=tuple(draft.losses),
        notes=notes,
        calls=tuple(dict.fromkeys(draft.calls)),
    )


def _root(path: Path, folder: Path) -> Path:
    """Where the repository begins: what has `.git` or `.github`, else the workspace or the file's folder."""
    for above in path.absolute().parents:
        if (above / ".git").exists() or (above / ".github").is_dir():
            return _shown(above)
    return _shown(folder if path.resolve().is_relative_to(folder) else path.resolve().parent)


def _shown(path: Path) -> Path:
    """As somebody who stands here would write it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _name(source: Source, folder: Path, document: Document) -> str:
    if source.kind == "github":
        return job_id(source.path.stem)
    if source.kind in ("woodpecker", "gitlab"):
        return job_id(source.path.stem.removeprefix(".")) or "ci"
    if source.kind == "compose":
        top = fields(document.root)
        named = text(top["name"].value) if "name" in top else ""
        return job_id((named or folder.name).lower())
    return job_id(folder.name.lower())
