"""``pause``, ``unpause``, ``rename``, ``update``: what changes a container without stopping it."""

from typing import Any, Final

import click

from linkspan.core.cli.command import Size, command
from linkspan.core.cli.common import complete_container, complete_running, each
from linkspan.core.cli.failure import USAGE, Failure
from linkspan.core.cli.runvalues import restart_policy
from linkspan.core.cli.session import Session
from linkspan.core.client.short import segment

_NANO: Final = 1_000_000_000


@command(
    "pause",
    "Freeze all processes of containers.",
    examples=["linkspan pause web"],
    more=["linkspan unpause"],
)
@click.argument("containers", nargs=-1, required=True, shell_complete=complete_running)
def pause(session: Session, containers: tuple[str, ...]) -> int:
    """Freeze containers."""
    return each(session, containers, lambda n: session.api.post(f"/containers/{segment(n)}/pause"))


@command(
    "unpause",
    "Let the processes of paused containers go on.",
    examples=["linkspan unpause web"],
    more=["linkspan pause"],
)
@click.argument("containers", nargs=-1, required=True, shell_complete=complete_running)
def unpause(session: Session, containers: tuple[str, ...]) -> int:
    """Thaw containers."""
    return each(
        session, containers, lambda n: session.api.post(f"/containers/{segment(n)}/unpause")
    )


@command("rename", "Give a container another name.", examples=["linkspan rename web shop"])
@click.argument("container", shell_complete=complete_container)
@click.argument("name")
def rename(session: Session, container: str, name: str) -> None:
    """Give a container another name."""
    session.api.post(f"/containers/{segment(container)}/rename", {"name": name})


@command(
    "update",
    "Change the limits of containers, running or not.",
    examples=[
        "linkspan update --memory 1g --memory-swap 2g web",
        "linkspan update --cpus 1.5 --restart unless-stopped web db",
    ],
    more=["linkspan stats", "linkspan inspect"],
)
@click.argument("containers", nargs=-1, required=True, shell_complete=complete_container)
@click.option("--blkio-weight", type=int, metavar="N", help="Weight of its disk use, 10 to 1000")
@click.option("--cpu-period", type=int, metavar="µS", help="Length of a period of CPU time")
@click.option("--cpu-quota", type=int, metavar="µS", help="CPU time within a period")
@click.option("--cpu-rt-period", type=int, metavar="µS", help="Length of a real-time period")
@click.option("--cpu-rt-runtime", type=int, metavar="µS", help="Real-time within a period")
@click.option("-c", "--cpu-shares", type=int, metavar="N", help="Weight against others")
@click.option("--cpus", type=float, metavar="N", help="CPUs: 0.5, 2")
@click.option("--cpuset-cpus", metavar="LIST", help="Only on these: 0-2,4")
@click.option("--cpuset-mems", metavar="LIST", help="Memory nodes: 0-1")
@click.option("-m", "--memory", type=Size(), metavar="BYTES", help="Memory limit: 512m, 2g")
@click.option("--memory-reservation", type=Size(), metavar="BYTES", help="Soft memory limit")
@click.option("--memory-swap", type=Size(), metavar="BYTES", help="Memory and swap; -1: no limit")
@click.option("--pids-limit", type=int, metavar="N", help="How many processes")
@click.option("--restart", metavar="POLICY", help="no, always, on-failure[:N], unless-stopped")
def update(session: Session, containers: tuple[str, ...], **options: Any) -> int:
    """Change limits."""
    body = _changes(options)
    if not body:
        raise Failure(
            "nothing to change",
            id="LS0004",
            status=USAGE,
            helps=["name a limit, as in: linkspan update --memory 1g web"],
        )

    def change(name: str) -> None:
        answer = session.api.post(f"/containers/{segment(name)}/update", None, body)
        for warning in (answer or {}).get("Warnings") or ():
            session.terminal.note(f"{session.terminal.painted_sign('warned')} {warning}")

    return each(session, containers, change)


_KEYS: Final = {
    "blkio_weight": "BlkioWeight",
    "cpu_period": "CpuPeriod",
    "cpu_quota": "CpuQuota",
    "cpu_rt_period": "CpuRealtimePeriod",
    "cpu_rt_runtime": "CpuRealtimeRuntime",
    "cpu_shares": "CpuShares",
    "cpuset_cpus": "CpusetCpus",
    "cpuset_mems": "CpusetMems",
    "memory": "Memory",
    "memory_reservation": "MemoryReservation",
    "memory_swap": "MemorySwap",
    "pids_limit": "PidsLimit",
}


def _changes(options: dict[str, Any]) -> dict[str, Any]:
    body = {key: options[name] for name, key in _KEYS.items() if options[name] is not None}
    if options["cpus"] is not None:
        body["NanoCpus"] = round(options["cpus"] * _NANO)
    if options["restart"] is not None:
        body["RestartPolicy"] = restart_policy(options["restart"])
    return body
