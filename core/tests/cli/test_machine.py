"""Commands about this machine: config, plugins, doctor, completion, plugins' own commands."""

import json
import os
import subprocess
import tomllib
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from linkspan.core.cli import doctor, manifests
from linkspan.core.cli.command import Row
from linkspan.core.config.load import load_config


def test_the_default_config_is_valid_and_changes_nothing(linkspan: Any, tmp_path: Path) -> None:
    text = linkspan("config", "default").out
    file = tmp_path / "linkspan.toml"
    file.write_text(text)
    assert load_config([file]).daemon == load_config([]).daemon
    assert 'data-root = "/var/lib/linkspan"' in text
    assert '# log-level = "info"' in text


def test_the_default_config_is_still_valid_when_its_comments_are_taken_away(
    linkspan: Any, tmp_path: Path
) -> None:
    lines = []
    for line in linkspan("config", "default").out.splitlines():
        entry = line.removeprefix("# ")
        if line.startswith("##") or entry.endswith(" =") or entry.endswith("(required)"):
            continue
        if " = " in entry or entry.startswith("["):
            lines.append(entry)
    text = "\n".join(line for line in lines if not line.startswith(("Linkspan", "Read")))
    assert tomllib.loads(text)["daemon"]["autostart"] is True
    file = tmp_path / "c.toml"
    file.write_text(text)
    load_config([file])


def test_config_check_shows_everything_that_is_wrong(linkspan: Any, tmp_path: Path) -> None:
    file = tmp_path / "linkspan.toml"
    file.write_text('[vollume]\n[daemon]\nautostart = "yes"\n[runtime]\ndriver = "gvisr"\n')
    result = linkspan("config", "check", str(file))
    assert result.status == 2
    for identifier, line in (("LS2001", "1:2"), ("LS2010", "3:13"), ("LS2101", "5:10")):
        assert f"error[{identifier}]" in result.err
        assert f"--> {file}:{line}" in result.err
    found = json.loads(linkspan("config", "check", str(file), "--format", "json").out)
    assert {(d["id"], d["line"]) for d in found} >= {("LS2001", 1), ("LS2010", 3), ("LS2101", 5)}


