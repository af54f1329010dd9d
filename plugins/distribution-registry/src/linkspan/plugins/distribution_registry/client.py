"""The registry's operations over HTTP; imported when a registry is first asked."""

import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Literal

import attrs
import httpx
import trio

from linkspan.plugins.distribution_registry.addresses import InsecureHosts, is_docker_hub
from linkspan.plugins.distribution_registry.config import DistributionConfig
from linkspan.plugins.distribution_registry.docker_config import DockerConfig
from linkspan.plugins.distribution_registry.download import BlobDownload
from linkspan.plugins.distribution_registry.faults import read_answer, refusal
from linkspan.plugins.distribution_registry.manifests import ACCEPT, digest_of, read_manifest
from linkspan.plugins.distribution_registry.mirrors import MirroredBlob, Mirrors, Source
from linkspan.plugins.distribution_registry.referring import (
    described,
    read_referrers,
    referrers_tag,
    subject_of,
    with_referrer,
)
from linkspan.plugins.distribution_registry.search import SEARCH_HOST, search, split_term
from linkspan.plugins.distribution_registry.session import (
    Call,
    Session,
    delete_scope,
    pull_scope,
    push_scope,
)
from linkspan.plugins.distribution_registry.tokens import server_domain
from linkspan.plugins.distribution_registry.transport import (
    ConnectionLostError,
    Transport,
    close_response,
    read_at_most,
)
from linkspan.plugins.distribution_registry.upload import BlobUpload, Opening
from linkspan.sdk.drivers.registry import BlobSource, Manifest, SearchResult
from linkspan.sdk.errors import (
    DataLoss,
    InvalidArgument,
    NotFound,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from linkspan.sdk.media_types import OCI_INDEX
from linkspan.sdk.model.image import Credentials, Descriptor
from linkspan.sdk.reference import Reference, is_host

_THREAD_ABOVE_BYTES = 128 << 10
_TAGS_LIMIT_BYTES = 8 << 20
_MAX_TAG_PAGES = 1000
_MIRROR_BREAKS = 2
"""So often a mirror's connection may break during one blob: there is somebody else to ask."""


class DistributionClient:
    """Talks to any number of registries; the methods are those of ``Registry``."""

    def __init__(
        self,
        config: DistributionConfig,
        insecure: InsecureHosts,
        *,
        mirrors: Iterable[str] = (),
        base: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._config = config
        self._docker_config = DockerConfig(config.docker_config)
        self._transport = Transport(config, insecure, base=base)
        self._mirrors = Mirrors(mirrors, self._transport, self._docker_config)
        self._sessions: dict[str, Session] = {}

    async def aclose(self) -> None:
        """Close all connections."""
        await self._transport.aclose()

    async def close_unused(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Close connections that nobody has used for a while, for ever."""
        task_status.started()
        await self._transport.close_unused()

    def _session(self, domain: str) -> Session:
        if domain not in self._sessions:
            if not is_host(domain):
                raise InvalidArgument(
                    f"invalid server address '{domain}'",
                    code="invalid_server_address",
                    help="write a host and perhaps a port: registry.example.test:5000",
                )
            self._sessions[domain] = Session(domain, self._transport, self._docker_config)
        return self._sessions[domain]

    async def manifest(self, reference: Reference, credentials: Credentials) -> Manifest:
        """Get a manifest or index, verified."""
        reference = reference.with_default_tag()
        call = Call(
            method="GET",
            target=f"/v2/{reference.path}/manifests/{reference.digest or reference.tag}",
            repository=reference.path,
            scopes=pull_scope(reference),
            headers={"Accept": ACCEPT},
        )

        async def get(session: Session, credentials: Credentials) -> Manifest:
            response, data = await self._get_whole(session, call, reference, credentials)
            return await self._read(reference, response, data)

        return await self._mirrors.first(
            reference, self._session(reference.domain), credentials, get
        )

    async def _read(self, reference: Reference, response: httpx.Response, data: bytes) -> Manifest:
        def read() -> Manifest:
            return read_manifest(
                reference,
                data,
                content_type=response.headers.get("content-type", ""),
                digest_header=response.headers.get("docker-content-digest", ""),
            )

        if len(data) > _THREAD_ABOVE_BYTES:
            return await trio.to_thread.run_sync(read)
        return read()

    async def _get_whole(
        self, session: Session, call: Call, reference: Reference, credentials: Credentials
    ) -> tuple[httpx.Response, bytes]:
        limit = self._config.manifest_limit_bytes
        for attempt in range(1, self._config.attempts + 1):
            response = await session.send(call, credentials)
            if response.status_code != 200:
                raise refusal(await read_answer(response), reference, "pull")
            try:
                data, whole = await read_at_most(response, limit)
            except ConnectionLostError as error:
                if attempt == self._config.attempts:
                    raise Unavailable(
                        f"manifest of {reference.familiar}: {error}", code="download_interrupted"
                    ) from error
                await trio.sleep(self._transport.policy.wait_s(attempt))
                continue
            if not whole:
                raise TooLarge(
                    f"manifest of {reference.familiar} is larger than {limit} bytes",
                    code="manifest_too_large",
                    help="raise manifest-limit of [registry.distribution] if you trust the registry",
                )
            return response, data
        raise AssertionError("the loop returns or raises")

    @contextlib.asynccontextmanager
    async def blob(
        self, reference: Reference, descriptor: Descriptor, credentials: Credentials, offset: int
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Stream a blob."""
        if not 0 <= offset <= descriptor.size_bytes:
            raise InvalidArgument(f"offset {offset} is not inside the blob")

        def begin(source: Source, at: int) -> BlobDownload:
            return BlobDownload(
                source.session,
                self._transport,
                reference,
                descriptor,
                source.credentials,
                at,
                breaks=None if source.last else _MIRROR_BREAKS,
            )

        origin = self._session(reference.domain)
        sources = self._mirrors.sources(reference, origin, credentials)
        download = MirroredBlob(sources, begin, offset)
        try:
            await download.open()
            yield download
        finally:
            await download.aclose()

    async def push_blob(
        self,
        reference: Reference,
        descriptor: Descriptor,
        source: BlobSource,
        credentials: Credentials,
        mount_from: tuple[str, ...],
        sent: Callable[[int], None] | None,
    ) -> Literal["exists", "mounted", "pushed"]:
        """Upload a blob unless it is there."""
        upload = BlobUpload(
            self._session(reference.domain),
            self._transport,
            reference,
            descriptor,
            source,
            credentials,
            sent,
        )
        return await upload.run(mount_from)

    async def check_push(self, reference: Reference, credentials: Credentials) -> None:
        """Whether a blob may be uploaded."""
        await Opening(self._session(reference.domain), reference, credentials).prove()

    async def push_manifest(
        self, reference: Reference, media_type: str, data: bytes, credentials: Credentials
    ) -> str:
        """Put a manifest."""
        digest = digest_of(data, reference.digest)
        if reference.digest and not reference.tag and digest != reference.digest:
            raise DataLoss(
                f"manifest for {reference.familiar} has another digest: {digest}",
                code="digest_mismatch",
            )
        name = reference.tag or reference.digest or "latest"
        call = Call(
            method="PUT",
            target=f"/v2/{reference.path}/manifests/{name}",
            repository=reference.path,
            scopes=push_scope(reference),
            headers={"Content-Type": media_type},
            content=data,
        )
        response = await self._session(reference.domain).send(call, credentials)
        if response.status_code not in (200, 201):
            answer = await read_answer(response)
            if answer.code == "MANIFEST_BLOB_UNKNOWN":
                raise NotFound(
                    f"cannot push {reference.familiar}: {answer.text}",
                    code="manifest_blob_unknown",
                    details={"detail": answer.detail},
                )
            raise refusal(answer, reference, "push")
        await close_response(response)
        stored = response.headers.get("docker-content-digest", digest)
        if stored != digest:
            raise DataLoss(
                f"the registry stored {reference.familiar} as {stored}, not as {digest}",
                code="digest_mismatch",
            )
        subject = subject_of(data)
        if subject and "oci-subject" not in response.headers:
            tag = attrs.evolve(reference, tag=referrers_tag(subject), digest="")
            await self._add_referrer(tag, described(media_type, digest, data), credentials)
        return digest

    async def _add_referrer(
        self, tag: Reference, added: Mapping[str, object], credentials: Credentials
    ) -> None:
        """Keep the list of referrers for a registry that does not."""
        try:
            before = (await self.manifest(tag, credentials)).data
        except NotFound:
            before = b""
        await self.push_manifest(tag, OCI_INDEX, with_referrer(before, added), credentials)

    async def referrers(self, reference: Reference, credentials: Credentials) -> list[Descriptor]:
        """What refers to a digest: the registry's own list, else the tag that stands for it."""
        call = Call(
            method="GET",
            target=f"/v2/{reference.path}/referrers/{reference.digest}",
            repository=reference.path,
            scopes=pull_scope(reference),
            headers={"Accept": OCI_INDEX},
        )
        try:
            session = self._session(reference.domain)
            _, data = await self._get_whole(session, call, reference, credentials)
        except NotFound:
            tag = attrs.evolve(reference, tag=referrers_tag(reference.digest), digest="")
            try:
                return read_referrers((await self.manifest(tag, credentials)).data)
            except NotFound:
                return []
        return read_referrers(data)

    async def remove_tag(self, reference: Reference, credentials: Credentials) -> None:
        """Take a tag away."""
        reference = reference.with_default_tag()
        call = Call(
            method="DELETE",
            target=f"/v2/{reference.path}/manifests/{reference.tag}",
            repository=reference.path,
            scopes=delete_scope(reference),
        )
        response = await self._session(reference.domain).send(call, credentials)
        if response.status_code in (200, 202, 204):
            await close_response(response)
            return
        answer = await read_answer(response)
        if answer.status == 404 and answer.code in ("MANIFEST_UNKNOWN", "NAME_UNKNOWN"):
            return
        error = refusal(answer, reference, "delete")
        # Older registries delete whole manifests only, and say that a tag is no digest.
        if answer.status in (400, 404, 405, 501):
            raise Unsupported(error.message, code="delete_not_offered", details=error.details)
        raise error

    async def tags(self, reference: Reference, credentials: Credentials) -> list[str]:
        """All tags, over all pages."""

        async def get(session: Session, credentials: Credentials) -> list[str]:
            return await _all_tags(session, reference, credentials)

        return await self._mirrors.first(
            reference, self._session(reference.domain), credentials, get
        )

    async def search(self, term: str, limit: int, credentials: Credentials) -> list[SearchResult]:
        """Ask the registry that the term names, or Docker Hub."""
        domain, words = split_term(term)
        session = self._session(domain)
        if is_docker_hub(domain):
            base = httpx.URL(f"https://{SEARCH_HOST}")
            session = Session("docker.io", self._transport, self._docker_config, base=base)
        return await search(session, words, limit, credentials)

    async def login(self, credentials: Credentials) -> str:
        """Check credentials; an identity token if the registry gives one."""
        domain = server_domain(credentials.server_address) or "docker.io"
        session = self._session("docker.io" if domain == "index.docker.io" else domain)
        asked = Call(method="GET", target="/v2/")
        async with session.exchange(asked, credentials) as response:
            status = response.status_code
        challenge = session.authorizer.challenge
        if status == 200 and challenge is not None and challenge.scheme == "bearer":
            token = await session.authorizer.fetch_token(challenge, (), credentials)
            return token.refresh_token
        if status == 200:
            return ""
        base = await session.base()
        raise Unauthenticated(
            f"login attempt to {base}/v2/ failed with status: {status} {response.reason_phrase}",
            code="login_refused",
            details={"status": status},
        )


def _no_repository(error: Exception) -> Exception:
    if isinstance(error, NotFound) and error.code == "manifest_unknown":
        name = error.details.get("reference", "")
        return NotFound(f"repository {name} not found", code="repository_unknown")
    return error


def _tags_of(reference: Reference, body: bytes, whole: bool) -> list[str]:
    try:
        tags = json.loads(body)["tags"] if whole else None
    except (ValueError, KeyError, TypeError, RecursionError):
        tags = None
    else:
        # Docker's registry writes null for a repository whose tags are all gone.
        tags = [] if tags is None and whole else tags
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise DataLoss(
            f"the registry's list of tags of {reference.familiar_name} cannot be read",
            code="tags_invalid",
        )
    return tags


async def _all_tags(session: Session, reference: Reference, credentials: Credentials) -> list[str]:
    target = f"/v2/{reference.path}/tags/list?n=1000"
    found: dict[str, None] = {}
    for _ in range(_MAX_TAG_PAGES):
        call = Call(
            method="GET",
            target=target,
            repository=reference.path,
            scopes=pull_scope(reference),
        )
        response = await session.send(call, credentials)
        if response.status_code != 200:
            raise _no_repository(refusal(await read_answer(response), reference, "pull"))
        try:
            body, whole = await read_at_most(response, _TAGS_LIMIT_BYTES)
        except ConnectionLostError as error:
            raise Unavailable(f"tags of {reference.familiar_name}: {error}") from error
        before = len(found)
        found.update(dict.fromkeys(_tags_of(reference, body, whole)))
        following = response.links.get("next", {}).get("url")
        # A page without news would be followed for ever.
        if following is None or len(found) == before:
            break
        link = response.url.join(following)
        if (link.scheme, link.netloc) != (response.url.scheme, response.url.netloc):
            break
        target = str(link)
    return list(found)
