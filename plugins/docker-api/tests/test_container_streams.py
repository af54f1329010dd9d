import struct

import pytest
import trio
import trio.testing

from linkspan.sdk.model.process import StreamKind


def frames(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        stream, size = struct.unpack(">BxxxI", data[:8])
        found.append((stream, data[8 : 8 + size]))
        data = data[8 + size :]
    return found


def joined(data: bytes) -> dict[int, bytes]:
    out: dict[int, bytes] = {}
    for stream, part in frames(data):
        out[stream] = out.get(stream, b"") + part
    return out


async def test_who_attaches_before_the_start_gets_the_first_byte(api) -> None:
    await api.create("sh", "-c", "echo out; echo err >&2")
    duplex, ended, hijack = await api.take_over(
        "POST", "/containers/web/attach?stream=1&stdout=1&stderr=1"
    )
    assert hijack.content_type == "application/vnd.docker.multiplexed-stream"
    await api.ask("POST", "/containers/web/start")
    await ended.wait()
    assert joined(duplex.output) == {1: b"out\n", 2: b"err\n"}


async def test_only_the_wanted_streams_are_sent(api) -> None:
    await api.create("sh", "-c", "echo out; echo err >&2")
    duplex, ended, _ = await api.take_over("POST", "/containers/web/attach?stream=1&stderr=1")
    await api.ask("POST", "/containers/web/start")
    await ended.wait()
    assert joined(duplex.output) == {2: b"err\n"}


async def test_input_reaches_the_process_and_its_end_too(api) -> None:
    await api.create("cat", OpenStdin=True, StdinOnce=True)
    duplex, ended, _ = await api.take_over(
        "POST", "/containers/web/attach?stream=1&stdin=1&stdout=1"
    )
    await api.ask("POST", "/containers/web/start")
    duplex.type(b"hello")
    await duplex.until(b"hello")
    duplex.end_input()
    await ended.wait()


async def test_a_terminal_is_raw_and_detach_keys_leave_it_running(api) -> None:
    await api.create("cat", Tty=True, OpenStdin=True)
    duplex, ended, hijack = await api.take_over(
        "POST", "/containers/web/attach?stream=1&stdin=1&stdout=1"
    )
    assert hijack.content_type == "application/vnd.docker.raw-stream"
    await api.ask("POST", "/containers/web/start")
    assert (await api.ask("POST", "/containers/web/resize?h=24&w=80")).status == 200
    duplex.type(b"a\x10b\x10")
    await duplex.until(b"a\x10b")
    duplex.type(b"\x11")
    await ended.wait()
    assert (await api.ask("GET", "/containers/web/json")).json["State"]["Running"] is True


async def test_other_detach_keys_may_be_chosen(api) -> None:
    await api.create("cat", Tty=True, OpenStdin=True)
    duplex, ended, _ = await api.take_over(
        "POST", "/containers/web/attach?stream=1&stdin=1&stdout=1&detachKeys=ctrl-x,q"
    )
    await api.ask("POST", "/containers/web/start")
    duplex.type(b"\x18q")
    await ended.wait()
    assert (await api.ask("POST", "/containers/web/attach?detachKeys=ctrl-")).status == 400


async def test_attach_to_nobody_is_404_and_to_a_paused_one_409(api) -> None:
    assert (await api.ask("POST", "/containers/nobody/attach?stream=1")).status == 404
    await api.start("sleep", "99")
    await api.ask("POST", "/containers/web/pause")
    assert (await api.ask("POST", "/containers/web/attach?stream=1&stdout=1")).status == 409


async def test_a_client_that_leaves_before_the_start_does_not_hold_it_up(api) -> None:
    await api.create("sleep", "99")
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(api.ask, "POST", "/containers/web/attach?stream=1&stdout=1")
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    with trio.fail_after(20):
        assert (await api.ask("POST", "/containers/web/start")).status == 204


async def test_old_clients_know_one_content_type(api) -> None:
    await api.create("true")
    answer = await api.answer("POST", "/v1.41/containers/web/attach?stream=1&stdout=1")
    assert answer.content_type == "application/vnd.docker.raw-stream"


async def test_attach_with_logs_and_no_stream_replays(api) -> None:
    await api.start("sh", "-c", "echo a; echo b >&2")
    await api.ask("POST", "/containers/web/wait")
    reply = await api.ask("POST", "/containers/web/attach?logs=1&stdout=1&stderr=1")
    assert joined(reply.body) == {1: b"a\n", 2: b"b\n"}


# Logs


async def test_logs_need_a_stream(api) -> None:
    await api.create("true")
    reply = await api.ask("GET", "/containers/web/logs")
    assert (reply.status, reply.message) == (
        400,
        "Bad parameters: you must choose at least one stream",
    )


async def test_logs_with_times_tail_and_details(api) -> None:
    await api.start("sh", "-c", "echo a; echo b; echo c >&2")
    await api.ask("POST", "/containers/web/wait")
    url = "/containers/web/logs?stdout=1&stderr=1"
    assert joined((await api.ask("GET", url)).body) == {1: b"a\nb\n", 2: b"c\n"}
    assert joined((await api.ask("GET", url + "&tail=1")).body) == {2: b"c\n"}
    assert joined((await api.ask("GET", url + "&tail=0")).body) == {}
    timed = joined((await api.ask("GET", url + "&timestamps=1&tail=1")).body)[2]
    moment, _, text = timed.partition(b" ")
    assert moment.endswith(b"Z")
    assert len(moment) == 30
    assert text == b"c\n"
    assert joined((await api.ask("GET", url + "&details=1&tail=1")).body) == {2: b" c\n"}


async def test_details_are_the_labels_and_variables_that_the_log_names(api) -> None:
    await api.start(
        "sh",
        "-c",
        "echo a",
        Labels={"tier": "front"},
        Env=["ROLE=db"],
        HostConfig={
            "LogConfig": {"Type": "json-file", "Config": {"labels": "tier,no", "env": "ROLE"}}
        },
    )
    await api.ask("POST", "/containers/web/wait")
    reply = await api.ask("GET", "/containers/web/logs?stdout=1&details=1")
    assert joined(reply.body) == {1: b"ROLE=db,tier=front a\n"}


async def test_details_have_the_tag_of_the_log(api) -> None:
    tag = '{{.Name}}/{{.ImageName | upper}} {{index .ContainerLabels "tier"}}'
    config = {"Type": "json-file", "Config": {"tag": tag}}
    await api.start(
        "sh", "-c", "echo a", Labels={"tier": "front"}, HostConfig={"LogConfig": config}
    )
    await api.ask("POST", "/containers/web/wait")
    reply = await api.ask("GET", "/containers/web/logs?stdout=1&details=1")
    (line,) = joined(reply.body).values()
    assert line.startswith(b"tag=web%2F")
    assert line.endswith(b"+front a\n")


async def test_logs_of_a_terminal_are_raw(api) -> None:
    await api.start("sh", "-c", "echo a", Tty=True)
    await api.ask("POST", "/containers/web/wait")
    reply = await api.ask("GET", "/containers/web/logs?stdout=1")
    assert reply.body == b"a\r\n"
    assert reply.headers["Content-Type"] == "application/vnd.docker.raw-stream"


async def test_a_follower_gets_each_line_as_it_comes_and_the_end(api) -> None:
    await api.start("cat", OpenStdin=True, StdinOnce=True)
    writer = await api.watch("GET", "/containers/web/logs?stdout=1&follow=1")
    duplex, ended, _ = await api.take_over(
        "POST", "/containers/web/attach?stream=1&stdin=1&stdout=1"
    )
    duplex.type(b"one\n")
    await writer.until(b"one\n")
    duplex.type(b"two\n")
    await writer.until(b"two\n")
    assert joined(writer.data) == {1: b"one\ntwo\n"}
    duplex.end_input()
    await ended.wait()


async def test_logs_of_a_container_that_never_ran_are_empty(api) -> None:
    await api.create("true")
    assert (await api.ask("GET", "/containers/web/logs?stdout=1")).body == b""


@pytest.mark.parametrize("bad", ["since=yesterday", "until=x"])
async def test_a_wrong_time_is_400(api, bad) -> None:
    await api.create("true")
    assert (await api.ask("GET", f"/containers/web/logs?stdout=1&{bad}")).status == 400


# Exec


async def run_exec(api, *command, start=None, **fields):
    body = {"Cmd": list(command), "AttachStdout": True, "AttachStderr": True, **fields}
    made = await api.ask("POST", "/containers/web/exec", body)
    assert made.status == 201, made.body
    session = made.json["Id"]
    return session, await api.ask("POST", f"/exec/{session}/start", start or {})


async def test_exec_gives_output_and_exit_code(api) -> None:
    await api.start("sleep", "99")
    session, reply = await run_exec(api, "sh", "-c", "echo a; echo b >&2; exit 4")
    assert joined(reply.body) == {1: b"a\n", 2: b"b\n"}
    seen = (await api.ask("GET", f"/exec/{session}/json")).json
    assert (seen["Running"], seen["ExitCode"]) == (False, 4)
    assert seen["ProcessConfig"]["entrypoint"] == "sh"


async def test_frames_of_an_exec_go_by_what_its_start_says(api) -> None:
    await api.start("sleep", "99")
    _, reply = await run_exec(api, "echo", "a", Tty=True)
    assert [stream for stream, _ in frames(reply.body)] == [StreamKind.STDOUT]
    _, reply = await run_exec(api, "echo", "a", start={"Tty": True})
    assert reply.body == b"a\n"


async def test_a_detached_exec_goes_on_alone(api) -> None:
    await api.start("sleep", "99")
    session, reply = await run_exec(api, "sleep", "99", start={"Detach": True})
    assert (reply.status, reply.body) == (200, b"")
    seen = (await api.ask("GET", f"/exec/{session}/json")).json
    assert (seen["Running"], seen["ExitCode"]) == (True, None)
    assert seen["Pid"] > 0


async def test_an_exec_outlives_a_client_that_detaches(api) -> None:
    await api.start("sleep", "99")
    body = {"Cmd": ["sleep", "99"], "AttachStdout": True, "AttachStdin": True, "Tty": True}
    session = (await api.ask("POST", "/containers/web/exec", body)).json["Id"]
    duplex, ended, _ = await api.take_over("POST", f"/exec/{session}/start", {"Tty": True})
    assert (await api.ask("POST", f"/exec/{session}/resize?h=10&w=20")).status == 200
    duplex.type(b"\x10\x11")
    await ended.wait()
    assert (await api.ask("GET", f"/exec/{session}/json")).json["Running"] is True


async def test_a_program_on_a_terminal_goes_on_when_its_client_hangs_up(api) -> None:
    await api.start("sleep", "99")
    body = {"Cmd": ["cat"], "AttachStdout": True, "AttachStdin": True, "Tty": True}
    session = (await api.ask("POST", "/containers/web/exec", body)).json["Id"]
    duplex, ended, _ = await api.take_over("POST", f"/exec/{session}/start", {"Tty": True})
    duplex.end_input()
    await ended.wait()
    assert (await api.ask("GET", f"/exec/{session}/json")).json["Running"] is True


async def test_a_program_that_is_not_there_is_told_in_the_stream(api) -> None:
    await api.start("sleep", "99")
    session, reply = await run_exec(api, "nonsense")
    ((stream, text),) = frames(reply.body)
    assert stream == StreamKind.STDOUT
    assert b'exec: "nonsense": executable file not found in $PATH\r\n' in text
    assert (await api.ask("GET", f"/exec/{session}/json")).json["ExitCode"] == 127


async def test_a_detached_exec_of_a_program_that_is_not_there_is_400(api) -> None:
    await api.start("sleep", "99")
    session, reply = await run_exec(api, "nonsense", start={"Detach": True})
    assert reply.status == 400
    assert 'exec: "nonsense": executable file not found in $PATH' in reply.message
    assert (await api.ask("GET", f"/exec/{session}/json")).json["ExitCode"] == 127


async def test_a_session_runs_once(api) -> None:
    await api.start("sleep", "99")
    session, _ = await run_exec(api, "true")
    assert (await api.ask("POST", f"/exec/{session}/start", {})).status == 409
    assert (await api.ask("POST", "/exec/nobody/start", {})).status == 404


async def test_exec_needs_a_command_and_a_running_container(api) -> None:
    await api.create("sleep", "99")
    reply = await api.ask("POST", "/containers/web/exec", {"Cmd": []})
    assert (reply.status, reply.message) == (400, "No exec command specified")
    assert (await api.ask("POST", "/containers/web/exec", {"Cmd": ["true"]})).status == 409
