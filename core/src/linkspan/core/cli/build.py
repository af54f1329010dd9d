"""``linkspan build`` (API: POST /build)."""

from collections.abc import Sequence
from typing import Any

import click

from linkspan.core.cli import build_run
from linkspan.core.cli.command import Size, command, settings
from linkspan.core.cli.runvalues import ulimit
from linkspan.core.cli.session import Session


@command(
    "build",
    "Build an image from a Dockerfile and a folder or repository.",
    examples=[
        "linkspan build -t web .",
        "linkspan build -t web -f deploy/Dockerfile --build-arg VERSION=2 --target app .",
        "linkspan build --secret id=token,src=token.txt --output type=local,dest=out .",
        "linkspan build --check .",
        "linkspan build -t web https://git.example.test/shop.git#main:web",
    ],
    more=["linkspan push", "linkspan images", "linkspan builder prune"],
)
@click.argument(build_run.ARGUMENT, metavar="CONTEXT")
@settings(build_run.SETTINGS)
@click.option("-m", "--memory", type=Size(), metavar="BYTES", help="Memory limit for RUN")
@click.option("--shm-size", type=Size(), metavar="BYTES", help="Size of /dev/shm for RUN")
@click.option("--ulimit", "ulimits", multiple=True, metavar="NAME=SOFT[:HARD]", help="For RUN")
def build(session: Session, where: str, ulimits: Sequence[str], **options: Any) -> int:
    """Build an image."""
    limits = [ulimit(text) for text in ulimits]
    return build_run.show(session, where, ulimits=limits, **options)
