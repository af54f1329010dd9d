"""HTTP with patience: connections, time-outs and retries; knows nothing of registries."""

import contextlib
import itertools
import math
import ssl
import weakref
from collections.abc import AsyncIterator, Mapping
from typing import Never

import attrs
import httpx
import trio

from linkspan.plugins.distribution_registry.addresses import InsecureHosts, is_loopback
from linkspan.plugins.distribution_registry.config import DistributionConfig
from linkspan.plugins.distribution_registry.retry import (
    RETRYABLE_STATUSES,
    RetryPolicy,
    retry_after_s,
)
from linkspan.sdk.errors import Unavailable, Unsupported
from linkspan.sdk.lull import Lull
from linkspan.sdk.unreachable import causes, why_unreachable

USER_AGENT = "linkspan/0.1 (linux)"
REFUSED_ATTEMPTS = 3
"""A refused connection means that nobody listens: waiting long would only hide it."""

_CLOSE_TIMEOUT_S = 1.0
_SHORT_BYTES = 64 << 10


@attrs.frozen(kw_only=True)
class Outgoing:
    """A request.

    Attributes:
        content: Bytes may be sent again; a stream is sent once, so a failure is not retried. A stream's
            ``Content-Length`` is among the headers.
        answer_timeout_s: How long the answer's head may take; None is the usual idle time-out.
    """

    method: str
    url: httpx.URL
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    content: bytes | httpx.AsyncByteStream | None = attrs.field(default=None, repr=False)
    answer_timeout_s: float | None = None

    @property
    def replayable(self) -> bool:
        """Whether it may be sent more than once."""
        return self.content is None or isinstance(self.content, bytes)


class ConnectionLostError(Exception):
    """A request that cannot be replayed got no answer; the caller decides how to go on."""


