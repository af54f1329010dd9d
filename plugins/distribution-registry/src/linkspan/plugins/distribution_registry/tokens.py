"""Who we are for one registry: challenges, tokens, basic auth.

Rules: a challenge counts for the registry that sent it; a token is kept until shortly before it
expires; credentials go to the registry and to the realm it names, never from https down to http.
Sources: distribution/docs/spec/auth/{token,oauth,jwt,scope}.md.
"""

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import httpx
import trio

from linkspan.plugins.distribution_registry.addresses import (
    InsecureHosts,
    is_docker_hub,
    split_host,
)
from linkspan.plugins.distribution_registry.challenge import (
    Challenge,
    choose_challenge,
    parse_challenges,
)
from linkspan.plugins.distribution_registry.docker_config import DockerConfig
from linkspan.plugins.distribution_registry.transport import (
    ConnectionLostError,
    Outgoing,
    Transport,
    read_at_most,
)
from linkspan.sdk.errors import PermissionDenied, Unauthenticated, Unavailable
from linkspan.sdk.model.image import Credentials

CLIENT_ID = "linkspan"
DEFAULT_EXPIRY_S = 60
"""docs/spec/auth/token.md: without ``expires_in`` a token is good for a minute."""
_EARLY_S = 5.0
_TOKEN_LIMIT_BYTES = 1 << 20
_MAX_TOKENS = 512


@attrs.frozen(kw_only=True)
class Token:
    """A bearer token and until when it may be used, on trio's clock."""

    value: str = attrs.field(repr=False)
    refresh_token: str = attrs.field(default="", repr=False)
    good_until: float


_Key = tuple[Credentials, frozenset[str]]


