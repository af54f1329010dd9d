"""Whole builds with stand-ins for snapshots, images and RUN."""

import errno
import json

import pytest
import trio
from dockerfiles import dockerfile

from linkspan.plugins.dockerfile_builder import copying
from linkspan.plugins.dockerfile_builder.fault import DockerfileError
from linkspan.sdk.errors import (
    InvalidArgument,
    LinkspanError,
    NotFound,
    OutOfSpace,
    Unsupported,
)
from linkspan.sdk.model.container import Resources
from linkspan.sdk.model.image import Credentials
from linkspan.sdk.model.process import StreamKind

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


async def config_of(workshop, *lines, **request):
    result, _ = await workshop.build(dockerfile(*lines), **request)
    return workshop.image(result.image_id).config.raw["config"]


async def history_of(workshop, *lines, **request):
    result, _ = await workshop.build(dockerfile(*lines, a="A"), **request)
    return [entry["created_by"] for entry in workshop.image(result.image_id).config.raw["history"]]


# Image config


async def test_instructions_end_up_in_the_config(workshop):
    config = await config_of(
        workshop,
        "FROM scratch",
        'ENV A=1 B="two words"',
        "LABEL x=y",
        "EXPOSE 8080 53/udp 90-91",
        "VOLUME /data",
        "USER app:grp",
        "STOPSIGNAL SIGQUIT",
        'SHELL ["/bin/bash", "-c"]',
        "HEALTHCHECK --interval=5s --retries=2 CMD curl x",
        "CMD run it",
        "ONBUILD RUN echo later",
    )
    assert config == {
        "Env": [PATH, "A=1", "B=two words"],
        "Labels": {"x": "y"},
        "ExposedPorts": {"8080/tcp": {}, "53/udp": {}, "90/tcp": {}, "91/tcp": {}},
        "Volumes": {"/data": {}},
        "User": "app:grp",
        "StopSignal": "SIGQUIT",
        "Shell": ["/bin/bash", "-c"],
        "Healthcheck": {
            "Test": ["CMD-SHELL", "curl x"],
            "Interval": 5_000_000_000,
            "Retries": 2,
        },
        "Cmd": ["/bin/bash", "-c", "run it"],
        "WorkingDir": "/",
        "OnBuild": ["RUN echo later"],
    }


@pytest.mark.parametrize(
    ("lines", "command", "entrypoint"),
    [
        ([], ["base"], ["bep"]),
        (['CMD ["c"]'], ["c"], ["bep"]),
        (['ENTRYPOINT ["n"]'], None, ["n"]),
        (['ENTRYPOINT ["n"]', 'CMD ["c"]'], ["c"], ["n"]),
        (['CMD ["c"]', 'ENTRYPOINT ["n"]'], ["c"], ["n"]),
        (["ENTRYPOINT []"], None, None),
        (["CMD []"], [], ["bep"]),
        (["CMD"], ["/bin/sh", "-c", ""], ["bep"]),
        (["ENTRYPOINT"], None, ["/bin/sh", "-c", ""]),
    ],
)
async def test_command_and_entrypoint_depend_on_each_other(workshop, lines, command, entrypoint):
    await workshop.build(
        dockerfile("FROM scratch", 'ENTRYPOINT ["bep"]', 'CMD ["base"]'), tags=("base",)
    )
    config = await config_of(workshop, "FROM base", *lines)
    assert (config.get("Cmd"), config.get("Entrypoint")) == (command, entrypoint)


async def test_history_tells_what_was_done(workshop):
    history = await history_of(
        workshop,
        "FROM scratch",
        "ARG P=1",
        "ENV A=$P",
        "WORKDIR /w",
        "RUN echo $A",
        'RUN ["x", "y"]',
        "COPY a b/",
        "EXPOSE 80",
        'CMD ["a", "b c"]',
        "MAINTAINER Me",
    )
    assert history == [
        "ARG P=1",
        "ENV A=1",
        "WORKDIR /w",
        "RUN |1 P=1 /bin/sh -c echo $A",
        "RUN |1 P=1 x y",
        "COPY a b/",
        "EXPOSE [80/tcp]",
        'CMD ["a" "b c"]',
        "MAINTAINER Me",
    ]


