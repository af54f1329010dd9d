"""Image references (distribution/reference grammar)."""

import re

import attrs

from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.values import frozen

_ALNUM = r"[a-z0-9]+"
_COMPONENT = rf"{_ALNUM}(?:(?:\.|_|__|-+){_ALNUM})*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[(?:[a-fA-F0-9:]+)\])(?::[0-9]+)?")
_FOUR_NUMBERS = re.compile(r"\d+(?:\.\d+){3}")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}")
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")
_HEX = {"sha256": 64, "sha384": 96, "sha512": 128}
DOCKER_DOMAIN = "docker.io"


@frozen
class Reference:
    """A parsed reference; ``tag`` and ``digest`` are empty if not given.

    Attributes:
        domain: Host, with port; ``docker.io`` if none was written. Empty in one odd case, kept from the
            reference implementation: ``a_b.com/app`` has a dot, so it is not Docker Hub's, but its
            first part is no valid host either. No registry can be asked for such a reference.
        path: Repository on that host; ``library/…`` is written out.
    """

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def familiar_name(self) -> str:
        """As people write it: without ``docker.io/`` and ``library/``, without tag and digest."""
        if self.domain != DOCKER_DOMAIN:
            return self.name
        short = self.path.removeprefix("library/")
        return self.path if "/" in short else short

    @property
    def name(self) -> str:
        """Canonical, without tag and digest."""
        return f"{self.domain}/{self.path}" if self.domain else self.path

    @property
    def _tail(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    @property
    def familiar(self) -> str:
        """Familiar name with tag and digest."""
        return self.familiar_name + self._tail

    def __str__(self) -> str:
        return self.name + self._tail

    def with_default_tag(self) -> "Reference":
        """With ``latest`` if it has neither tag nor digest."""
        if self.tag or self.digest:
            return self
        return attrs.evolve(self, tag="latest")

    def with_digest(self, digest: str) -> "Reference":
        """The same repository by digest alone."""
        return attrs.evolve(self, tag="", digest=digest)


def _invalid(why: str) -> InvalidArgument:
    return InvalidArgument(why, code="invalid_reference")


def is_host(text: str) -> bool:
    """Whether this is a registry's host, with or without a port, that a name service may know."""
    if _DOMAIN.fullmatch(text) is None:
        return False
    bracketed = text[0] == "["
    host, _, port = text.removeprefix("[").partition("]:" if bracketed else ":")
    host = host.removesuffix("]")
    if bracketed or _FOUR_NUMBERS.fullmatch(host):
        import ipaddress  # commands parse references, and few ask for this

        try:
            ipaddress.ip_address(host)
        except ValueError:
            return False
    return (
        len(host) <= 253
        and all(len(label) <= 63 for label in host.split("."))
        and not (port.isdecimal() and int(port) > 65535)
    )


def _split_domain(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    is_domain = slash and (
        first == "localhost" or "." in first or ":" in first or first.lower() != first
    )
    domain, path = (first, rest) if is_domain else (DOCKER_DOMAIN, name)
    if domain == "index.docker.io":
        domain = DOCKER_DOMAIN
    if domain == DOCKER_DOMAIN and "/" not in path:
        path = f"library/{path}"
    if _DOMAIN.fullmatch(domain) is None and _PATH.fullmatch(name) is not None:
        return "", name
    return domain, path


def registry_named_by(term: str) -> str:
    """The registry that a term of a search begins with; empty if none, which means Docker Hub."""
    host, slash, _ = term.partition("/")
    return host if slash and ("." in host or ":" in host or host == "localhost") else ""


def parse_reference(text: str) -> Reference:
    """Parse what a person writes: ``app``, ``app:1``, ``host:5000/team/app@sha256:…``.

    Raises:
        InvalidArgument: code ``invalid_reference``, with Docker's texts.
    """
    if _IDENTIFIER.fullmatch(text):
        raise _invalid(
            f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
        )
    rest, at, digest = text.partition("@")
    name, tag = rest, ""
    head, colon, tail = rest.rpartition(":")
    if colon and "/" not in tail:
        name, tag = head, tail
    domain, path = _split_domain(name)
    if _PATH.fullmatch(path) is None and _PATH.fullmatch(path.lower()) is not None:
        raise _invalid(f"invalid reference format: repository name ({path}) must be lowercase")
    if (
        _PATH.fullmatch(path) is None
        or (domain and _DOMAIN.fullmatch(domain) is None)
        or (colon and "/" not in tail and _TAG.fullmatch(tag) is None)
    ):
        raise _invalid("invalid reference format")
    if at:
        _check_digest(digest)
    if len(path) > 255:
        raise _invalid(
            "invalid reference format: repository name must not be more than 255 characters"
        )
    return Reference(domain, path, tag, digest)


def _check_digest(digest: str) -> None:
    if _DIGEST.fullmatch(digest) is None:
        raise _invalid("invalid reference format")
    algorithm, _, encoded = digest.partition(":")
    if algorithm not in _HEX:
        raise _invalid("unsupported digest algorithm")
    if len(encoded) != _HEX[algorithm]:
        raise _invalid("invalid checksum digest length")
    if encoded != encoded.lower():
        raise _invalid("invalid checksum digest format")
