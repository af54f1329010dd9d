"""What is kept with a built image, and sent along when it is pushed."""

import json
import re

import pytest

from linkspan.plugins.standard_steps.attestations import artifacts_of, refer
from linkspan.plugins.standard_steps.build import BuildStep
from linkspan.plugins.standard_steps.provenance import IN_TOTO, PREDICATE
from linkspan.plugins.standard_steps.push import PushStep
from linkspan.plugins.standard_steps.spdx import SPDX, package_url, sbom
from linkspan.sdk.drivers.builder import BaseImage, BuilderCap, BuildResult
from linkspan.sdk.errors import NotFound, Unsupported
from linkspan.sdk.model.image import Attachment, Credentials, Descriptor, Package, Platform
from linkspan.sdk.reference import parse_reference
from linkspan.sdk.testing.fakes.registry import FakeRegistry

MADE = f"sha256:{'ab' * 32}"
LIBC = Package(
    kind="deb",
    name="libc6",
    version="1:2.36+b1",
    architecture="amd64",
    namespace="debian",
    distro="debian-12",
    source="glibc",
)
ATTRS = Package(kind="pypi", name="Typing_Extensions", version="4", license="MIT")
ODD = Package(kind="apk", name="g++", version="1-r0", namespace="alpine", license="GPLv2+ or so")


class Builder:
    """Finds packages; ``can`` says whether it says so."""

    def __init__(self, can=BuilderCap.PACKAGES):
        self.capabilities = can
        self.packages = (LIBC, ATTRS)
        self.asked = []

    async def build(self, request, progress):
        self.asked.append(request.packages)
        bases = (
            BaseImage(name="debian:12", image_id="sha256:d1", digest=f"sha256:{'12' * 32}"),
            BaseImage(
                name="r.example.test/team/base",
                image_id=f"sha256:{'34' * 32}",
                platform=Platform(architecture="arm64"),
            ),
        )
        return BuildResult(
            image_id=MADE,
            steps=1,
            cached_steps=0,
            bases=bases,
            packages=self.packages if request.packages else (),
            unread=("/var/lib/rpm/Packages: rpm's old format (Berkeley DB) is not read",),
        )


async def attached(host, kind):
    found = {a.media_type: a.data for a in await host.engine.images.attachments(MADE)}
    return json.loads(found[kind]) if kind in found else None


async def test_a_build_keeps_how_it_was_made_without_what_is_secret(host, intent, context):
    host.drivers["builder", ""] = Builder()
    wish = intent(
        "build",
        context=".",
        file="Dockerfile",
        tags=["app:1"],
        target="runtime",
        args={"VERSION": "1", "API_TOKEN": "hunter2-hunter2"},
        **{"secret-mounts": {"key": "sesame-sesame"}},
    )
    await BuildStep(host).apply(wish, context)
    known = await attached(host, PREDICATE)
    text = json.dumps(known)
    assert "hunter2" not in text
    assert "sesame" not in text
    definition, details = known["buildDefinition"], known["runDetails"]
    assert definition["externalParameters"] == {
        "context": ".",
        "file": "Dockerfile",
        "target": "runtime",
        "args": {"VERSION": "1", "API_TOKEN": "***"},
        "secrets": ["key"],
    }
    debian, base = definition["resolvedDependencies"]
    assert debian == {
        "uri": "pkg:docker/debian@12?platform=linux%2Famd64",
        "digest": {"sha256": "12" * 32},
    }
    assert base["uri"] == (
        "pkg:docker/team/base@latest?repository_url=r.example.test&platform=linux%2Farm64"
    )
    assert (base["digest"]["sha256"], "config" in base["mediaType"]) == ("34" * 32, True)
    assert details["builder"]["id"] == "urn:linkspan:daemon:fake"
    started, finished = (details["metadata"][name] for name in ("startedOn", "finishedOn"))
    assert started <= finished
    assert await attached(host, SPDX) is None


async def test_an_sbom_names_the_image_and_all_its_packages(host, intent, context):
    builder = host.drivers["builder", ""] = Builder()
    builder.packages = (LIBC, ATTRS, ODD)
    wish = intent("build", context=".", file="Dockerfile", tags=["app:1"], sbom=True)
    await BuildStep(host).apply(wish, context)
    assert "SBOM: 3 packages" in context.lines
    assert any("Berkeley DB" in line for line in context.lines)
    document = await attached(host, SPDX)
    assert document["spdxVersion"] == "SPDX-2.3"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", document["creationInfo"]["created"])
    assert "Berkeley DB" in document["comment"]
    image, *packages = document["packages"]
    assert (image["name"], image["checksums"][0]["checksumValue"]) == ("app:1", "ab" * 32)
    ids = [each["SPDXID"] for each in document["packages"]]
    assert all(re.fullmatch(r"SPDXRef-[A-Za-z0-9.-]+", each) for each in ids)
    assert len(set(ids)) == 4
    contained = {
        each["relatedSpdxElement"]
        for each in document["relationships"]
        if each["relationshipType"] == "CONTAINS"
    }
    assert contained == set(ids[1:])
    assert [each["licenseDeclared"] for each in packages][:2] == ["NOASSERTION", "MIT"]
    (odd,) = document["hasExtractedLicensingInfos"]
    assert (odd["licenseId"], odd["extractedText"]) == (
        packages[2]["licenseDeclared"],
        "GPLv2+ or so",
    )