async def test_layers_and_history_fit_together(workshop):
    result, _ = await workshop.build(
        dockerfile("FROM scratch", "ENV A=1", "COPY a /a", "LABEL x=y", a="A")
    )
    image = workshop.image(result.image_id)
    raw = image.config.raw
    assert raw["rootfs"] == {"type": "layers", "diff_ids": list(image.config.diff_ids)}
    assert [entry.get("empty_layer", False) for entry in raw["history"]] == [True, False, True]
    assert len(raw["rootfs"]["diff_ids"]) == len(image.chain_ids) == 1
    assert {entry["created"] for entry in raw["history"]} == {raw["created"]}


async def test_source_date_epoch_fixes_the_times(workshop):
    result, _ = await workshop.build(
        dockerfile("FROM scratch", "COPY a /a", a="A"), args={"SOURCE_DATE_EPOCH": "1000000000"}
    )
    raw = workshop.image(result.image_id).config.raw
    assert raw["created"] == raw["history"][0]["created"] == "2001-09-09T01:46:40Z"
    error = await workshop.fails(
        "FROM scratch", error=InvalidArgument, args={"SOURCE_DATE_EPOCH": "x"}
    )
    assert "SOURCE_DATE_EPOCH" in str(error)


async def test_unknown_keys_of_the_base_survive(workshop):
    document = {
        "architecture": "amd64",
        "os": "linux",
        "docker_version": "20.10",
        "vendor": {"a": 1},
        "config": {"Env": ["X=1"], "Vendor": True},
        "rootfs": {"type": "layers", "diff_ids": []},
    }
    image = workshop.engine.images.put(json.dumps(document).encode(), ())
    workshop.engine.images.tags["base:latest"] = image.id
    result, _ = await workshop.build(dockerfile("FROM base", "ENV Y=2"))
    raw = workshop.image(result.image_id).config.raw
    assert raw["vendor"] == {"a": 1}
    assert raw["config"]["Vendor"] is True
    assert "docker_version" not in raw
    assert raw["config"]["Env"] == ["X=1", PATH, "Y=2"]


# Variables


async def test_an_instruction_sees_the_environment_before_it(workshop):
    config = await config_of(workshop, "FROM scratch", "ENV A=1", "ENV A=2 B=$A")
    assert config["Env"] == [PATH, "A=2", "B=1"]


async def test_args_have_their_scopes(workshop):
    config = await config_of(
        workshop,
        "ARG V=global",
        "ARG W=gw",
        "FROM scratch AS one",
        "ARG V",
        "ENV ONE=$V,$W",
        "FROM scratch",
        "ARG V=local",
        "ARG W",
        "ARG X",
        "ENV V=$V W=$W X=${X-unset}",
        args={"W": "given", "X": None},
    )
    assert config["Env"] == [PATH, "V=local", "W=given", "X=unset"]


async def test_a_stage_inherits_args_of_the_stage_it_stands_on(workshop):
    config = await config_of(workshop, "FROM scratch AS one", "ARG A=1", "FROM one", "ENV B=$A")
    assert config["Env"] == [PATH, "B=1"]


async def test_the_later_line_wins_in_run_and_the_env_in_the_config(workshop):
    await workshop.build(dockerfile("FROM scratch", "ENV X=env", "ARG X=arg", "RUN echo x"))
    assert "X=arg" in workshop.engine.runs[0].env
    config = await config_of(workshop, "FROM scratch", "ENV X=env", "ARG X=arg", "RUN echo x")
    assert "X=env" in config["Env"]


async def test_platform_args_need_no_value(workshop):
    config = await config_of(
        workshop,
        "FROM scratch",
        "ARG TARGETARCH",
        "ARG TARGETSTAGE",
        "ENV A=$TARGETARCH,$TARGETSTAGE",
    )
    assert config["Env"][1].startswith("A=")
    assert config["Env"][1].endswith(",default")
    assert len(config["Env"][1]) > len("A=,default")


async def test_proxies_reach_run_but_neither_history_nor_cache(workshop):
    first = await history_of(
        workshop, "FROM scratch", "RUN echo x", args={"http_proxy": "http://secret@p"}
    )
    env = dict(entry.split("=", 1) for entry in workshop.engine.runs[0].env)
    assert env["http_proxy"] == env["HTTP_PROXY"] == "http://secret@p"
    assert first == ["RUN /bin/sh -c echo x"]
    again, _ = await workshop.build(
        dockerfile("FROM scratch", "RUN echo x", a="A"), args={"http_proxy": "other"}
    )
    assert again.cached_steps == 1


