"""Pieces that stand in several places: ``retry``, ``shell``, ``defaults``."""

import re
from typing import Final

from linkspan.sdk.diagnostics import did_you_mean
from linkspan.workflows.loading.keys import DEFAULTS, RETRY
from linkspan.workflows.loading.scene import Defaults, Scene
from linkspan.workflows.model import Retry
from linkspan.workflows.parse import Node

_CAUSES: Final = ("network", "timeout", "oom", "any")
_EXIT = re.compile(r"exit:(\d{1,3})")


def read_defaults(scene: Scene, node: Node) -> Defaults:
    """``defaults``."""
    fields = scene.r.table(node, "'defaults'", DEFAULTS)
    return Defaults(
        image=scene.template(fields, "image"),
        timeout_s=scene.get(fields, "timeout", lambda n: scene.r.duration(n, "'timeout'")),
        retry=scene.get(fields, "retry", lambda n: read_retry(scene, n)) or Retry(),
        shell=scene.get(fields, "shell", lambda n: read_shell(scene, n)) or "",
        working_directory=scene.get(fields, "working-directory", lambda n: read_folder(scene, n))
        or "",
    )


def read_shell(scene: Scene, node: Node) -> str | None:
    """The shell of a script."""
    return scene.r.choice(node, "'shell'", ("sh", "bash", "none"))


def read_folder(scene: Scene, node: Node) -> str | None:
    """A folder of the workspace."""
    text = scene.r.text(node, "'working-directory'")
    if text is not None and ".." in text.split("/"):
        scene.r.fault("LS1013", "'working-directory' may not lead out of the workspace", node)
        return None
    return text


def read_retry(scene: Scene, node: Node) -> Retry | None:
    """``retry``."""
    r = scene.r
    fields = r.table(node, "'retry'", RETRY)
    causes: tuple[str, ...] = ()
    if "on" in fields:
        found = (_cause(scene, each) for each in r.one_or_more(fields["on"].value))
        causes = tuple(cause for cause in found if cause)
    plain = Retry()
    return Retry(
        max=scene.given(fields, "max", lambda n, w: r.integer(n, w, least=0, most=100), 0),
        backoff_s=scene.given(fields, "backoff", r.duration, plain.backoff_s),
        factor=scene.given(fields, "factor", r.number, plain.factor),
        max_delay_s=scene.given(fields, "max-delay", r.duration, plain.max_delay_s),
        jitter=scene.given(fields, "jitter", r.boolean, plain.jitter),
        on=causes,
    )


def _cause(scene: Scene, node: Node) -> str | None:
    text = scene.r.text(node, "a cause of 'on'")
    if text is None or text in _CAUSES:
        return text
    exit_code = _EXIT.fullmatch(text)
    if exit_code is not None and int(exit_code[1]) <= 255:
        return text
    near = did_you_mean(text, _CAUSES)
    helps = [f"did you mean '{near}'?" if near else "causes: network, timeout, oom, exit:N, any"]
    scene.r.fault("LS1013", f"'{text}' is not a cause of a failure", node, helps=helps, fix=near)
    return None
