"""What is different between a run that failed and the last one that succeeded."""

import difflib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from linkspan.sdk.errors import NotFound
from linkspan.workflows.archive import PIPELINE, folder_name
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.state import BAD, RunState

_MAX_SHOWN: Final = 20
_MAX_COMPARED: Final = 1024 * 1024
"""Bytes of a source file; larger ones are compared by size alone."""


@attrs.frozen(kw_only=True)
class Difference:
    """One thing that changed.

    Attributes:
        subject: ``pipeline``, ``inputs``, ``git``, ``plugins``, ``drivers``,
            ``images``, ``settings``, ``sources``.
        what: Which of them.
        before, after: Short texts; empty where it was not there. Of sources ``after`` says what became of them.
        likely: The failure's own text names it.
    """

    subject: str
    what: str
    before: str = ""
    after: str = ""
    likely: bool = False


def why(folder: Path, green: RunState | None, run: RunState) -> dict[str, Json]:
    """A run that has ended against one that succeeded before it, for the API. Blocks.

    Args:
        folder: Where the runs are.
        green: The last run of the pipeline that succeeded before; None if none has.
        run: The run.

    Raises:
        NotFound: None has succeeded; code ``no_green_run``.
    """
    if green is None:
        raise NotFound(
            f"no run of '{run.workflow}' has succeeded before run {run.id}",
            code="no_green_run",
            help=f"linkspan workflow show {run.id}",
        )
    found = differences(green, folder / green.id, run, folder / run.id)
    return {
        "run": run.id,
        "against": green.id,
        "against_at": green.created_at,
        "differences": [attrs.asdict(each) for each in found],
        "same": subjects_alike(found),
    }


def differences(
    green: RunState, green_folder: Path, run: RunState, folder: Path
) -> list[Difference]:
    """What changed from a run that succeeded to this one, the likely ones first. Blocks."""
    found = [
        *_texts(green_folder / PIPELINE, folder / PIPELINE),
        *_maps("inputs", green.created.get("inputs", {}), run.created.get("inputs", {})),
        *_maps("git", green.created.get("git", {}), run.created.get("git", {})),
        *_maps("plugins", green.created.get("plugins", {}), run.created.get("plugins", {})),
        *_maps("drivers", green.created.get("drivers", {}), run.created.get("drivers", {})),
        *_maps("images", _named_images(green), _named_images(run)),
        *_settings(green, run),
        *_sources(green_folder / "source", folder / "source", str(run.created.get("file", ""))),
    ]
    story = _story(run, folder)
    marked = [attrs.evolve(each, likely=_named(each, story)) for each in found]
    return sorted(marked, key=lambda each: not each.likely)


def subjects_alike(found: list[Difference]) -> list[str]:
    """The subjects that are the same in both."""
    every = ("pipeline", "inputs", "git", "plugins", "drivers", "images", "settings", "sources")
    changed = {each.subject for each in found}
    return [subject for subject in every if subject not in changed]


def _named_images(run: RunState) -> dict[str, Any]:
    """What names meant; an id means itself."""
    return {name: id_ for name, id_ in run.images.items() if not name.startswith("sha256:")}


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _maps(
    subject: str, before: Mapping[str, Any], after: Mapping[str, Any]
) -> Iterator[Difference]:
    for name in dict.fromkeys((*before, *after)):
        if before.get(name) != after.get(name):
            yield Difference(
                subject=subject,
                what=name,
                before=_short(before[name]) if name in before else "",
                after=_short(after[name]) if name in after else "",
            )


def _texts(before: Path, after: Path) -> Iterator[Difference]:
    old, new = (_lines(path) for path in (before, after))
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    if len(old) + len(new) > 20_000:
        if old != new:
            yield Difference(subject="pipeline", what="the text", after="differs")
        return
    for kind, i1, i2, j1, j2 in matcher.get_opcodes():
        if kind != "equal":
            yield Difference(
                subject="pipeline",
                what=f"line {j1 + 1}",
                before=_short(" ⏎ ".join(line.strip() for line in old[i1:i2])),
                after=_short(" ⏎ ".join(line.strip() for line in new[j1:j2])),
            )


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _settings(green: RunState, run: RunState) -> Iterator[Difference]:
    """What the same steps were given, as far as both began."""
    for job in run.jobs.values():
        other = green.jobs.get(job.id)
        for step in job.steps.values():
            old = None if other is None else other.steps.get(step.id)
            if old is None or old.intent is None or step.intent is None:
                continue
            before, after = old.intent["settings"], step.intent["settings"]
            for each in _maps("settings", before, after):
                yield attrs.evolve(each, what=f"{job.id}/{step.id} {each.what}")


def _sources(before: Path, after: Path, pipeline: str) -> Iterator[Difference]:
    """Files that changed, without the pipeline's own, of which its lines are told."""
    if not before.is_dir() or not after.is_dir():
        return
    old, new = (
        {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}
        for root in (before, after)
    )
    changed = 0
    for name in sorted({*old, *new}):
        if f"/{pipeline}".endswith(f"/{name}"):
            continue
        if name in old and name in new:
            if _same(old[name], new[name]):
                continue
            word = "changed"
        else:
            word = "removed" if name in old else "added"
        changed += 1
        if changed <= _MAX_SHOWN:
            yield Difference(subject="sources", what=name, after=word)
    if changed > _MAX_SHOWN:
        yield Difference(subject="sources", what=f"and {changed - _MAX_SHOWN} more files")


def _same(one: Path, other: Path) -> bool:
    size = one.stat().st_size
    if size != other.stat().st_size:
        return False
    return size > _MAX_COMPARED or one.read_bytes() == other.read_bytes()


def _story(run: RunState, folder: Path) -> str:
    """What the failed steps said."""
    words: list[str] = []
    for job in run.jobs.values():
        words.append(str(job.error.get("message", "")) if job.result in BAD else "")
        for step in job.steps.values():
            if step.result in BAD:
                words += [str(step.error.get("message", "")), *step.tail]
                words += _lines(folder / "jobs" / folder_name(job.id) / f"{step.id}.log")[-200:]
    return "\n".join(words)


def _named(difference: Difference, story: str) -> bool:
    """Whether what failed speaks of what changed."""
    words = [difference.what.rpartition("/")[2].partition(" ")[0]]
    if difference.subject == "pipeline":
        changed = f"{difference.before} {difference.after}"
        words = [word.strip(":{}[],'\"") for word in changed.split()]
    return any(len(word) > 3 and word in story for word in words)
