"""Conversation with one registry: where it is, who we are, and where it sends us."""

import contextlib
from collections.abc import AsyncIterator, Mapping

import attrs
import httpx
import trio

from linkspan.plugins.distribution_registry.addresses import api_authority, is_loopback, split_host
from linkspan.plugins.distribution_registry.docker_config import DockerConfig
from linkspan.plugins.distribution_registry.tokens import Authorizer
from linkspan.plugins.distribution_registry.transport import (
    ConnectionLostError,
    Outgoing,
    Transport,
    close_response,
)
from linkspan.sdk.errors import InvalidArgument, PermissionDenied, Unavailable
from linkspan.sdk.model.image import Credentials
from linkspan.sdk.reference import Reference

MAX_REDIRECTS = 10
_REDIRECTS = (301, 302, 303, 307, 308)


@attrs.frozen(kw_only=True)
class Call:
    """A request to the registry's API.

    Attributes:
        target: A path (``/v2/…``) or an absolute URL that the registry gave us.
        repository: Whose credentials are looked up.
        scopes: Token scopes, ``repository:team/app:pull``.
    """

    method: str
    target: str
    repository: str = ""
    scopes: frozenset[str] = frozenset()
    headers: Mapping[str, str] = attrs.field(factory=dict)
    content: bytes | httpx.AsyncByteStream | None = attrs.field(default=None, repr=False)
    answer_timeout_s: float | None = None