async def test_the_same_packages_again_are_the_same_document(host, intent, context):
    builder = host.drivers["builder", ""] = Builder()
    wish = intent("build", context=".", file="Dockerfile", sbom=True)
    old = sbom(
        MADE,
        MADE,
        builder.packages,
        created="2020-01-01T00:00:00Z",
        tool="linkspan-0",
        comment="/var/lib/rpm/Packages: rpm's old format (Berkeley DB) is not read",
    )
    await host.engine.images.attach(MADE, Attachment(media_type=SPDX, data=old))
    await BuildStep(host).apply(wish, context)
    assert (await attached(host, SPDX))["creationInfo"]["created"] == "2020-01-01T00:00:00Z"
    builder.packages = (LIBC,)
    await BuildStep(host).apply(wish, context)
    assert (await attached(host, SPDX))["creationInfo"]["created"] > "2020-01-01T00:00:00Z"


async def test_a_builder_that_finds_no_packages_is_not_asked_for_them(host, intent, context):
    builder = host.drivers["builder", ""] = Builder(can=BuilderCap.NONE)
    with pytest.raises(Unsupported):
        await BuildStep(host).apply(
            intent("build", context=".", file="Dockerfile", sbom=True), context
        )
    assert builder.asked == []


@pytest.mark.parametrize(
    ("package", "url"),
    [
        (LIBC, "pkg:deb/debian/libc6@1:2.36%2Bb1?arch=amd64&distro=debian-12"),
        (ATTRS, "pkg:pypi/typing-extensions@4"),
        (ODD, "pkg:apk/alpine/g%2B%2B@1-r0"),
    ],
)
def test_a_package_has_its_url(package, url):
    assert package_url(package) == url


async def test_provenance_that_nobody_knows_is_told_before_anything_is_pushed(
    host, registry, intent, context
):
    host.engine.images.names["r.example.test/app:1"] = MADE
    wish = intent("push", image="r.example.test/app:1", provenance=True)
    for ask in (PushStep(host).plan(wish), PushStep(host).apply(wish, context)):
        with pytest.raises(NotFound) as caught:
            await ask
        assert caught.value.code == "no_provenance"
    assert registry.manifests == {}


async def test_artifacts_refer_to_the_image_and_say_what_they_are(host, intent, context):
    host.drivers["builder", ""] = Builder()
    wish = intent("build", context=".", file="Dockerfile", sbom=True)
    await BuildStep(host).apply(wish, context)
    registry, place = FakeRegistry(), parse_reference("r.example.test/app:1")
    subject = Descriptor(media_type="application/m", digest=f"sha256:{'cd' * 32}", size_bytes=7)
    found = await artifacts_of(host, MADE, place, subject.digest, provenance=True)
    for artifact in (*found, *found):
        await refer(registry, place, subject, artifact)
    there = await registry.referrers(
        parse_reference(f"r.example.test/app@{subject.digest}"), Credentials()
    )
    assert sorted(each.artifact_type for each in there) == [SPDX, IN_TOTO]
    repository = registry.repository("r.example.test/app")
    assert repository.tags == {}
    for each in there:
        manifest = json.loads(repository.manifests[each.digest][1])
        assert manifest["subject"] == {
            "mediaType": "application/m",
            "digest": subject.digest,
            "size": 7,
        }
        assert manifest["config"]["mediaType"] == "application/vnd.oci.empty.v1+json"
        document = json.loads(repository.blobs[manifest["layers"][0]["digest"]])
        if each.artifact_type == IN_TOTO:
            assert document["_type"] == "https://in-toto.io/Statement/v1"
            assert document["predicateType"] == "https://slsa.dev/provenance/v1"
            assert document["subject"] == [
                {"name": "r.example.test/app:1", "digest": {"sha256": "cd" * 32}}
            ]
            assert each.annotations == {
                "in-toto.io/predicate-type": "https://slsa.dev/provenance/v1"
            }