async def test_unconsumed_build_args_are_told(workshop):
    _, said = await workshop.build(
        dockerfile("FROM scratch", "ARG A"), args={"A": "1", "Z": "2", "B": "3"}
    )
    assert "[Warning] One or more build-args [B Z] were not consumed\n" in said


async def test_from_is_expanded_with_global_args_only(workshop):
    await workshop.build(dockerfile("FROM scratch", "LABEL a=b"), tags=("base:1",))
    config = await config_of(workshop, "ARG TAG=1", "FROM base:${TAG}")
    assert config["Labels"] == {"a": "b"}
    error = await workshop.fails("FROM $NOPE")
    assert error.text == "base name ($NOPE) should not be blank"


# Stages


async def test_only_needed_stages_run(workshop):
    _, said = await workshop.build(
        dockerfile(
            "FROM nowhere/missing AS unused",
            "RUN exit 1",
            "FROM scratch AS used",
            "RUN write /out/f hello",
            "FROM scratch",
            "COPY --from=used /out /in/",
        )
    )
    assert len(workshop.engine.runs) == 1
    assert workshop.engine.images.pulled == []
    assert "Step 1/4 : FROM scratch AS used\n" in said
    assert "unused" not in said


async def test_a_target_leaves_out_what_follows(workshop):
    result, _ = await workshop.build(
        dockerfile("FROM scratch AS one", "LABEL s=1", "FROM scratch", "RUN exit 1"), target="ONE"
    )
    assert workshop.image(result.image_id).config.labels == {"s": "1"}
    assert result.steps == 2
    error = await workshop.fails("FROM scratch", target="nope")
    assert error.text == 'target stage "nope" could not be found'


async def test_independent_stages_run_side_by_side_and_tell_in_order(workshop):
    second_began = trio.Event()

    async def runner(run, folder, say):
        say(f"begin {run.args[-1]}\n")
        if run.args[-1] == "second":
            second_began.set()
        # The first cannot end before the second has begun.
        await second_began.wait()
        say(f"end {run.args[-1]}\n")
        return 0

    workshop.engine.runner = runner
    with trio.fail_after(10):
        _, said = await workshop.build(
            dockerfile(
                "FROM scratch AS one",
                "RUN first",
                "FROM scratch AS two",
                "RUN second",
                "FROM scratch",
                "COPY --from=one / /1/",
                "COPY --from=two / /2/",
            )
        )
    assert said.index("begin first") < said.index("end first") < said.index("begin second")
    assert said.index("Step 2/7 : RUN first") < said.index("Step 3/7 : FROM scratch AS two")


async def test_a_failing_stage_ends_its_siblings(workshop):
    ended = []
    good_began = trio.Event()

    async def runner(run, folder, say):
        if run.args[-1] == "bad":
            await good_began.wait()
            return 7
        good_began.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.append(run.args[-1])

    workshop.engine.runner = runner
    error = await workshop.fails(
        "FROM scratch AS one",
        "RUN good",
        "FROM scratch AS two",
        "RUN bad",
        "FROM scratch",
        "COPY --from=one / /1",
        "COPY --from=two / /2",
        error=LinkspanError,
    )
    assert error.code == "build_failed"
    assert error.message == "The command '/bin/sh -c bad' returned a non-zero code: 7"
    assert ended == ["good"]


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["COPY --from=7 /a /b"], "invalid stage index 7"),
        (["COPY --from=0 /a /b"], "circular dependency detected on stage: one"),
        (
            ["COPY --from=two /a /b", "FROM scratch AS two", "FROM one"],
            'cannot copy from stage "two", it needs to be defined before current stage "one"',
        ),
        (["COPY --from=$X /a /b"], "variable expansion is not supported for --from"),
    ],
)
async def test_a_wrong_source_stage_is_named(workshop, lines, text):
    error = await workshop.fails("FROM scratch AS one", *lines)
    assert error.text.startswith(text)
    assert str(error).startswith("Dockerfile:2: ")


