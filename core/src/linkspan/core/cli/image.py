"""``images``, ``pull``, ``push``, ``tag``, ``rmi``."""

from typing import Any

import click

from linkspan.core.cli import image_list, words
from linkspan.core.cli.command import Platform, command, settings
from linkspan.core.cli.common import complete_image, content_trust, each
from linkspan.core.cli.credentials import registry_auth
from linkspan.core.cli.failure import Failure
from linkspan.core.cli.progress import Display, Transfer
from linkspan.core.cli.session import Session
from linkspan.core.client.short import Answer, segment
from linkspan.sdk.units import format_size


@command(
    "ls",
    "List images.",
    examples=["linkspan images", "linkspan images --filter reference='shop/*'"],
    more=["linkspan pull", "linkspan rmi"],
)
@click.argument("reference", default="")
@settings(image_list.SETTINGS)
def ls(session: Session, reference: str, **options: Any) -> None:
    """List images."""
    image_list.show(session, reference=reference, **options)


@command(
    "pull",
    "Get an image from its registry.",
    examples=["linkspan pull alpine", "linkspan pull registry.example.test:5000/shop/web:1.2"],
    more=["linkspan images", "linkspan push"],
)
@click.argument("reference", shell_complete=complete_image)
@click.option("--platform", default="", metavar="OS/ARCH", help="Instead of this machine's")
@click.option("-a", "--all-tags", is_flag=True, help="All that the repository has")
@content_trust
def pull(session: Session, reference: str, platform: str, all_tags: bool) -> None:
    """Get an image."""
    if all_tags and split_reference(reference)[0] != reference:
        raise click.UsageError("--all-tags takes a name without a tag")
    summary = pull_image(session, reference, platform=platform, all_tags=all_tags)
    session.terminal.print(reference if session.quiet else summary)


def pull_image(
    session: Session,
    reference: str,
    *,
    platform: str = "",
    transient: bool = False,
    all_tags: bool = False,
) -> str:
    """Pull with progress; return the line that says what came.

    Args:
        session: Of the command.
        reference: As the user wrote it.
        platform: Instead of this machine's.
        transient: Part of another command: says nothing that stays when it is quick.
        all_tags: All that the repository has.
    """
    name, tag = split_reference(reference)
    query = {
        "fromImage": name,
        "tag": None if all_tags else tag,
        "platform": platform or None,
    }
    transfer = Transfer(reference)
    headers = {"X-Registry-Auth": registry_auth(reference)}
    with Display(session, transfer.lines, f"pull of {reference}") as display:
        if display.mode == "plain":
            display.say(f"pulling {reference}")
        with session.api.open(
            "POST", "/images/create", query, headers=headers, silence_s=None
        ) as answer:
            _follow(answer, transfer, display)
        parts = len(transfer.parts)
        layers = f", {transfer.here} of {parts} layers were here" if parts else ""
        size = "all tags" if all_tags else _image_size(session, reference)
        digest = words.short_digest(transfer.digest)
        summary = (
            f"{session.terminal.painted_sign('done', on_err=transient)} "
            f"{reference}  {digest}  {size}{layers}  {display.elapsed}"
        )
        if transient and display.mode == "plain":
            display.say(summary)
    return summary


def _image_size(session: Session, reference: str) -> str:
    found = session.api.get(f"/images/{segment(reference)}/json")
    return format_size(found.get("Size") or 0)


def _follow(answer: Answer, transfer: Transfer, display: Display) -> None:
    for record in display.follow(answer):
        problem = record.get("errorDetail") or record.get("error")
        if problem:
            raise stream_failure(problem)
        transfer.take(record)


def stream_failure(problem: Any) -> Failure:
    """The failure that a line of a stream tells of."""
    message, hint = str(problem), ""
    if isinstance(problem, dict):
        message, hint = str(problem.get("message")), str(problem.get("help") or "")
    return Failure(message, id="LS0102", helps=[hint])


@command(
    "push",
    "Send an image to its registry.",
    examples=["linkspan push 127.0.0.1:5000/shop/web:1.2"],
    more=["linkspan tag", "linkspan pull"],
)
@click.argument("reference", shell_complete=complete_image)
@click.option("-a", "--all-tags", is_flag=True, help="All tags of it that are here")
@click.option("--platform", type=Platform(), metavar="OS/ARCH", help="Only this one")
@content_trust
def push(session: Session, reference: str, all_tags: bool, platform: Any) -> None:
    """Send an image."""
    name, tag = split_reference(reference)
    if all_tags and name != reference:
        raise click.UsageError("--all-tags takes a name without a tag")
    query = {"tag": None if all_tags else tag, "platform": platform}
    transfer = Transfer(reference)
    headers = {"X-Registry-Auth": registry_auth(reference)}
    path = f"/images/{segment(name)}/push"
    with Display(session, transfer.lines, f"push of {reference}") as display:
        if display.mode == "plain":
            display.say(f"pushing {reference}")
        with session.api.open("POST", path, query, headers=headers, silence_s=None) as answer:
            _follow(answer, transfer, display)
        parts = len(transfer.parts)
        layers = f"  {transfer.here} of {parts} layers were there" if parts else ""
        digest = words.short_digest(transfer.digest)
        summary = (
            f"{session.terminal.painted_sign('done', on_err=False)} {reference}  {digest}{layers}"
        )
        line = reference if session.quiet else f"{summary}  {display.elapsed}"
    session.terminal.print(line)


@command("tag", "Give an image one more name.", examples=["linkspan tag web 127.0.0.1:5000/web:1"])
@click.argument("image", shell_complete=complete_image)
@click.argument("name")
def tag(session: Session, image: str, name: str) -> None:
    """Give an image one more name."""
    repository, tag_name = split_reference(name)
    query = {"repo": repository, "tag": tag_name}
    session.api.post(f"/images/{segment(image)}/tag", query)


@command(
    "rm",
    "Untag images, and remove what no tag and no container needs.",
    examples=["linkspan rmi web:1", "linkspan rmi --force $(linkspan images -q)"],
)
@click.argument("images", nargs=-1, required=True, shell_complete=complete_image)
@click.option("-f", "--force", is_flag=True, help="Even if a stopped container has it")
@click.option("--no-prune", is_flag=True, help="Keep untagged parents")
@click.option("--platform", multiple=True, metavar="OS/ARCH", help="Only these of each")
def rm(
    session: Session,
    images: tuple[str, ...],
    force: bool,
    no_prune: bool,
    platform: tuple[str, ...],
) -> int:
    """Remove images."""
    platforms = [Platform().convert(text, None, None) for text in platform]
    query = {"force": force or None, "noprune": no_prune or None, "platforms": platforms}

    def remove(image: str) -> list[str]:
        done = session.api.delete(f"/images/{segment(image)}", query)
        return [f"{verb}: {name}" for item in done or () for verb, name in item.items()]

    return each(session, images, remove, missing_ok=force)


def split_reference(reference: str) -> tuple[str, str]:
    """Name and tag (or digest) of a reference; the tag is ``latest`` where none is written."""
    if "@" in reference:
        name, _, digest = reference.partition("@")
        return name, digest
    head, colon, tail = reference.rpartition(":")
    return (head, tail) if colon and "/" not in tail else (reference, "latest")