def test_config_show_says_where_values_come_from(
    linkspan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "linkspan.toml"
    file.write_text('[daemon]\ndata-root = "/srv"\n')
    shown = linkspan("--config", str(file), "config", "show", "daemon").out.splitlines()
    assert ["daemon.data-root", '"/srv"', f"{file}:2"] in [line.split() for line in shown]
    assert ["daemon.autostart", "true", "default"] in [line.split() for line in shown]
    only = linkspan("--config", str(file), "config", "show", "--set", "--format", "json").out
    assert [r["key"] for r in json.loads(only)] == ["daemon.data-root"]


def test_plugin_ls_and_show(linkspan: Any) -> None:
    rows = json.loads(linkspan("plugin", "ls", "--format", "json").out)
    plugins = {row["plugin"] for row in rows}
    assert "docker-api" in plugins
    result = linkspan("plugin", "show", "docker-api")
    assert result.status == 0
    assert result.out.startswith("docker-api ")
    missing = linkspan("plugin", "show", "docker-apo")
    assert missing.status == 1
    assert "did you mean 'docker-api'?" in missing.err


def test_doctor_says_what_to_install(linkspan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda *_args, **_kwargs: None)
    monkeypatch.setattr(doctor, "_CONMON_PLACES", ())
    result = linkspan("doctor")
    assert result.status == 1
    assert "✗ neither crun nor runc      apt-get install crun" in result.out
    assert "apt-get install conmon" in result.out
    findings = json.loads(linkspan("doctor", "--format", "json").out)
    assert {"area", "level", "text", "cure"} == set(findings[0])


def test_doctor_finds_what_the_daemon_cannot_use(fake: Any, linkspan: Any) -> None:
    status = {
        "version": "0.1.0",
        "pid": 1,
        "unusable": {"network/bridge": "no libnftables"},
        "troubles": {},
    }
    fake.on("GET", "/linkspan/v1/daemon", status)
    with fake.running():
        result = linkspan("doctor")
    assert result.status == 1
    assert "✗ network/bridge: no libnftables" in result.out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(linkspan: Any, shell: str) -> None:
    result = linkspan("completion", shell)
    assert "_LINKSPAN_COMPLETE" in result.out


@pytest.mark.parametrize(
    ("line", "asked", "replies", "offered"),
    [
        ("linkspan workflow ", "linkspan workflow |2", "plain,run\nplain,lint", ["run", "lint"]),
        ("linkspan  stop w", "linkspan  stop w|2", "plain,web", ["web"]),
        ("linkspan r --in lev", "linkspan r --in lev|3", "plain,level=", ["level="]),
        ("linkspan r --in level=", "linkspan r --in level=|3", "plain,level=low", ["low"]),
        ("linkspan r --b before:t", "linkspan r --b before:t|3", "plain,before:test/a", ["test/a"]),
        ("linkspan build ./x", "linkspan build ./x|2", "file,./x", []),
    ],
)
def test_bash_asks_for_whole_words_and_gets_the_rest_of_them(
    linkspan: Any, tmp_path: Path, line: str, asked: str, replies: str, offered: list[str]
) -> None:
    script = linkspan("completion", "bash").out
    stub = tmp_path / "stub"
    stub.write_text(
        f"#!/bin/sh\necho \"$COMP_WORDS|$COMP_CWORD\" > {tmp_path}/asked\ncat <<'E'\n{replies}\nE\n"
    )
    stub.chmod(0o755)
    call = f"COMP_LINE='{line}' COMP_POINT={len(line)}; _linkspan_completion {stub}"
    done = subprocess.run(
        ["bash", "-c", f'{script}\n{call}\nprintf "%s\\n" "${{COMPREPLY[@]}}"'],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert (tmp_path / "asked").read_text().strip("\n") == asked
    assert done.stdout.split() == offered
    assert done.stderr == ""


def test_names_are_completed_from_the_daemon_and_its_absence_is_silent(
    fake: Any, linkspan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.on("GET", "/containers/json", [{"Names": ["/web"]}, {"Names": ["/db"]}])
    monkeypatch.setenv("_LINKSPAN_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_CWORD", "2")
    monkeypatch.setenv("COMP_WORDS", "linkspan stop w")
    with fake.running():
        assert linkspan().out == "plain,web\n"
    assert linkspan() == (0, "\n", "")
    monkeypatch.setenv("COMP_CWORD", "1")
    monkeypatch.setenv("COMP_WORDS", "linkspan swa")
    assert linkspan().out == "plain,swarm\n"


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed plugin with a command of its own."""
    site = tmp_path / "site-packages"
    package = site / "acme_tool"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "cli.py").write_text(
        dedent("""\
        import click

        @click.command()
        @click.argument("name")
        def greet(name):
            click.echo(f"hello {name}")
        """)
    )
    (package / "linkspan-plugin.toml").write_text(
        'name = "tool"\nversion = "1"\n'
        '[[command]]\nwords = "acme greet"\nrun = "acme_tool.cli:greet"\nsummary = "Greet"\n'
        '[[command]]\nwords = "ps"\nrun = "acme_tool.cli:greet"\nsummary = "Hijack"\n'
    )
    info = site / "acme_tool-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-tool\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[linkspan.manifest]\ntool = acme_tool\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return site


def test_a_plugins_command_is_found_and_cannot_replace_one_of_ours(
    plugin: Path, linkspan: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert linkspan("acme", "greet", "ana").out == "hello ana\n"
    assert "acme" in linkspan("--help").out
    assert linkspan("ps").status == 69
    assert "did you mean `acme`?" in linkspan("acne").err


def test_a_disabled_plugins_command_is_not_there(
    plugin: Path, linkspan: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "c.toml"
    config.write_text('[plugins]\ndisable = ["tool"]\n')
    assert linkspan("--config", str(config), "acme", "greet", "ana").status == 2
    assert linkspan("acme", "greet", "ana").status == 0
    monkeypatch.setenv("LINKSPAN_CONFIG", str(config))
    assert linkspan("acme", "greet", "ana").status == 2


def rows() -> list[str]:
    return [row.words for row in manifests.plugin_commands()]


def test_the_cache_answers_without_a_scan_until_something_changes(
    plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "acme greet" in rows()
    scans = []
    real = manifests._scan

    def scan() -> Any:
        scans.append(1)
        return real()

    monkeypatch.setattr(manifests, "_scan", scan)
    assert "acme greet" in rows()
    assert scans == []
    manifest = plugin / "acme_tool" / "linkspan-plugin.toml"
    manifest.write_text(manifest.read_text().replace("acme greet", "acme meet"))
    os.utime(manifest, ns=(1, 1))
    assert "acme meet" in rows()
    assert len(scans) == 1
    (plugin / "another-1.dist-info").mkdir()
    assert "acme meet" in rows()
    assert len(scans) == 2


def test_a_cache_that_others_may_write_is_not_trusted(plugin: Path) -> None:
    rows()
    file = manifests._cache_file()
    folders = manifests._folders()
    assert manifests._read(file, folders) is not None
    file.chmod(0o666)
    assert manifests._read(file, folders) is None
    file.chmod(0o600)
    file.write_text("{broken")
    assert manifests._read(file, folders) is None
    assert "acme greet" in rows()


def test_a_cache_folder_that_cannot_be_written_is_no_fault(
    plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert Row("acme greet", "acme_tool.cli:greet", "Greet") in manifests.plugin_commands()
