"""Images, descriptors and platforms (OCI image-spec)."""

from collections.abc import Mapping
from typing import Any

import attrs

from linkspan.sdk.model.container import Healthcheck
from linkspan.sdk.values import frozen


@frozen(kw_only=True)
class Platform:
    """OCI image-spec, image-index.md, ``platform``."""

    os: str = "linux"
    architecture: str = "amd64"
    variant: str = ""
    os_version: str = ""

    def __str__(self) -> str:
        tail = f"/{self.variant}" if self.variant else ""
        version = f"({self.os_version})" if self.os_version else ""
        return f"{self.os}{version}/{self.architecture}{tail}"


@frozen(kw_only=True)
class Descriptor:
    """OCI image-spec descriptor.md.

    Attributes:
        digest: ``sha256:`` and 64 lower hex digits.
        size_bytes: Of the content as it travels.
        artifact_type: What a manifest that is no image holds; empty for images.
    """

    media_type: str
    digest: str
    size_bytes: int
    urls: tuple[str, ...] = ()
    annotations: Mapping[str, str] = attrs.field(factory=dict)
    platform: Platform | None = None
    artifact_type: str = ""


@frozen(kw_only=True)
class ImageConfig:
    """What an image's config says about running it (OCI image-spec config.md).

    ``raw`` is the whole JSON document, parsed; unknown keys survive there.
    """

    created: str = ""
    author: str = ""
    platform: Platform = Platform()
    user: str = ""
    exposed_ports: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    working_dir: str = ""
    labels: Mapping[str, str] = attrs.field(factory=dict)
    stop_signal: str = ""
    healthcheck: Healthcheck | None = None
    shell: tuple[str, ...] = ()
    on_build: tuple[str, ...] = ()
    diff_ids: tuple[str, ...] = ()
    history: tuple[Mapping[str, Any], ...] = ()
    raw: Mapping[str, Any] = attrs.field(factory=dict, repr=False)


@frozen(kw_only=True)
class Image:
    """A local image.

    Attributes:
        id: Digest of the config, ``sha256:…``.
        repo_tags: Familiar references with tag, ``app:1``.
        repo_digests: Familiar references with a manifest's digest, known from pull or push.
        chain_ids: Snapshot names, bottom first; the last one is the image's root.
        layers: Blobs of the layers as pulled or pushed, bottom first; None where no blob was made yet.
        size_bytes: Unpacked size of all layers.
        manifests: Manifest digest → stored manifest's descriptor, for pushing the same bytes again.
        attachments: Stored documents about it; one of each media type.
    """

    id: str
    config: ImageConfig
    repo_tags: tuple[str, ...] = ()
    repo_digests: tuple[str, ...] = ()
    chain_ids: tuple[str, ...] = ()
    layers: tuple[Descriptor | None, ...] = ()
    size_bytes: int = 0
    parent: str = ""
    last_tagged_at: str = ""
    manifests: tuple[Descriptor, ...] = ()
    attachments: tuple[Descriptor, ...] = ()


@frozen(kw_only=True)
class Attachment:
    """A document about an image that is kept as long as the image: its packages, how it was made."""

    media_type: str
    data: bytes = attrs.field(repr=False)


@frozen(kw_only=True)
class Package:
    """Something that is installed in an image.

    Attributes:
        kind: Of its package URL: ``deb``, ``apk``, ``rpm``, ``pypi``.
        namespace: Who distributes it: ``debian``; empty for ``pypi``.
        distro: With version: ``debian-12``.
        source: The source package that it was made of, if that is called otherwise.
        license: As it says itself, in whatever words.
    """

    kind: str
    name: str
    version: str
    architecture: str = ""
    namespace: str = ""
    distro: str = ""
    source: str = ""
    license: str = ""


@frozen(kw_only=True)
class Credentials:
    """Who we are for a registry (Docker API AuthConfig); everything empty is anonymous."""

    username: str = ""
    password: str = attrs.field(default="", repr=False)
    identity_token: str = attrs.field(default="", repr=False)
    registry_token: str = attrs.field(default="", repr=False)
    server_address: str = ""


@frozen(kw_only=True)
class RemovedImage:
    """One effect of a removal; exactly one of the two is set (Docker API ImageDeleteResponseItem)."""

    untagged: str = ""
    deleted: str = ""


@frozen(kw_only=True)
class PushResult:
    """What a push has put where; ``digest`` is the manifest's."""

    reference: str
    digest: str
    size_bytes: int
