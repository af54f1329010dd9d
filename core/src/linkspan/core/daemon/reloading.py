"""SIGHUP: the config is read again, and what can change while the daemon runs does."""

import logging
import signal
from collections.abc import Callable

import trio

from linkspan.core.config.load import LoadedConfig
from linkspan.core.config.structure import settings
from linkspan.sdk.errors import LinkspanError
from linkspan.sdk.events import Event

log = logging.getLogger(__name__)

Read = Callable[[], LoadedConfig]


async def reload_when_told(
    read: Read,
    before: LoadedConfig,
    daemon_id: str,
    name: str,
    publish: Callable[[Event], None],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Read the config at each SIGHUP until cancelled; with faults in it all stays as it was."""
    with trio.open_signal_receiver(signal.SIGHUP) as received:
        task_status.started()
        async for _ in received:
            try:
                now = await trio.to_thread.run_sync(read)
            except LinkspanError as error:
                log.warning("the config has faults: nothing changes", extra={"why": str(error)})
                continue
            level = now.daemon.log_level
            logging.getLogger("linkspan").setLevel(level.upper())
            waiting = _changed(before, now)
            log.info("the config was read again", extra={"takes_a_restart": waiting})
            facts = {"debug": str(level == "debug").lower(), "log-level": level, "name": name}
            publish(Event(type="daemon", action="reload", actor_id=daemon_id, attributes=facts))


def _changed(before: LoadedConfig, now: LoadedConfig) -> list[str]:
    """Keys of the daemon's table, and other tables, that differ and have no effect yet."""
    names = {setting.key: setting.field.name for setting in settings(type(before.daemon))}
    keys = [
        key
        for key, name in names.items()
        if name != "log_level" and getattr(before.daemon, name) != getattr(now.daemon, name)
    ]
    tables = sorted({*before.values, *now.values} - {"daemon"})
    return [*keys, *(t for t in tables if before.values.get(t) != now.values.get(t))]