async def test_triggers_of_the_base_run_once(workshop):
    await workshop.build(
        dockerfile("FROM scratch", "ONBUILD COPY a /from-trigger", "ONBUILD LABEL t=1"),
        tags=("base",),
    )
    result, said = await workshop.build(
        dockerfile("FROM base", "LABEL u=2", a="A"), tags=("child",)
    )
    assert "# Executing 2 build triggers\n" in said
    image = workshop.image(result.image_id)
    assert image.config.labels == {"t": "1", "u": "2"}
    assert image.config.on_build == ()
    assert len(image.chain_ids) == 1


async def test_a_trigger_may_need_a_stage_that_nothing_else_needs(workshop):
    await workshop.build(
        dockerfile("FROM scratch", "ONBUILD COPY --from=maker /out /in"), tags=("base",)
    )
    result, said = await workshop.build(
        dockerfile("FROM scratch AS maker", "RUN write /out x", "FROM base", "LABEL a=b")
    )
    assert len(workshop.image(result.image_id).chain_ids) == 1
    assert "RUN write /out x" in said


# Images


async def test_a_missing_base_is_pulled_once_with_the_right_credentials(workshop):
    result, _ = await workshop.build(dockerfile("FROM scratch", "LABEL a=b"))
    config = json.dumps(dict(workshop.image(result.image_id).config.raw)).encode()
    workshop.engine.images.remote["reg.test/base:1"] = (config, ())
    mine = Credentials(username="me", password="pw")
    await workshop.build(
        dockerfile("FROM reg.test/base:1 AS one", "FROM reg.test/base:1", "COPY --from=one / /x"),
        credentials={"reg.test": mine},
    )
    assert workshop.engine.images.pulled == [("reg.test/base:1", mine)]
    await workshop.build(dockerfile("FROM reg.test/base:1"), pull=True)
    assert len(workshop.engine.images.pulled) == 2


async def test_a_base_that_is_nowhere_is_told_and_leaves_nothing(workshop):
    error = await workshop.fails("FROM nowhere", error=NotFound, tags=("app",))
    assert "nowhere" in str(error)
    assert workshop.engine.images.stored == {}


async def test_a_bad_platform_is_named(workshop):
    error = await workshop.fails("FROM --platform=foo scratch")
    assert error.text.startswith("failed to parse platform foo: ")


# RUN


async def test_run_gets_what_the_config_says(workshop):
    await workshop.build(
        dockerfile(
            "FROM scratch",
            "ENV A=1",
            "WORKDIR /w",
            "USER 7:8",
            'SHELL ["/bin/ash", "-ec"]',
            "RUN make",
            'RUN ["cc", "-c"]',
        ),
        extra_hosts=("db:10.0.0.1",),
        network_mode="none",
        resources=Resources(memory_bytes=64 << 20),
    )
    shell, plain = workshop.engine.runs
    assert shell.args == ("/bin/ash", "-ec", "make")
    assert plain.args == ("cc", "-c")
    assert (shell.cwd, shell.user, shell.network_mode) == ("/w", "7:8", "none")
    assert shell.extra_hosts == ("db:10.0.0.1",)
    assert shell.resources.memory_bytes == 64 << 20
    assert "A=1" in shell.env


async def test_errors_are_told_in_red_and_cut_characters_are_whole(workshop):
    async def runner(run, folder, say):
        say(b"caf\xc3")
        say(b"\xa9\n")
        say("bad\n", StreamKind.STDERR)
        say(b"\xff")
        return 0

    workshop.engine.runner = runner
    _, said = await workshop.build(dockerfile("FROM scratch", "RUN x"))
    assert "café\n\x1b[91mbad\n\x1b[0m\N{REPLACEMENT CHARACTER}" in said


async def test_an_empty_command_is_refused(workshop):
    assert (
        "RUN requires at least one argument"
        in (await workshop.fails("FROM scratch", "RUN []")).text
    )


async def test_a_cancelled_command_leaves_nothing(workshop):
    gate = workshop.gate()
    async with trio.open_nursery() as nursery:

        async def build():
            await workshop.build(
                dockerfile("FROM scratch", "COPY a /a", "RUN x", a="A"), tags=("app",)
            )

        nursery.start_soon(build)
        await gate.began.wait()
        nursery.cancel_scope.cancel()
    assert workshop.engine.images.stored == {}
    assert len(await workshop.driver.cached_layers()) == 1


# The stream


