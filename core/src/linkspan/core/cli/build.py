"""``linkspan build`` (API: POST /build)."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import click

from linkspan.core.cli import build_run, completing
from linkspan.core.cli.command import Size, command, settings
from linkspan.core.cli.common import content_trust
from linkspan.core.cli.runvalues import ulimit
from linkspan.core.cli.session import Session
from linkspan.core.client import quick_json

_LIMITS: Final = {
    "memory": click.option("-m", "--memory", type=Size(), metavar="BYTES", help="Memory for RUN"),
    "memswap": click.option(
        "--memory-swap", "memswap", type=Size(), metavar="BYTES", help="Memory and swap for RUN"
    ),
    "shmsize": click.option(
        "--shm-size", "shmsize", type=Size(), metavar="BYTES", help="Size of /dev/shm for RUN"
    ),
    "cpushares": click.option(
        "-c", "--cpu-shares", "cpushares", type=int, metavar="N", help="Weight of RUN"
    ),
    "cpuperiod": click.option(
        "--cpu-period", "cpuperiod", type=int, metavar="µS", help="Length of a period for RUN"
    ),
    "cpuquota": click.option(
        "--cpu-quota", "cpuquota", type=int, metavar="µS", help="CPU time of RUN in a period"
    ),
    "cpusetcpus": click.option("--cpuset-cpus", "cpusetcpus", metavar="LIST", help="CPUs for RUN"),
    "cpusetmems": click.option(
        "--cpuset-mems", "cpusetmems", metavar="LIST", help="Memory nodes for RUN"
    ),
    "cgroupparent": click.option(
        "--cgroup-parent", "cgroupparent", metavar="PATH", help="Control group for RUN"
    ),
}
"""Parameter of Docker's ``/build`` → its option."""


def _limits(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options that limit RUN, and those of Docker's that have nothing to do here."""
    for name in ("--rm", "--force-rm", "--compress"):  # no container stays, and nothing travels
        function = click.option(name, is_flag=True, hidden=True, expose_value=False)(function)
    function = click.option(
        "--ulimit", "ulimits", multiple=True, metavar="NAME=SOFT[:HARD]", help="For RUN"
    )(function)
    for option in reversed(_LIMITS.values()):
        function = option(function)
    return function


@command(
    "build",
    "Build an image from a Dockerfile and a folder or repository.",
    examples=[
        "linkspan build -t web .",
        "linkspan build -t web -f deploy/Dockerfile --build-arg VERSION=2 --target app .",
        "linkspan build --secret id=token,src=token.txt --output type=local,dest=out .",
        "linkspan build --check .",
        "linkspan build -t web - < Dockerfile",
        "linkspan build -t web https://git.example.test/shop.git#main:web",
    ],
    more=["linkspan push", "linkspan images", "linkspan builder prune"],
)
@click.argument(build_run.ARGUMENT, metavar="CONTEXT|-", shell_complete=completing.folders)
@settings(build_run.SETTINGS)
@_limits
@content_trust
def build(session: Session, where: str, ulimits: Sequence[str], **options: Any) -> int:
    """Build an image."""
    limits: dict[str, Any] = {name: options.pop(name) for name in _LIMITS}
    if ulimits:
        limits["ulimits"] = quick_json.dumps([ulimit(text) for text in ulimits])
    return build_run.show(session, where, limits=limits, **options)
