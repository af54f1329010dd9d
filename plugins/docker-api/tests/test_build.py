import base64
import io
import json
import tarfile
from urllib.parse import quote

import pytest

from linkspan.sdk.drivers.builder import CacheExport, CacheImport
from linkspan.sdk.model.container import Resources, Ulimit
from linkspan.sdk.model.image import Credentials
from linkspan.sdk.testing.fakes.builder import FakeBuilder


def context(**files: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


@pytest.fixture
def builder(api) -> FakeBuilder:
    found = FakeBuilder(host=api.host)
    api.host.drivers["builder", ""] = found
    return found


async def test_a_build_streams_what_the_builder_says(api, builder) -> None:
    body = context(Dockerfile="FROM scratch\nLABEL a=1\n")
    reply = await api.ask("POST", "/build?t=made:1&t=made:2", body)
    assert reply.lines[0] == {"stream": "Step 1/2 : FROM scratch\n"}
    assert reply.lines[-1] == {"stream": "Successfully tagged made:2\n"}
    assert (await api.ask("GET", "/images/made:2/json")).json["Config"]["Labels"] == {"a": "1"}


async def test_all_parameters_reach_the_builder(api, builder) -> None:
    config = {
        "https://index.docker.io/v1/": {"username": "u", "password": "p"},
        "h:5000": {"auth": base64.b64encode(b"a:b:c").decode()},
    }
    header = base64.urlsafe_b64encode(json.dumps(config).encode()).decode()
    await api.ask(
        "POST",
        "/build?dockerfile=Other&target=one&nocache=1&pull=1&q=1&platform=linux/amd64&networkmode=none"
        f"&buildargs={quote(json.dumps({'A': '1', 'B': None}))}&labels={quote(json.dumps({'l': 'x'}))}"
        "&memswap=-1&cpushares=512&cpuperiod=100000&cpuquota=50000&cpusetcpus=0&cpusetmems=0"
        "&cgroupparent=/mine"
        f"&ulimits={quote(json.dumps([{'Name': 'nofile', 'Soft': 10, 'Hard': 20}]))}"
        "&extrahosts=a:1.2.3.4&extrahosts=b:5.6.7.8,c:9.9.9.9&memory=1000&shmsize=2000&rm=1&version=1&cachefrom=[%22c:1%22]&outputs=null",
        context(Other="FROM scratch AS one\n"),
        **{"X-Registry-Config": header},
    )
    (asked,) = builder.builds
    assert (asked.file, asked.target, asked.platform) == ("Other", "one", "linux/amd64")
    assert (asked.no_cache, asked.pull, asked.quiet) == (True, True, True)
    assert asked.args == {"A": "1", "B": None}
    assert asked.labels == {"l": "x"}
    assert (asked.cache_from, asked.cache_from_only) == ((CacheImport(reference="c:1"),), True)
    assert asked.network_mode == "none"
    assert asked.extra_hosts == ("a:1.2.3.4", "b:5.6.7.8", "c:9.9.9.9")
    assert (asked.resources.memory_bytes, asked.shm_size_bytes) == (1000, 2000)
    assert asked.resources == Resources(
        memory_bytes=1000,
        memory_swap_bytes=-1,
        cpu_shares=512,
        cpu_period_us=100000,
        cpu_quota_us=50000,
        cpuset_cpus="0",
        cpuset_mems="0",
        cgroup_parent="/mine",
        ulimits=(Ulimit(name="nofile", soft=10, hard=20),),
    )
    assert asked.credentials == {
        "docker.io": Credentials(username="u", password="p"),
        "h:5000": Credentials(username="a", password="b:c"),
    }


async def test_an_error_before_the_first_line_is_an_http_error(api, builder) -> None:
    reply = await api.ask("POST", "/build", context(Other="x"))
    assert (reply.status, reply.message) == (400, "Cannot locate specified Dockerfile: Dockerfile")


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("version=2", 400),
        ("version=3", 400),
        ("squash=1", 501),
        ('outputs=[{"Type":"local"}]', 501),
        ("buildargs={", 400),
        ("buildargs=[]", 400),
        ('labels={"a":null}', 400),
        ("memory=much", 400),
        ("cachefrom=[1]", 400),
        ("ulimits={}", 400),
        ('ulimits=[{"Name":"nofile","Soft":2,"Hard":1}]', 400),
    ],
)
async def test_what_is_wrong_or_not_there_is_refused(api, builder, query, status) -> None:
    assert (await api.ask("POST", f"/build?{query}", context(Dockerfile=""))).status == status
    assert builder.builds == []


def parcel(document: object, tar: bytes) -> bytes:
    text = json.dumps(document).encode()
    return b"%d\n%s%s" % (len(text), text, tar)


PARCEL = {"Content-Type": "application/vnd.linkspan.build"}


