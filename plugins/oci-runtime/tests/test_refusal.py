import pytest

from linkspan.plugins.oci_runtime import refusal
from linkspan.sdk.errors import InvalidArgument, OutOfSpace

# As crun 1.8.1, crun 1.21 and runc 1.1.5 said it.
MESSAGES = [
    ("executable file `nope` not found in $PATH: No such file or directory\n", 127),
    (
        'time="2026-11-24T09:07:36Z" level=error msg="runc create failed: unable to start container '
        'process: exec: \\"nope\\": executable file not found in $PATH"\n',
        127,
    ),
    (
        'time="2026-11-24T09:07:35Z" level=error msg="runc create failed: unable to start container '
        'process: exec: \\"/bin/sh\\": stat /bin/sh: no such file or directory"\n',
        127,
    ),
    ("open executable: Permission denied\n", 126),
    (
        'time="2026-11-24T09:07:35Z" level=error msg="runc create failed: unable to start container '
        'process: exec: \\"/etc/passwd\\": permission denied"\n',
        126,
    ),
    ("the path `/etc` is a directory\n", 126),
    ("mount `/nope` to `data`: No such file or directory\n", 1),
    ("the path `/etc` is not a regular file: Operation not permitted\n", 126),
    ("the path `/x` exists but it is not executable: Operation not permitted\n", 126),
    ("executable file `/nope` not found: No such file or directory\n", 127),
]


@pytest.mark.parametrize(("message", "code"), MESSAGES)
def test_messages_become_exit_codes(message: str, code: int) -> None:
    assert refusal.exit_code_of(refusal.plain(message)) == code


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("chdir `/nope`: No such file or directory", 127),
        ('chdir to cwd ("/nope") set in config.json failed: no such file or directory', 127),
        ("chdir `/etc/passwd`: Not a directory", 126),
        ("Cwd must be an absolute path", 128),
        ("something broke", 1),
        *MESSAGES,
    ],
)
def test_a_working_folder_that_is_none_counts_as_the_program(message: str, code: int) -> None:
    assert refusal.exit_code_of_exec(refusal.plain(message)) == code


def test_messages_lose_their_log_dress() -> None:
    assert refusal.plain(MESSAGES[1][0]) == 'exec: "nope": executable file not found in $PATH'
    assert refusal.plain("2026-11-24T09:07:33.000001Z: open x: Bad\n") == "open x: Bad"
    assert refusal.plain('{"msg":"from json","level":"error"}') == "from json"
    assert refusal.plain("") == "no message"


def test_codes_of_errors() -> None:
    missing = refusal.error_of(MESSAGES[0][0], "nope")
    assert isinstance(missing, InvalidArgument)
    assert missing.code == "command_not_found"
    assert "nope" in str(missing)
    assert refusal.error_of(MESSAGES[3][0], "/x").code == "command_not_executable"
    assert refusal.error_of(MESSAGES[6][0], "sh").code == "runtime_refused"
    assert isinstance(refusal.error_of("write: No space left on device", "sh"), OutOfSpace)
    group = "writing file `/sys/fs/cgroup/cpuset/x/cgroup.procs`: No space left on device"
    assert refusal.error_of(group, "sh").code == "runtime_refused"
    device = "write `blkio.throttle.read_bps_device`: No such device"
    assert refusal.error_of(device, "sh").code == "runtime_refused"
    name = f"openat2 `{'a' * 300}`: File name too long"
    assert refusal.error_of(name, "sh").code == "runtime_refused"
    value = "writing file `cpu.cfs_quota_us`: Numerical result out of range"
    assert refusal.error_of(value, "").code == "runtime_refused"
    assert refusal.error_of("something broke", "sh").code == "runtime_failed"


@pytest.mark.parametrize(
    "message",
    [
        "error opening file `/proc/self/setgroups`: Too many open files",
        "writing file `/sys/fs/cgroup/unified/x/cgroup.procs`: File too large",
        "write to seccomp fd",
        "read from the init process",
    ],
)
def test_limits_that_leave_no_room_to_begin_are_refused(message: str) -> None:
    error = refusal.error_of(message, "sh")
    assert error.code == "runtime_refused"
    assert "--ulimit" in str(error.help)
    assert refusal.error_of("open x: Too many open files in system", "sh").code == "runtime_failed"


@pytest.mark.parametrize(
    ("message", "program", "words"),
    [
        (
            "executable file `nope` not found in $PATH: No such file or directory",
            "nope",
            'unable to start container process: exec: "nope": executable file not found in $PATH',
        ),
        (
            "executable file `/nope` not found: No such file or directory",
            "/nope",
            'unable to start container process: exec: "/nope": stat /nope: no such file or directory',
        ),
        (
            "open executable: Operation not permitted",
            "/etc",
            'unable to start container process: exec: "/etc": is a directory: permission denied',
        ),
        (
            "open executable: Permission denied",
            "/etc/passwd",
            'unable to start container process: exec: "/etc/passwd": permission denied',
        ),
        ("chdir `rel`: No such file or directory", "sh", "Cwd must be an absolute path"),
        (
            "chdir `/nope`: No such file or directory",
            "sh",
            'unable to start container process: chdir to cwd ("/nope") set in config.json failed: '
            "no such file or directory",
        ),
    ],
)
def test_a_session_that_cannot_run_says_why_in_dockers_words(
    message: str, program: str, words: str
) -> None:
    error = refusal.exec_error(message, program)
    assert str(error) == f"OCI runtime exec failed: exec failed: {words}"
