"""``/v1/search``: the one part of the old protocol that is still alive, at Docker Hub and some others."""

import json
from typing import Any, Final

from linkspan.plugins.distribution_registry.addresses import is_docker_hub
from linkspan.plugins.distribution_registry.faults import read_answer
from linkspan.plugins.distribution_registry.session import Call, Session
from linkspan.plugins.distribution_registry.transport import ConnectionLostError, read_at_most
from linkspan.sdk.drivers.registry import SearchResult
from linkspan.sdk.errors import DataLoss, NotFound, Unavailable
from linkspan.sdk.model.image import Credentials
from linkspan.sdk.reference import registry_named_by

SEARCH_HOST: Final = "index.docker.io"
_LIMIT_BYTES: Final = 4 << 20


def split_term(term: str) -> tuple[str, str]:
    """The registry that a term names, ``docker.io`` if none, and what to look for."""
    host = registry_named_by(term)
    if host:
        return host, term.removeprefix(f"{host}/")
    return "docker.io", term.removeprefix("library/")


async def search(
    session: Session, term: str, limit: int, credentials: Credentials
) -> list[SearchResult]:
    """Ask a registry.

    Raises:
        NotFound: It has no search.
        Unavailable: It does not answer.
        DataLoss: Its answer cannot be read.
    """
    call = Call(method="GET", target=f"/v1/search?q={_quoted(term)}&n={limit}")
    response = await session.send(call, credentials)
    if response.status_code != 200:
        answer = await read_answer(response)
        if answer.status in (404, 405):
            raise NotFound(f"registry {session.domain} has no search", code="search_not_offered")
        raise Unavailable(
            f"Unexpected status code {answer.status} from {session.domain}", code="search_failed"
        )
    try:
        data, whole = await read_at_most(response, _LIMIT_BYTES)
    except ConnectionLostError as error:
        raise Unavailable(f"search at {session.domain}: {error}") from error
    return _results(session.domain, data if whole else b"")


def _quoted(term: str) -> str:
    from urllib.parse import quote

    return quote(term, safe="")


def _results(domain: str, data: bytes) -> list[SearchResult]:
    try:
        items = json.loads(data)["results"]
        return [_result(domain, item) for item in items]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataLoss(
            f"the answer of {domain} to a search cannot be read", code="search_invalid"
        ) from error


def _result(domain: str, item: dict[str, Any]) -> SearchResult:
    name = str(item["name"])
    return SearchResult(
        name=name if is_docker_hub(domain) else f"{domain}/{name}",
        description=str(item.get("description") or ""),
        stars=int(item.get("star_count") or 0),
        official=bool(item.get("is_official")),
        automated=bool(item.get("is_automated")),
    )
