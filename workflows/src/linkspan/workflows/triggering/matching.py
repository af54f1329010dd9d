"""Whether something that happened is what a pipeline waits for."""

from collections.abc import Collection, Mapping, Sequence

from linkspan.sdk.dockerignore import path_glob
from linkspan.sdk.glob import Glob, PatternError
from linkspan.workflows.triggers import Push, TagPush, Webhook


class Selection:
    """Globs in order; one that begins with ``!`` takes away what those before it gave. Empty takes all.

    A pattern that cannot be read matches only itself.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._rules: list[tuple[Glob | str, bool]] = []
        for pattern in patterns:
            takes = not pattern.startswith("!")
            text = pattern.removeprefix("!")
            try:
                self._rules.append((path_glob(text), takes))
            except PatternError:
                self._rules.append((text, takes))

    def takes(self, name: str) -> bool:
        """Whether a name is among them."""
        if not self._rules:
            return True
        # Only taking away means: from all.
        found = not self._rules[0][1]
        for pattern, takes in self._rules:
            if pattern.matches(name) if isinstance(pattern, Glob) else pattern == name:
                found = takes
        return found


def push_starts(push: Push | None, branch: str, changed: Collection[str] | None) -> bool:
    """Whether a push to a branch starts a pipeline.

    Args:
        push: What the pipeline waits for.
        branch: That was pushed.
        changed: Paths that the push has changed; None if that is not known: then all count as changed.
    """
    if push is None or not Selection(push.branches).takes(branch):
        return False
    if not push.paths or changed is None:
        return True
    paths = Selection(push.paths)
    return any(paths.takes(path) for path in changed)


def tag_starts(tag: TagPush | None, name: str) -> bool:
    """Whether a pushed tag starts a pipeline."""
    return tag is not None and Selection(tag.tags).takes(name)


def webhook_starts(webhook: Webhook, event: str, branch: str) -> bool:
    """Whether a verified request starts a pipeline; an event without a branch passes ``branches``.

    A ping only asks whether somebody listens: it starts nothing that does not name it.
    """
    if event not in webhook.events if webhook.events else event == "ping":
        return False
    return not branch or Selection(webhook.branches).takes(branch)


def branch_of(payload: Mapping[str, object]) -> str:
    """The branch that a payload is about (``ref`` of GitHub and GitLab, or ``branch``); else empty."""
    ref = payload.get("ref") or payload.get("branch")
    if not isinstance(ref, str) or ref.startswith("refs/tags/"):
        return ""
    return ref.removeprefix("refs/heads/")