class Transport:
    """Sends requests, each through the client that suits its host.

    There are three clients: loopback hosts (never by a proxy, no verified TLS needed), other insecure
    hosts, and all the rest. Each pools its connections by host.
    """

    def __init__(
        self,
        config: DistributionConfig,
        insecure: InsecureHosts,
        *,
        base: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.insecure = insecure
        self.policy = RetryPolicy(
            attempts=config.attempts,
            delay_s=config.retry_delay_s,
            retry_after_limit_s=config.retry_after_limit_s,
        )
        self._base = base
        self._timeout = httpx.Timeout(
            config.idle_timeout_s, connect=config.connect_timeout_s, pool=None
        )
        self._limits = httpx.Limits(
            max_connections=64,
            max_keepalive_connections=20,
            keepalive_expiry=config.keep_connections_s,
        )
        self._clients: dict[str, httpx.AsyncClient] = {}
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._lock = trio.Lock()
        self._asking = 0
        self._answers: weakref.WeakSet[httpx.Response] = weakref.WeakSet()
        self._lull = Lull(self._busy, pause_s=config.keep_connections_s, latest_s=math.inf)

    async def aclose(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            await client.aclose()
        self._clients.clear()

    async def close_unused(self) -> Never:
        """Close connections when nothing has been asked for a while; sleeps where there are none."""
        while True:
            await self._lull.wait()
            # A connection is closed by its pool only when that is used again: the pools go.
            unused, self._clients = self._clients, {}
            for client in unused.values():
                await client.aclose()

    def _busy(self) -> bool:
        return bool(self._asking) or not all(answer.is_closed for answer in self._answers)

    async def send(self, outgoing: Outgoing) -> httpx.Response:
        """Send, again and again if need be; the answer's body is still to be read and closed.

        Returns:
            The first answer that a retry would not change, or the last one of all attempts.

        Raises:
            Unavailable: No answer after all attempts.
            ConnectionLostError: No answer, and the request cannot be replayed.
        If cancelled: the connection is closed.
        """
        for attempt in itertools.count(1):
            try:
                response = await self._send_once(outgoing)
            except httpx.TransportError as error:
                if not outgoing.replayable:
                    raise ConnectionLostError(describe_failure(error)) from error
                if attempt >= self._attempts_for(error):
                    raise unavailable(outgoing.method, outgoing.url, error) from error
                await trio.sleep(self.policy.wait_s(attempt))
                continue
            wait_s = self._wait_before_retry(outgoing, response, attempt)
            if wait_s is None:
                return response
            await close_response(response)
            await trio.sleep(wait_s)
        raise AssertionError("the loop returns or raises")

    def _attempts_for(self, error: httpx.TransportError) -> int:
        if _cause(error, ssl.SSLError) is not None and isinstance(error, httpx.ConnectError):
            return 1
        if isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
            return 1
        if isinstance(error, httpx.ConnectError):
            return min(self.policy.attempts, REFUSED_ATTEMPTS)
        return self.policy.attempts

    def _wait_before_retry(
        self, outgoing: Outgoing, response: httpx.Response, attempt: int
    ) -> float | None:
        if response.status_code not in RETRYABLE_STATUSES or not outgoing.replayable:
            return None
        if attempt >= self.policy.attempts:
            return None
        asked_s = retry_after_s(response.headers.get("retry-after"))
        if asked_s is None:
            return self.policy.wait_s(attempt)
        return asked_s if asked_s <= self.policy.retry_after_limit_s else None

    async def _send_once(self, outgoing: Outgoing) -> httpx.Response:
        self._asking += 1
        self._lull.stir()
        try:
            answer = await self._ask(outgoing)
            self._answers.add(answer)
        finally:
            self._asking -= 1
        return answer

    async def _ask(self, outgoing: Outgoing) -> httpx.Response:
        client = await self._client_for(outgoing.url)
        stream = outgoing.content if isinstance(outgoing.content, httpx.AsyncByteStream) else None
        request = client.build_request(
            outgoing.method,
            outgoing.url,
            headers=dict(outgoing.headers),
            content=outgoing.content if isinstance(outgoing.content, bytes) else None,
        )
        if stream is not None:
            # Given as content, it would be wrapped in a generator that nobody closes after a fault.
            request.stream = stream
        if outgoing.answer_timeout_s is not None:
            request.extensions["timeout"]["read"] = outgoing.answer_timeout_s
        return await client.send(request, stream=True)

    async def _client_for(self, url: httpx.URL) -> httpx.AsyncClient:
        authority = url.netloc.decode("ascii")
        loopback = is_loopback(url.host)
        kind = "loopback" if loopback else "insecure" if authority in self.insecure else "verified"
        async with self._lock:
            if kind not in self._clients:
                if kind not in self._contexts:
                    # Loading the machine's certificates takes tens of milliseconds.
                    self._contexts[kind] = await trio.to_thread.run_sync(
                        _tls_context, kind == "verified"
                    )
                self._clients[kind] = self._make_client(self._contexts[kind], by_proxy=not loopback)
            return self._clients[kind]

    def _make_client(self, context: ssl.SSLContext, *, by_proxy: bool) -> httpx.AsyncClient:
        try:
            return httpx.AsyncClient(
                transport=self._base,
                verify=context,
                trust_env=by_proxy,
                timeout=self._timeout,
                limits=self._limits,
                headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
            )
        except (ImportError, ValueError) as error:
            # A proxy of a kind that is not spoken (SOCKS), or no address at all.
            raise Unsupported(
                f"the proxy that the daemon's environment names cannot be used: {error}",
                code="proxy_unusable",
                help="set HTTPS_PROXY to an http:// address, or unset ALL_PROXY",
            ) from error


def _tls_context(verified: bool) -> ssl.SSLContext:
    if not verified:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    paths = ssl.get_default_verify_paths()
    context = (
        ssl.create_default_context() if paths.cafile or paths.capath else httpx.create_ssl_context()
    )
    # From Python 3.13 on, authorities have to say more than many a company's own does.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


async def close_response(response: httpx.Response) -> None:
    """Give the connection back; also while cancelled, so that no socket is left.

    A connection is used again only when its answer was read to the end: short rests are read.
    """
    with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLOSE_TIMEOUT_S):
        if not response.is_stream_consumed and not response.is_closed and _is_short(response):
            with contextlib.suppress(httpx.TransportError):
                async for _ in response.aiter_raw():
                    pass
        await response.aclose()


def _is_short(response: httpx.Response) -> bool:
    if response.request.method == "HEAD" or response.status_code == 204:
        return True
    length = response.headers.get("content-length", "")
    return length.isdigit() and int(length) <= _SHORT_BYTES


@contextlib.asynccontextmanager
async def body_of(response: httpx.Response) -> AsyncIterator[AsyncIterator[bytes]]:
    """The body's parts; the response is closed at the end, wherever reading stopped."""
    parts = response.aiter_raw()
    try:
        yield parts
    finally:
        await abandon(parts)
        await close_response(response)


async def abandon(parts: AsyncIterator[bytes]) -> None:
    """End a body that is not read to its end.

    httpx and httpcore stack five async generators; closing the outer one leaves the others to the
    garbage collector. A cancellation at the innermost wait runs through and ends them all. What is
    buffered already comes first, so this also finds the end of a body that has arrived whole.
    """
    with trio.CancelScope(shield=True) as scope:
        scope.cancel()
        with contextlib.suppress(httpx.HTTPError, httpx.StreamError):
            async for _ in parts:
                pass


async def read_at_most(response: httpx.Response, limit_bytes: int) -> tuple[bytes, bool]:
    """The body up to a limit, and whether that is all of it. The response is closed.

    Raises:
        ConnectionLostError: The connection broke off.
    """
    found: list[bytes] = []
    size = 0
    async with body_of(response) as parts:
        try:
            async for part in parts:
                found.append(part)
                size += len(part)
                if size > limit_bytes:
                    return b"".join(found)[:limit_bytes], False
        except httpx.TransportError as error:
            raise ConnectionLostError(describe_failure(error)) from error
    return b"".join(found), True


def _cause(error: BaseException, kind: type[BaseException]) -> BaseException | None:
    return next((e for e in causes(error) if isinstance(e, kind)), None)


def describe_failure(error: httpx.TransportError) -> str:
    """Why a request got no answer, in Docker's words where Docker has them."""
    for one in causes(error):
        if isinstance(one, ssl.SSLCertVerificationError):
            return f"tls: failed to verify certificate: {one.verify_message}"
        if isinstance(one, ssl.SSLError):
            return f"tls: {one.reason or one}"
    url = error.request.url
    port = url.port or (443 if url.scheme == "https" else 80)
    if why := why_unreachable(error, url.host, port):
        return why
    match error:
        case httpx.ConnectTimeout():
            host = f"[{url.host}]" if ":" in url.host else url.host
            return f"dial tcp {host}:{port}: connect: i/o timeout"
        case httpx.ReadTimeout() | httpx.WriteTimeout():
            return "the registry fell silent"
        case httpx.RemoteProtocolError():
            return f"unexpected end or malformed answer: {error}"
        case httpx.ReadError() | httpx.WriteError():
            return "connection reset"
        case _:
            return str(error) or type(error).__name__


def unavailable(method: str, url: httpx.URL, error: httpx.TransportError) -> Unavailable:
    """The error for a request without an answer: ``Get "http://host/v2/": dial tcp …``."""
    why = describe_failure(error)
    shown = url.copy_with(query=None, userinfo=None)
    return Unavailable(
        f'{method.capitalize()} "{shown}": {why}',
        code="registry_unreachable",
        details={"host": url.netloc.decode("ascii")},
        help=f"is the registry up? try: curl -i {url.scheme}://{url.netloc.decode('ascii')}/v2/",
    )
