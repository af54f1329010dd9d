"""The daemon's process: from flags to the event loop."""

import faulthandler
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from linkspan.core.config.load import ConfigError, load_config
from linkspan.core.daemon.assembly import Daemon
from linkspan.core.daemon.identity import Identity
from linkspan.core.daemon.logs import set_up_logging
from linkspan.core.plugins.configuration import DRIVER_TROUBLES, check
from linkspan.core.plugins.registry import PluginRegistry

_ADMINISTRATION: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def run_daemon(config_paths: Sequence[Path | str] | None, overrides: Mapping[str, Any]) -> None:
    """Run a daemon in this process until it is told to end.

    Raises:
        ConfigError: Everything that is wrong with the config.
        LinkspanError: It cannot start; says why.
    """
    if sys.stderr is not None:
        faulthandler.enable()  # a crash in a C library tells the log where it was
    _complete_path()
    config = load_config(config_paths, overrides)
    set_up_logging(config.daemon.log_level)
    identity = Identity.claim(config.daemon.data_root, config.daemon.exec_root)
    registry = PluginRegistry(config.plugins).discover()
    # A driver that is missing or broken is its role's trouble; a table nobody reads is a mistake.
    mistakes = [d for d in check(config, registry) if d.id not in DRIVER_TROUBLES]
    if mistakes:
        raise ConfigError(mistakes)
    read_again = partial(load_config, config_paths, overrides)
    daemon = Daemon(config=config, registry=registry, identity=identity, read_again=read_again)
    daemon.prepare_process()
    sys.setswitchinterval(0.0005)
    try:
        trio.run(daemon.run, strict_exception_groups=True)
    except BaseExceptionGroup as group:
        raise _only(group) from None


def _complete_path() -> None:
    """nft, iptables and runc lie where the PATH of users, which ``su`` keeps, does not look."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    missing = [folder for folder in _ADMINISTRATION if folder not in folders]
    os.environ["PATH"] = os.pathsep.join([*folders, *missing])


def _only(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """A group of one, however deep, is that one."""
    inner: BaseException = group
    while isinstance(inner, BaseExceptionGroup) and len(inner.exceptions) == 1:
        inner = inner.exceptions[0]
    return inner
