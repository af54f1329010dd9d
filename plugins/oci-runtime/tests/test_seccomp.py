import json
from pathlib import Path

import pytest

from linkspan.plugins.oci_runtime import capabilities, seccomp
from linkspan.sdk.errors import InvalidArgument


def names(section: dict, action: str = "SCMP_ACT_ALLOW") -> set[str]:  # type: ignore[type-arg]
    return {
        name for rule in section["syscalls"] if rule["action"] == action for name in rule["names"]
    }


def resolve(*caps: str, machine: str = "x86_64", kernel: tuple[int, int] = (6, 1)) -> dict:  # type: ignore[type-arg]
    return seccomp.resolve(seccomp.default_profile(), caps, machine=machine, kernel=kernel)


def test_the_default_profile_denies_what_is_not_named() -> None:
    section = resolve(*capabilities.DEFAULT)
    assert section["defaultAction"] == "SCMP_ACT_ERRNO"
    assert section["defaultErrnoRet"] == 1
    allowed = names(section)
    assert {"read", "openat2", "clone", "futex", "execve", "chroot", "ptrace"} <= allowed
    assert (
        not {
            "mount",
            "unshare",
            "bpf",
            "keyctl",
            "add_key",
            "kexec_load",
            "reboot",
            "init_module",
            "userfaultfd",
            "io_uring_setup",
        }
        & allowed
    )


def test_new_namespaces_need_the_capability() -> None:
    without = [r for r in resolve()["syscalls"] if r["names"] == ["clone"]]
    assert without == [
        {
            "names": ["clone"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 0x7E020000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}],
        }
    ]
    assert {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38} in resolve()[
        "syscalls"
    ]
    able = resolve("CAP_SYS_ADMIN")
    assert {"clone", "clone3", "mount", "unshare", "setns"} <= names(able)
    assert names(able, "SCMP_ACT_ERRNO") == set()


@pytest.mark.parametrize(
    ("cap", "call"),
    [
        ("CAP_SYS_TIME", "clock_settime"),
        ("CAP_SYS_MODULE", "init_module"),
        ("CAP_SYS_BOOT", "reboot"),
        ("CAP_BPF", "bpf"),
        ("CAP_SYS_NICE", "mbind"),
        ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
        ("CAP_SYSLOG", "syslog"),
    ],
)
def test_a_capability_brings_its_calls(cap: str, call: str) -> None:
    assert call not in names(resolve())
    assert call in names(resolve(cap))


def test_rules_depend_on_architecture_and_kernel() -> None:
    assert resolve()["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    assert "arch_prctl" in names(resolve())
    arm = resolve(machine="aarch64")
    assert arm["architectures"] == ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    assert "arch_prctl" not in names(arm)
    assert "set_tls" in names(arm)
    assert "ptrace" not in names(resolve(kernel=(4, 4)))


def test_no_call_is_listed_twice_in_one_rule() -> None:
    for rule in seccomp.default_profile()["syscalls"]:
        assert len(rule["names"]) == len(set(rule["names"]))


def test_old_profiles_with_one_name_a_rule_are_read() -> None:
    profile = seccomp.parse_profile(
        json.dumps(
            {
                "defaultAction": "SCMP_ACT_ALLOW",
                "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [{"name": "chmod", "action": "SCMP_ACT_ERRNO", "args": []}],
            }
        )
    )
    assert seccomp.resolve(profile, ()) == {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": ["chmod"], "action": "SCMP_ACT_ERRNO"}],
    }


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"defaultAction": 5}'])
def test_a_profile_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        seccomp.parse_profile(text)


def test_a_compiled_filter_is_kept_for_the_same_rules_and_programs_only(tmp_path: Path) -> None:
    cache = seccomp.FilterCache(tmp_path / "cache", "crun 1 libseccomp 2")
    key = cache.key(resolve())
    assert key == cache.key(resolve())
    assert key != cache.key(resolve("CAP_SYS_ADMIN"))
    assert key != seccomp.FilterCache(tmp_path / "cache", "crun 2 libseccomp 2").key(resolve())
    assert cache.get(key) is None
    cache.keep(key, tmp_path / "missing")
    assert cache.get(key) is None
    compiled = tmp_path / "seccomp.bpf"
    compiled.write_bytes(b"not a filter")
    cache.keep(key, compiled)
    assert cache.get(key) is None
    compiled.write_bytes(b"12345678" * 3)
    cache.keep(key, compiled)
    assert cache.get(key) == "MTIzNDU2NzgxMjM0NTY3ODEyMzQ1Njc4"
    again = seccomp.FilterCache(tmp_path / "cache", "crun 1 libseccomp 2")
    assert again.get(key) == cache.get(key)
    assert [entry.name for entry in (tmp_path / "cache").iterdir()] == [key]
