"""Starts, finds and stops a daemon from another process."""

import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from linkspan.core.client.address import Address
from linkspan.core.client.errors import Unreachable
from linkspan.core.client.resolve import DEFAULT_EXEC_ROOT, read_table
from linkspan.core.client.short import Api
from linkspan.sdk.errors import LinkspanError, PermissionDenied, Timeout

START_TIMEOUT_S: Final = 30.0
_LOG_NAME: Final = "daemon.log"
_LOG_LIMIT_BYTES: Final = 16 << 20
_FIRST_PAUSE_S: Final = 0.01
_LAST_PAUSE_S: Final = 0.03


class NotStarted(LinkspanError):
    """The daemon ended before it answered."""

    default_code = "daemon_not_started"


def ensure_running(
    url: str,
    *,
    config: str | None = None,
    arguments: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
    timeout_s: float = START_TIMEOUT_S,
) -> dict[str, Any]:
    """Start a daemon unless one answers; return what it says of itself when it does.

    Several commands may do so at once: one starts it, the others wait for it.

    Args:
        url: Where it is to answer.
        config: The config file, if one was named.
        arguments: Further flags of ``linkspan daemon run``.
        overrides: What these flags mean for the config, as ``load_config`` takes it.
        timeout_s: Until it must answer.

    Raises:
        NotStarted: It ended; its last words are in the message.
        Timeout: It says nothing.
        PermissionDenied: Its folders are closed to this user.
        ConfigError: The config is wrong.
    """
    exec_root = _exec_root(config, overrides or {})
    try:
        exec_root.mkdir(mode=0o711, parents=True, exist_ok=True)
        with _one_at_a_time(exec_root / "start.lock"):
            found = ask(url)
            if found is not None:
                return found
            flags = [*(["--config", str(Path(config).absolute())] if config else []), *arguments]
            return _start(url, exec_root / _LOG_NAME, flags, timeout_s)
    except PermissionError as exc:
        raise PermissionDenied(
            f"cannot start the daemon: {exc.filename}: permission denied",
            help="sudo linkspan daemon start",
        ) from exc
    except NotStarted:
        _check_config(config, overrides)
        raise


def _exec_root(config: str | None, overrides: Mapping[str, Any]) -> Path:
    """Where the daemon will have its run files, without the time that it takes to check the config."""
    path = overrides.get("daemon.exec-root") or read_table(
        "daemon", config or os.environ.get("LINKSPAN_CONFIG", "")
    ).get("exec-root", DEFAULT_EXEC_ROOT)
    if not (isinstance(path, str | Path) and Path(path).is_absolute()):
        _check_config(config, overrides)
    return Path(str(path))


def _check_config(config: str | None, overrides: Mapping[str, Any] | None) -> None:
    """Raise ConfigError if the config is wrong."""
    # As slow to import as all the rest of the client.
    from linkspan.core.config.load import load_config

    load_config([config] if config else None, overrides)


def ask(url: str, *, silence_s: float = 5.0) -> dict[str, Any] | None:
    """What the daemon says of itself; None if none listens.

    Raises:
        Unreachable: Something listens and does not answer as a daemon does.
    """
    try:
        found: dict[str, Any] = Api(Address(url), silence_s=silence_s).get("/linkspan/v1/daemon")
    except Unreachable as exc:
        if exc.cause in ("no-socket", "refused"):
            return None
        raise
    return found


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _start(url: str, log: Path, flags: Sequence[str], timeout_s: float) -> dict[str, Any]:
    if log.exists() and log.stat().st_size > _LOG_LIMIT_BYTES:
        log.replace(log.with_suffix(".log.1"))
    with log.open("ab") as stream:
        begin = stream.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "linkspan.core.cli", "daemon", "run", *flags],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            cwd="/",
        )
    until = time.monotonic() + timeout_s
    pause = _FIRST_PAUSE_S
    while time.monotonic() < until:
        found = ask(url)
        if found is not None:
            process.returncode = 0  # it lives on; silences subprocess's warning about that
            return found
        if process.poll() is not None:
            raise NotStarted(
                f"the daemon did not start: {_last_words(log, begin)}", help=f"less {log}"
            )
        time.sleep(pause)
        pause = min(_LAST_PAUSE_S, pause * 1.5)
    process.terminate()
    process.wait()
    raise Timeout(f"the daemon does not answer at {url} after {timeout_s:g}s", help=f"less {log}")


def _last_words(log: Path, begin: int) -> str:
    """What the daemon wrote since, as one text; its error comes last."""
    with log.open("rb") as stream:
        stream.seek(begin)
        lines = [ln for ln in stream.read().decode("utf-8", "replace").splitlines() if ln.strip()]
    for number, line in enumerate(lines):
        if line.startswith("error"):
            lines[number] = line.partition(": ")[2]
            return "\n".join(lines[number:])
    return lines[-1] if lines else "it wrote nothing"


def stop_running(url: str, *, timeout_s: float = 60.0) -> int | None:
    """Ask the daemon to end and wait until it has; containers go on.

    Returns:
        Its pid; None if none was there.

    Raises:
        PermissionDenied: It is another user's.
        Timeout: It did not end.
    """
    found = ask(url)
    if found is None:
        return None
    pid = int(found["pid"])
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return pid
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        if not poller.poll(timeout_s * 1000):
            raise Timeout(
                f"the daemon (pid {pid}) did not end within {timeout_s:g}s", help=f"kill -9 {pid}"
            )
    except PermissionError as exc:
        raise PermissionDenied(
            f"the daemon (pid {pid}) is another user's", help="sudo linkspan daemon stop"
        ) from exc
    finally:
        os.close(descriptor)
    return pid