class Authorizer:
    """Makes the ``Authorization`` header of one registry's requests."""

    def __init__(
        self, domain: str, transport: Transport, docker_config: DockerConfig, *, secure: bool
    ) -> None:
        self._domain = domain
        self._transport = transport
        self._docker_config = docker_config
        self._secure = secure
        self._challenge: Challenge | None = None
        self._tokens: dict[_Key, Token] = {}
        self._lock = trio.Lock()

    async def header(
        self, scopes: frozenset[str], credentials: Credentials, repository: str
    ) -> str | None:
        """What to send before the registry has asked: nothing until it has asked once.

        Raises: as ``answer``.
        """
        if credentials.registry_token and self._is_ours(credentials):
            return f"Bearer {credentials.registry_token}"
        if self._challenge is None:
            return None
        return await self._for_challenge(self._challenge, scopes, credentials, repository)

    async def answer(
        self,
        response: httpx.Response,
        scopes: frozenset[str],
        credentials: Credentials,
        repository: str,
    ) -> str | None:
        """What to send after a 401; None if nothing would help.

        Raises:
            Unauthenticated: The token server knows nobody of this name and password.
            PermissionDenied: The realm is not to be trusted with credentials.
            Unavailable: The token server cannot be reached.
        """
        challenges = parse_challenges(response.headers.get_list("www-authenticate"))
        challenge = choose_challenge(challenges)
        if challenge is None:
            return None
        self._challenge = challenge
        for key in [k for k in self._tokens if k[1] >= scopes]:
            del self._tokens[key]
        return await self._for_challenge(challenge, scopes, credentials, repository)

    async def _for_challenge(
        self,
        challenge: Challenge,
        scopes: frozenset[str],
        credentials: Credentials,
        repository: str,
    ) -> str | None:
        if challenge.scheme == "basic":
            found = await self._resolve(credentials, repository)
            return basic_header(found) if found.username else None
        async with self._lock:
            token = self._tokens.get((credentials, scopes))
            if token is None or token.good_until <= trio.current_time():
                found = await self._resolve(credentials, repository)
                token = await self.fetch_token(challenge, scopes, found)
                if len(self._tokens) >= _MAX_TOKENS:
                    self._tokens.clear()
                self._tokens[credentials, scopes] = token
        return f"Bearer {token.value}"

    async def _resolve(self, credentials: Credentials, repository: str) -> Credentials:
        if not self._is_ours(credentials):
            credentials = Credentials()
        if credentials.username or credentials.identity_token:
            return credentials
        return await self._docker_config.credentials(self._domain, repository)

    def _is_ours(self, credentials: Credentials) -> bool:
        """Credentials made for another host are never sent to this one."""
        server = server_domain(credentials.server_address)
        if not server or server == self._domain:
            return True
        return is_docker_hub(server) and is_docker_hub(self._domain)

    @property
    def challenge(self) -> Challenge | None:
        """The last challenge of the registry."""
        return self._challenge

    async def fetch_token(
        self, challenge: Challenge, scopes: Iterable[str], credentials: Credentials
    ) -> Token:
        """Ask the realm. Raises as ``answer``."""
        realm = self._realm(challenge)
        asked = sorted(scopes) or challenge.parameters.get("scope", "").split()
        service = challenge.parameters.get("service", "")
        if credentials.identity_token:
            answer = await self._post_refresh(realm, service, asked, credentials)
            if answer is not None:
                return answer
        return await self._get(realm, service, asked, credentials)

    def _realm(self, challenge: Challenge) -> httpx.URL:
        text = challenge.parameters["realm"]
        try:
            realm = httpx.URL(text)
        except (httpx.InvalidURL, ValueError) as error:
            raise Unavailable(
                f"registry {self._domain} names an invalid token server: {error}", code="bad_realm"
            ) from error
        allowed = ("https",) if self._secure else ("https", "http")
        if realm.scheme not in allowed or not realm.host:
            raise PermissionDenied(
                f"registry {self._domain} names a token server that is not asked, since it is not "
                f"https: {realm.copy_with(query=None, userinfo=None)}",
                code="insecure_realm",
            )
        if realm.scheme == "http" and not self._may_be_plain(realm):
            raise PermissionDenied(
                f"registry {self._domain} names a token server without TLS on another host: "
                f"{realm.copy_with(query=None, userinfo=None)}",
                code="insecure_realm",
                help=f'add "{realm.netloc.decode("ascii")}" to insecure-registries if you trust it',
            )
        return realm

    def _may_be_plain(self, realm: httpx.URL) -> bool:
        insecure: InsecureHosts = self._transport.insecure
        return realm.netloc.decode("ascii") in insecure or realm.host == split_host(self._domain)[0]

    async def _get(
        self, realm: httpx.URL, service: str, scopes: list[str], credentials: Credentials
    ) -> Token:
        parameters: list[tuple[str, str | int | float | bool | None]] = [
            *realm.params.multi_items(),
            ("service", service),
        ]
        parameters += [("scope", scope) for scope in scopes]
        headers = {}
        if credentials.username:
            parameters += [("account", credentials.username)]
            parameters += [("client_id", CLIENT_ID), ("offline_token", "true")]
            headers["Authorization"] = basic_header(credentials)
        url = realm.copy_with(params=httpx.QueryParams(parameters))
        status, body = await self._ask(Outgoing(method="GET", url=url, headers=headers))
        return self._token(status, body, realm)

    async def _post_refresh(
        self, realm: httpx.URL, service: str, scopes: list[str], credentials: Credentials
    ) -> Token | None:
        form = {
            "grant_type": "refresh_token",
            "refresh_token": credentials.identity_token,
            "service": service,
            "client_id": CLIENT_ID,
            "scope": " ".join(scopes),
        }
        outgoing = Outgoing(
            method="POST",
            url=realm,
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            content=str(httpx.QueryParams(form)).encode(),
        )
        status, body = await self._ask(outgoing)
        if status in (404, 405) and credentials.username:
            return None
        return self._token(status, body, realm)

    async def _ask(self, outgoing: Outgoing) -> tuple[int, bytes]:
        try:
            response = await self._transport.send(outgoing)
            body, whole = await read_at_most(response, _TOKEN_LIMIT_BYTES)
        except ConnectionLostError as error:
            raise Unavailable(
                f"token server {outgoing.url.host}: {error}", code="token_server"
            ) from error
        if not whole:
            raise Unavailable(
                f"token server {outgoing.url.host} sends more than a token", code="token_server"
            )
        return response.status_code, body

    def _token(self, status: int, body: bytes, realm: httpx.URL) -> Token:
        if status in (400, 401, 403):
            raise Unauthenticated(
                f"unauthorized: incorrect username or password (token server {realm.host}, "
                f"status {status})",
                code="login_refused",
                help=f"docker login {self._domain}",
            )
        document = _object(body)
        value = document.get("token") or document.get("access_token")
        if status != 200 or not isinstance(value, str):
            raise Unavailable(
                f"token server {realm.host} gave no token (status {status})", code="token_server"
            )
        expires_s = document.get("expires_in")
        good_s = expires_s if isinstance(expires_s, int | float) else DEFAULT_EXPIRY_S
        refresh = document.get("refresh_token")
        return Token(
            value=value,
            refresh_token=refresh if isinstance(refresh, str) else "",
            good_until=trio.current_time() + max(good_s, DEFAULT_EXPIRY_S) - _EARLY_S,
        )


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def basic_header(credentials: Credentials) -> str:
    """RFC 7617."""
    pair = f"{credentials.username}:{credentials.password}".encode()
    return f"Basic {base64.b64encode(pair).decode('ascii')}"


def server_domain(address: str) -> str:
    """The host of a ``server_address``: ``https://index.docker.io/v1/`` → ``index.docker.io``."""
    bare = address.partition("://")[2] or address
    return bare.partition("/")[0].lower()
