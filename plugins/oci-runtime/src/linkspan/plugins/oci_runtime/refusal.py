"""What an OCI runtime says when it refuses, as errors of the contract."""

import contextlib
import json
import re
from typing import Final

from linkspan.sdk.errors import Internal, InvalidArgument, LinkspanError, OutOfSpace

# crun: executable file `x` not found in $PATH: No such file or directory
#       executable file `/x` not found: No such file or directory
# runc: exec: "x": executable file not found in $PATH
#       exec: "/x": stat /x: no such file or directory
_NOT_FOUND: Final = re.compile(
    r"executable file (.* )?not found|exec: .*no such file or directory"
    r"|open executable: No such file",
    re.I,
)
# crun 1.8: open executable: Permission denied · runc: exec: "/x": permission denied
# crun 1.21: the path `/x` exists but it is not executable: Operation not permitted
_NOT_EXECUTABLE: Final = re.compile(
    r"open executable: |executable .*permission denied|exec: .*(permission denied|is a directory)"
    r"|exec format error|the path .* is (a directory|not a regular file)"
    r"|the path .* exists but it is not executable",
    re.I,
)
# crun: chdir `/x`: No such file or directory
# runc: chdir to cwd ("/x") set in config.json failed: no such file or directory
_NO_FOLDER: Final = re.compile(r"chdir .*no such file or directory", re.I)
_BAD_FOLDER: Final = re.compile(r"chdir ", re.I)
_RELATIVE_FOLDER: Final = re.compile(r"chdir `(?!/)|Cwd must be an absolute path")
# What crun says when a limit of the container (--ulimit nofile, fsize, cpu) stops its own process
# before the container's has begun.
_TIGHT: Final = re.compile(
    r"Too many open files$|File too large$|^write to seccomp fd$|^read from the init process$", re.I
)
_NOISE: Final = re.compile(
    r"^(runc create failed: |runc run failed: |exec failed: |unable to start container process: )+"
)


def plain(message: str) -> str:
    """The runtime's message without its log dress, on one line."""
    text = message.strip()
    lines = [_line(line) for line in text.splitlines() if line.strip()]
    return _NOISE.sub("", "; ".join(line for line in lines if line)) or "no message"


def _line(line: str) -> str:
    if line.startswith("{"):
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            return str(entry.get("msg", line))
    match = re.search(r'msg="((?:[^"\\]|\\.)*)"', line)
    if match:
        return match[1].replace('\\"', '"')
    # crun's log file: 2026-11-24T09:07:33.000000Z: message
    return re.sub(r"^[0-9T:.-]+Z: ", "", line.strip())


def _in_dockers_words(text: str, program: str) -> str:
    """What runc says of a program that cannot be run: clients know the exit status by its words."""
    if exit_code_of(text) == 127:
        if "/" in program:
            return f'exec: "{program}": stat {program}: no such file or directory'
        return f'exec: "{program}": executable file not found in $PATH'
    if "exec format error" in text.lower():
        return f'exec: "{program}": exec format error: permission denied'
    folder = re.search(r"is a directory|open executable: Operation not permitted", text)
    return f'exec: "{program}": {"is a directory: " if folder else ""}permission denied'


_CODES: Final = {126: "command_not_executable", 127: "command_not_found"}


def exec_error(message: str, program: str) -> InvalidArgument:
    """Why a process was not started in a container, in Docker's words."""
    text = plain(message)
    code = exit_code_of(text)
    folder = re.search(r"chdir `(.*?)`: (.*)", text)
    if code in _CODES:
        text = f"unable to start container process: {_in_dockers_words(text, program)}"
    elif folder is not None:
        text = (
            f'unable to start container process: chdir to cwd ("{folder[1]}") set in config.json'
            f" failed: {folder[2].lower()}"
            if folder[1].startswith("/")
            else "Cwd must be an absolute path"
        )
    return InvalidArgument(
        f"OCI runtime exec failed: exec failed: {text}",
        code=_CODES.get(code, "runtime_refused"),
        details={"program": program, "runtime_message": plain(message)},
    )


def exit_code_of(message: str) -> int:
    """127 not found, 126 not executable, 1 anything else."""
    if _NOT_FOUND.search(message):
        return 127
    if _NOT_EXECUTABLE.search(message):
        return 126
    return 1


def exit_code_of_exec(message: str) -> int:
    """As ``exit_code_of``; a working folder that cannot be entered counts as the program, as in Docker."""
    code = exit_code_of(message)
    if code != 1:
        return code
    if _RELATIVE_FOLDER.search(message):
        return 128
    if _NO_FOLDER.search(message):
        return 127
    return 126 if _BAD_FOLDER.search(message) else 1


def error_of(message: str, program: str) -> LinkspanError:
    """The error for a container or process that was not made."""
    text = plain(message)
    details = {"program": program, "runtime_message": text}
    code = exit_code_of(text)
    if code == 127:
        return InvalidArgument(
            _in_dockers_words(text, program),
            code="command_not_found",
            details=details,
            help="check the command's spelling and the PATH of the image",
        )
    if code == 126:
        return InvalidArgument(
            _in_dockers_words(text, program),
            code="command_not_executable",
            details=details,
            help="check the file's mode and that it fits this machine's architecture",
        )
    if (file := re.search(r"chdir `(.*?)`: Not a directory", text)) is not None:
        return InvalidArgument(
            f"Cannot mkdir: {file[1]} is not a directory",
            code="runtime_refused",
            details=details,
            help="choose another --workdir",
        )
    if _TIGHT.search(text):
        return InvalidArgument(
            f"the runtime refused the container: {text}",
            code="runtime_refused",
            details=details,
            help="its limits leave no room to begin: raise --ulimit nofile, fsize or cpu",
        )
    if "/cpuset/" in text:
        # The kernel's word for a group without processors or memory is that of a full disk.
        return InvalidArgument(
            f"the runtime refused the container: {text}",
            code="runtime_refused",
            details=details,
            help="check --cpuset-cpus and --cpuset-mems; a very low --ulimit nofile ends here, too",
        )
    if "No space left on device" in text or "no space left on device" in text:
        return OutOfSpace(f"the runtime could not make the container: {text}", details=details)
    if re.search(
        r"invalid|unknown|not supported|no such (file|device)|name too long|not permitted|denied"
        r"|out of range",
        text,
        re.I,
    ):
        return InvalidArgument(
            f"the runtime refused the container: {text}", code="runtime_refused", details=details
        )
    return Internal(f"the runtime failed: {text}", code="runtime_failed", details=details)