async def test_secrets_and_contexts_come_in_a_parcel(api, builder, tmp_path) -> None:
    info = tmp_path.stat()
    here = {"folder": str(tmp_path), "folderid": f"{info.st_dev}:{info.st_ino}"}
    document = {
        "secrets": {"tok": base64.b64encode(b"hunter2").decode()},
        "contexts": [{"name": "lib", **here}, {"name": "base", "image": "b:1"}],
        "no_cache_filter": ["test"],
        "cache_from": [{"reference": "c:1", "fresh": True}],
        "cache_to": [{"reference": "c:2", "every_stage": True, "push": True}],
    }
    body = parcel(document, context(Dockerfile="FROM scratch\n"))
    reply = await api.ask("POST", "/linkspan/v1/build?t=x", body, **PARCEL)
    assert reply.lines[-1] == {"stream": "Successfully tagged x:latest\n"}
    (asked,) = builder.builds
    assert asked.secrets == {"tok": b"hunter2"}
    assert asked.contexts == {"lib": tmp_path, "base": "b:1"}
    assert asked.no_cache_stages == ("test",)
    assert asked.cache_from == (CacheImport(reference="c:1", fresh=True),)
    assert not asked.cache_from_only
    assert asked.cache_to == (CacheExport(reference="c:2", every_stage=True, push=True),)
    assert "hunter2" not in repr(asked)


async def test_a_check_answers_with_what_was_found(api, builder) -> None:
    body = context(Dockerfile="FROM scratch\nlabel a=1\n")
    reply = await api.ask("POST", "/linkspan/v1/build?check=1", body)
    (found,) = reply.json["warnings"]
    assert (found["id"], found["severity"], found["line"]) == ("LS0205", "warning", 2)
    assert found["text"].startswith("warning[LS0205]: ConsistentInstructionCasing")
    assert builder.builds == []


async def test_a_remote_context_is_handed_on(api, builder) -> None:
    await api.ask("POST", "/build?remote=https://example.test/x.git%23v1", b"")
    assert builder.builds[0].remote == "https://example.test/x.git#v1"


async def test_details_are_asked_for_at_our_own_address_only(api, builder) -> None:
    body = context(Dockerfile="FROM scratch\n")
    await api.ask("POST", "/build?details=1", body)
    await api.ask("POST", "/linkspan/v1/build?details=1", body)
    assert [asked.details for asked in builder.builds] == [False, True]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"x\n{}", 400),
        (b"99\n{}", 400),
        (b"99999999999\n{}", 400),
        (b"2\n[]", 400),
        (b"3\n{x}", 400),
        (parcel({"secrets": {"a": "?"}}, b""), 400),
        (parcel({"contexts": [{"name": "a", "folder": "/", "folderid": "0:0"}]}, b""), 404),
        (parcel({"contexts": [{"name": "a"}]}, b""), 404),
    ],
)
async def test_a_bad_parcel_is_refused(api, builder, body, status) -> None:
    assert (await api.ask("POST", "/linkspan/v1/build", body, **PARCEL)).status == status
    assert builder.builds == []


async def test_the_cache_is_pruned_also_where_there_is_none(api) -> None:
    empty = {"CachesDeleted": None, "SpaceReclaimed": 0}
    assert (await api.ask("POST", "/build/prune")).json == empty
    assert (await api.ask("GET", "/system/df?type=build-cache")).json["BuildCache"] == []
    api.host.drivers["builder", ""] = FakeBuilder(host=api.host)
    assert (await api.ask("POST", "/build/prune")).json == empty


@pytest.fixture
def filled(builder) -> FakeBuilder:
    builder.steps.update({"aa1", "aa2", "bb1"})
    return builder


async def test_the_cache_is_a_row_of_disk_usage(api, filled) -> None:
    rows = (await api.ask("GET", "/system/df?type=build-cache")).json["BuildCache"]
    assert [(row["ID"], row["Type"], row["Size"]) for row in rows] == [
        ("aa1", "regular", 1),
        ("aa2", "regular", 1),
        ("bb1", "regular", 1),
    ]


@pytest.mark.parametrize(
    ("query", "gone"),
    [
        ("", ["aa1", "aa2", "bb1"]),
        ('filters={"id":["aa"]}', ["aa1", "aa2"]),
        ('filters={"type":["exec.cachemount"]}', None),
        ('filters={"inuse":["true"]}', None),
        ('filters={"shared":["false"]}', ["aa1", "aa2", "bb1"]),
        ("keep-storage=2", ["aa1"]),
        ("reserved-space=3", None),
        ("max-used-space=1", ["aa1", "aa2"]),
    ],
)
async def test_prune_takes_dockers_filters_and_limits(api, filled, query, gone) -> None:
    answer = (await api.ask("POST", f"/build/prune?{query}")).json
    assert answer == {"CachesDeleted": gone, "SpaceReclaimed": len(gone or ())}


@pytest.mark.parametrize(
    "query",
    [
        'filters={"what":["x"]}',
        'filters={"until":["x"]}',
        "keep-storage=x",
        'filters={"inuse":["x"]}',
    ],
)
async def test_a_bad_filter_prunes_nothing(api, filled, query) -> None:
    assert (await api.ask("POST", f"/build/prune?{query}")).status == 400
    assert len(filled.steps) == 3