class Session:
    """One registry, for the driver's lifetime."""

    def __init__(
        self,
        domain: str,
        transport: Transport,
        docker_config: DockerConfig,
        *,
        base: httpx.URL | None = None,
    ) -> None:
        """Nothing is asked yet.

        Args:
            base: Scheme and host, where they are known better than the domain says.
        """
        if not domain:
            raise InvalidArgument(
                "the reference names no registry host that can be asked", code="invalid_reference"
            )
        self.domain = domain
        self._authority = api_authority(domain)
        self._transport = transport
        self._insecure = self._authority in transport.insecure
        self._base = self._fixed_base = base
        self._base_lock = trio.Lock()
        verified = not self._insecure and (base is None or base.scheme == "https")
        self.authorizer = Authorizer(domain, transport, docker_config, secure=verified)

    async def base(self) -> httpx.URL:
        """Scheme and host. An insecure registry is asked once whether it speaks TLS.

        Raises:
            Unavailable: It speaks neither.
        """
        async with self._base_lock:
            if self._base is None:
                self._base = await self._find_base()
            return self._base

    async def _find_base(self) -> httpx.URL:
        secure = httpx.URL(f"https://{self._authority}")
        if not self._insecure:
            return secure
        plain = httpx.URL(f"http://{self._authority}")
        # Docker tries TLS first everywhere. On loopback, where nobody listens in, plain HTTP is the
        # rule, and a TLS attempt would leave an error in the registry's log each time.
        order = (plain, secure) if is_loopback(split_host(self._authority)[0]) else (secure, plain)
        failure: Unavailable | None = None
        for base in order:
            try:
                if await self._speaks(base):
                    return base
            except Unavailable as error:
                failure = failure or error
                if "connection refused" in error.message:
                    break
        raise failure or Unavailable(
            f"{self._authority} does not answer as a registry", code="registry_unreachable"
        )

    def _forget_base(self) -> None:
        """What answers there next may speak TLS, or no longer do so."""
        if self._insecure:
            self._base = self._fixed_base

    async def _speaks(self, base: httpx.URL) -> bool:
        response = await self._transport.send(
            Outgoing(method="GET", url=base.copy_with(path="/v2/"))
        )
        await close_response(response)
        # A TLS server that is spoken to in plain HTTP answers 400 (Go, nginx).
        return not (response.status_code == 400 and base.scheme == "http")

    @contextlib.asynccontextmanager
    async def exchange(self, call: Call, credentials: Credentials) -> AsyncIterator[httpx.Response]:
        """Send, and close the answer at the end. Raises as ``send``."""
        response = await self.send(call, credentials)
        try:
            yield response
        finally:
            await close_response(response)

    async def send(self, call: Call, credentials: Credentials) -> httpx.Response:
        """Send with authorization, follow redirects; the caller closes the answer.

        Returns:
            Any answer but a redirect; 401 only if nothing we have opens the door.

        Raises:
            Unauthenticated, PermissionDenied, Unavailable: As the token server or a redirect has it.
            ConnectionLostError: The request cannot be replayed and got no answer, or its token had
                run out: build it again.
        """
        base = await self.base()
        url = base.join(call.target)
        ours = _same_origin(url, base)
        authorization = None
        if ours:
            authorization = await self.authorizer.header(call.scopes, credentials, call.repository)
        try:
            response, answered_by = await self._follow(call, url, authorization)
        except (Unavailable, ConnectionLostError):
            self._forget_base()
            raise
        if response.status_code == 400 and base.scheme == "http":
            self._forget_base()
        if response.status_code != 401 or not ours or not _same_origin(answered_by, base):
            return response
        fresh = await self._try_authorize(response, call, credentials)
        if fresh is None or fresh == authorization:
            return response
        await close_response(response)
        if not _replayable(call):
            raise ConnectionLostError("the registry's token had run out")
        response, _ = await self._follow(call, url, fresh)
        return response

    async def _try_authorize(
        self, response: httpx.Response, call: Call, credentials: Credentials
    ) -> str | None:
        try:
            return await self.authorizer.answer(response, call.scopes, credentials, call.repository)
        except BaseException:
            await close_response(response)
            raise

    async def _follow(
        self, call: Call, url: httpx.URL, authorization: str | None
    ) -> tuple[httpx.Response, httpx.URL]:
        for _ in range(MAX_REDIRECTS + 1):
            headers = dict(call.headers)
            if authorization is not None:
                headers["Authorization"] = authorization
            response = await self._transport.send(
                Outgoing(
                    method=call.method,
                    url=url,
                    headers=headers,
                    content=call.content,
                    answer_timeout_s=call.answer_timeout_s,
                )
            )
            location = response.headers.get("location")
            if not _is_redirect(call, response) or location is None:
                return response, url
            await close_response(response)
            following = self._redirect_target(url, location)
            if not _same_origin(url, following):
                authorization = None
            url = following
        raise Unavailable(
            f"registry {self.domain} redirects more than {MAX_REDIRECTS} times",
            code="redirect_loop",
        )

    def _redirect_target(self, url: httpx.URL, location: str) -> httpx.URL:
        try:
            target = url.join(location)
        except (httpx.InvalidURL, ValueError) as error:
            raise Unavailable(
                f"registry {self.domain} redirects to an invalid address", code="bad_redirect"
            ) from error
        if target.scheme not in ("http", "https") or not target.host:
            raise Unavailable(
                f"registry {self.domain} redirects to an invalid address", code="bad_redirect"
            )
        if url.scheme == "https" and target.scheme == "http":
            raise PermissionDenied(
                f"registry {self.domain} redirects from https to plain http on {target.host}, "
                "which is not followed",
                code="insecure_redirect",
            )
        return target


def _replayable(call: Call) -> bool:
    return call.content is None or isinstance(call.content, bytes)


def _is_redirect(call: Call, response: httpx.Response) -> bool:
    if response.status_code not in _REDIRECTS:
        return False
    if call.method in ("GET", "HEAD"):
        return True
    return response.status_code in (307, 308) and _replayable(call)


def _same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    return (one.scheme, one.host, one.port) == (other.scheme, other.host, other.port)


def pull_scope(reference: Reference) -> frozenset[str]:
    """Token scope for reading a repository."""
    return frozenset({f"repository:{reference.path}:pull"})


def delete_scope(reference: Reference) -> frozenset[str]:
    """Token scope for taking something out of a repository."""
    return frozenset({f"repository:{reference.path}:delete"})


def push_scope(reference: Reference, *mount_from: str) -> frozenset[str]:
    """Token scope for writing a repository, and for reading those that blobs are mounted from."""
    mounts = {f"repository:{name}:pull" for name in mount_from}
    return frozenset({f"repository:{reference.path}:pull,push"}) | mounts
