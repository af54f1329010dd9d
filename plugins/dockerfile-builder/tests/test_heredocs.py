"""Inline documents of RUN and COPY."""

from pathlib import Path

import pytest

from linkspan.plugins.dockerfile_builder.fault import DockerfileError


async def run_of(workshop, *lines):
    await workshop.build({"Dockerfile": "\n".join(["FROM scratch", *lines, ""])})
    return workshop.engine.runs[-1]


async def test_a_document_alone_is_given_to_the_shell(workshop):
    run = await run_of(workshop, "RUN <<EOF", "set -e", "# kept", "", "echo $HOME", "EOF")
    assert run.args == ("/bin/sh", "-c", "set -e\n# kept\n\necho $HOME\n")


async def test_the_shell_of_the_stage_gets_it_and_tabs_go(workshop):
    run = await run_of(workshop, 'SHELL ["/bin/ash", "-ec"]', "RUN <<-EOF", "\techo a", "\tEOF")
    assert run.args == ("/bin/ash", "-ec", "echo a\n")


async def test_a_document_among_words_stays_the_shells(workshop):
    run = await run_of(workshop, "RUN cat <<A > /a && cat <<'B' > /b", "one", "A", "two", "B")
    assert run.args[-1] == "cat <<A > /a && cat <<'B' > /b\none\nA\ntwo\nB"


async def test_a_document_with_an_interpreter_is_a_program(workshop):
    seen = {}

    async def runner(run, folder, say):
        (mount,) = run.mounts
        seen.update(target=mount.target, text=mount.source.read_text(), mount=mount)
        seen["mode"] = mount.source.stat().st_mode & 0o777
        return 0

    workshop.engine.runner = runner
    run = await run_of(workshop, "RUN <<PY", "#!/usr/bin/python3", "print(1)", "PY")
    assert run.args == ("/bin/sh", "-c", "/dev/pipes/PY")
    assert seen["target"] == "/dev/pipes/PY"
    assert seen["text"] == "#!/usr/bin/python3\nprint(1)\n"
    assert seen["mode"] == 0o755
    assert seen["mount"].read_only
    assert not seen["mount"].source.exists()


async def test_another_document_is_another_step(workshop):
    for text, cached in (("one", 0), ("one", 1), ("two", 0)):
        result, _ = await workshop.build(
            {"Dockerfile": f"FROM scratch\nRUN <<E\n#!/bin/x\n{text}\nE\n"}
        )
        assert result.cached_steps == cached


async def test_copy_writes_documents_and_expands_variables(workshop):
    text = (
        "FROM scratch\nENV V=7\nCOPY <<one <<'two' f /t/\n"
        'v=$V "q"\none\nv=$V\ntwo\nCOPY --chmod=750 <<E /s\n#!/bin/sh\nE\n'
    )
    await workshop.build({"Dockerfile": text, "f": "F"}, tags=("app",))
    root = Path(workshop.root("app"))
    assert (root / "t/one").read_text() == 'v=7 "q"\n'
    assert (root / "t/two").read_text() == "v=$V\n"
    assert (root / "t/f").read_text() == "F"
    assert (root / "s").stat().st_mode & 0o777 == 0o750
    again, _ = await workshop.build({"Dockerfile": text, "f": "F"})
    assert again.cached_steps == 2


async def test_triggers_bring_their_documents(workshop):
    await workshop.build(
        {"Dockerfile": "FROM scratch\nONBUILD RUN <<E\necho x\nE\nONBUILD COPY <<F /f\nhi\nF\n"},
        tags=("base",),
    )
    await workshop.build({"Dockerfile": "FROM base\nLABEL a=b\n"}, tags=("app",))
    assert workshop.engine.runs[-1].args[-1] == "echo x\n"
    assert Path(workshop.root("app"), "f").read_text() == "hi\n"


async def test_an_unclosed_document_of_a_trigger_is_a_fault_of_from(workshop):
    config = (
        b'{"architecture":"amd64","os":"linux","config":{"OnBuild":["RUN <<E\\nx"]},'
        b'"rootfs":{"type":"layers","diff_ids":[]}}'
    )
    image = workshop.engine.images.put(config, ())
    workshop.engine.images.tags["base:latest"] = image.id
    with pytest.raises(DockerfileError, match="Dockerfile:1: unterminated heredoc"):
        await workshop.build({"Dockerfile": "FROM base\n"})