async def test_the_stream_reads_as_dockers(workshop):
    result, said = await workshop.build(
        dockerfile("ARG V=1", "FROM scratch", "COPY a /a", "RUN echo hi", "ENV X=1", a="A"),
        tags=("name", "other:2"),
    )
    lines = said.splitlines()
    ids = [line for line in lines if line.startswith(" ---> ") and len(line) == 18]
    short = result.image_id[7:19]
    assert ids[-1] == f" ---> {short}"
    assert lines[:4] == [
        "Step 1/5 : ARG V=1",
        "Step 2/5 : FROM scratch",
        " ---> ",
        "Step 3/5 : COPY a /a",
    ]
    assert workshop.aux == [{"ID": result.image_id}]
    running = next(line for line in lines if "Running in" in line)
    at = lines.index(running)
    assert lines[at + 1] == "hi"
    assert lines[at + 2] == running.replace("Running in", "Removed intermediate container")
    assert lines[-3:] == [
        f"Successfully built {short}",
        "Successfully tagged name:latest",
        "Successfully tagged other:2",
    ]


async def test_a_quiet_build_tells_all_when_it_fails(workshop):
    with pytest.raises(LinkspanError):
        await workshop.build(dockerfile("FROM scratch", "RUN exit 3"), quiet=True)
    assert "Step 2/2 : RUN exit 3" in workshop.said


async def test_a_fault_in_a_step_is_drawn(workshop):
    await workshop.fails("FROM scratch", "LABEL a=b", "COPY ../x /x")
    assert workshop.said.endswith(
        """\
error[LS0203]: COPY failed: forbidden path outside the build context: ../x ()
 --> Dockerfile:3:1
  |
3 | COPY ../x /x
  | ^^^^^^^^^^^^
"""
    )


async def test_a_fault_before_the_first_step_is_told_by_the_error_alone(workshop):
    await workshop.fails("FROM scratch", "NOPE")
    assert workshop.said == ""


# Faults


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["STOPSIGNAL FOO"], "invalid signal: FOO"),
        (["EXPOSE x"], "Invalid containerPort: x"),
        (["EXPOSE 70000"], "Invalid containerPort: 70000"),
        (["ENV A=${X:?gone}"], 'failed to process "${X:?gone}": X: gone'),
        (
            ["COPY --chmod=9 a /a"],
            "invalid chmod parameter: '9'. it should be octal string and between 0 and 07777",
        ),
        (["COPY ../x /x"], "COPY failed: forbidden path outside the build context: ../x ()"),
        (["ADD https://e.test/x.git#-x /x"], "invalid git ref '-x' in https://e.test/x.git#-x"),
        (
            ["RUN --device=x y"],
            "dockerfile parse error on line 2: RUN --device is not supported",
        ),
        (["COPY <<E /x", "hi"], "unterminated heredoc"),
    ],
)
async def test_a_fault_is_told_with_its_place(workshop, lines, text):
    error = await workshop.fails("FROM scratch", *lines)
    assert error.text == text
    assert str(error) == f"Dockerfile:2: {text}"
    assert error.details["line"] == 2


async def test_an_empty_file_and_a_foreign_frontend_are_refused(workshop):
    with pytest.raises(DockerfileError, match="cannot be empty"):
        await workshop.build({"Dockerfile": ""})
    error = await workshop.fails("# syntax=acme/frontend:2", "FROM scratch")
    assert "acme/frontend:2" in str(error)
    await workshop.build(dockerfile("# syntax=docker/dockerfile:1.7", "FROM scratch", "LABEL a=b"))


async def test_lint_may_be_made_an_error(workshop):
    error = await workshop.fails("# check=error=true", "FROM scratch as One")
    assert error.text == "lint violation found for rules: FromAsCasing, StageNameCasing"
    await workshop.build(
        dockerfile(
            "# check=skip=FromAsCasing,StageNameCasing;error=true",
            "FROM scratch as One",
            "LABEL a=b",
        )
    )


async def test_squash_is_refused(workshop):
    with pytest.raises(Unsupported, match="squash"):
        await workshop.build(dockerfile("FROM scratch"), squash=True)


async def test_a_full_disk_is_told_as_such(workshop, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(copying, "copy_data", full)
    error = await workshop.fails("FROM scratch", "COPY a /a", error=OutOfSpace, tags=("app",))
    assert "no space left" in str(error)
    assert workshop.engine.images.stored == {}
    assert await workshop.snapshots.layers() == []
