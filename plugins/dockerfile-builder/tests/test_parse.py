"""From text to instructions, on vectors computed with BuildKit's parser."""

import json
from pathlib import Path

import attrs
import pytest

from linkspan.plugins.dockerfile_builder import instructions as ins
from linkspan.plugins.dockerfile_builder.fault import DockerfileError
from linkspan.plugins.dockerfile_builder.lint import CheckSettings, lint
from linkspan.plugins.dockerfile_builder.stages import parse_dockerfile
from linkspan.plugins.dockerfile_builder.variables import GlobalScope

CASES = json.loads((Path(__file__).parent / "data" / "dockerfile-parse.json").read_text())["cases"]


def command(value):
    words = list(value.words)
    return {"cmdline": words, "shell_form": value.shell_form}


def shown(instruction):
    """An instruction in the shape of the vectors."""
    line = instruction.line
    out = {"instruction": line.keyword, "lines": [line.first_line, line.last_line]}
    match instruction:
        case ins.Run() | ins.Cmd() | ins.Entrypoint():
            out |= command(instruction.command)
            if isinstance(instruction, ins.Entrypoint) and out["cmdline"] == []:
                out["cmdline"] = None
            if line.flags:
                out["flags"] = list(line.flags)
            if line.heredocs:
                out["heredocs"] = [
                    {"name": d.name, "data": d.data, "chomp": d.chomp} for d in line.heredocs
                ]
        case ins.Label() | ins.Env():
            out["pairs"] = [attrs.asdict(pair) for pair in instruction.pairs]
        case ins.Arg():
            out["args"] = [{"key": k, "value": v} for k, v in instruction.args]
        case ins.Copy() | ins.Add():
            out |= {"sources": list(instruction.sources), "dest": instruction.dest}
            if instruction.inline:
                out["inline"] = [
                    {"name": d.name, "data": d.text, "expand": d.expand} for d in instruction.inline
                ]
            for name in ("chown", "chmod", "parents", "link", "exclude", "checksum"):
                if getattr(instruction, name, None):
                    out[name] = getattr(instruction, name)
            if "exclude" in out:
                out["exclude"] = list(out["exclude"])
            if getattr(instruction, "source", ""):
                out["from"] = instruction.source
            if getattr(instruction, "keep_git_dir", False):
                out["keep_git_dir"] = True
            if getattr(instruction, "unpack", None) is not None:
                out["unpack"] = instruction.unpack
        case ins.Expose():
            out["ports"] = list(instruction.ports)
        case ins.Volume():
            out["values"] = list(instruction.paths)
        case ins.User() | ins.StopSignal() | ins.Maintainer():
            out["value"] = instruction.value
        case ins.Workdir():
            out["value"] = instruction.path
        case ins.Shell():
            out["shell"] = list(instruction.shell)
        case ins.Onbuild():
            out["expression"] = instruction.expression
        case ins.Healthcheck():
            out["test"] = list(instruction.test)
            for name in (
                "interval_ns",
                "timeout_ns",
                "start_period_ns",
                "start_interval_ns",
                "retries",
            ):
                if getattr(instruction, name):
                    out[name] = getattr(instruction, name)
    return out


def stage(value):
    out = {"from": value.source.base, "commands": [shown(i) for i in value.instructions]}
    if value.source.name:
        out["name"] = value.source.name
    if value.source.platform:
        out["platform"] = value.source.platform
    return out


def text_of(case):
    return case["dockerfile"].replace("{x*70000}", "x" * 70000)


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_a_dockerfile_is_read_as_buildkit_does(case):
    expected = case["expected"]
    if "error" in expected:
        with pytest.raises(DockerfileError) as caught:
            parse_dockerfile(text_of(case))
        assert caught.value.text == expected["error"]
        return
    parsed = parse_dockerfile(text_of(case))
    assert [stage(value) for value in parsed.stages] == expected["stages"]
    assert [shown(arg) for arg in parsed.global_args] == expected.get("meta_args", [])
    assert parsed.syntax == expected.get("syntax", "")
    assert parsed.check == expected.get("check", "")
    assert parsed.escape == expected.get("escape", "\\")
    found = lint(
        parsed,
        settings=CheckSettings(),
        scope=GlobalScope({}, {}, parsed.global_args),
        environment_of=lambda image: None,
    )
    told = [*parsed.warnings, *(f"{finding.rule}: {finding.message}" for finding in found)]
    for warning in expected.get("warnings", []):
        assert warning in told


def test_an_unknown_instruction_names_file_and_line():
    with pytest.raises(DockerfileError) as caught:
        parse_dockerfile("FROM scratch\n\nCOPPY a b\n", "app/Dockerfile")
    assert str(caught.value) == (
        "app/Dockerfile:3: dockerfile parse error on line 3:"
        " unknown instruction: COPPY (did you mean COPY?)"
    )
    drawn = caught.value.diagnostic("FROM scratch\n\nCOPPY a b\n")
    assert drawn.place == "app/Dockerfile:3:1"
    assert drawn.id == "LS0202"


def test_a_huge_dockerfile_is_refused():
    with pytest.raises(DockerfileError, match="larger than"):
        parse_dockerfile("FROM scratch\n" + "# x\n" * 1_200_000)


def test_deeply_nested_json_is_shell_form():
    parsed = parse_dockerfile("FROM scratch\nCMD " + "[" * 30_000 + "\n")
    assert parsed.stages[0].instructions[0].command.shell_form
