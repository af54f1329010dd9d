"""Values of the secrets that a pipeline declares, from the drivers of role ``secrets``."""

import re
import secrets
import string
from typing import TYPE_CHECKING, Any, Final

from linkspan.sdk.drivers.secrets import Secrets, SecretsCap
from linkspan.sdk.errors import InvalidArgument, NotFound
from linkspan.sdk.host import Host
from linkspan.sdk.values import frozen

if TYPE_CHECKING:
    # The daemon knows secrets also without a pipeline, whose modules take long to import.
    from linkspan.workflows.model import Secret

KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,127}")
_ALPHABET: Final = string.ascii_letters + string.digits


@frozen(kw_only=True)
class SecretSource:
    """Where a secret of a pipeline comes from (``secrets.NAME``).

    Attributes:
        name: In the pipeline.
        driver: ``from``; empty means the chosen driver.
        key: What the driver knows it by.
        required: A run does not start without it; else it is empty.
        generate_length: Made with so many letters and digits when it is missing; 0 means never.
    """

    name: str
    driver: str = ""
    key: str
    required: bool = True
    generate_length: int = 0


def source_of(secret: "Secret") -> SecretSource:
    """Of a secret that a pipeline declares."""
    return SecretSource(
        name=secret.name,
        driver=secret.provider,
        key=secret.key or secret.name,
        required=secret.required,
        generate_length=secret.generate_length or 0,
    )


def secrets_driver(host: Host, name: str = "") -> Secrets[Any]:
    """The driver of a name, or the chosen one.

    Raises:
        NotFound: It is not installed, or does not work; the message says why.
    """
    driver: Secrets[Any] = host.driver("secrets", name or None)
    return driver


def checked_key(key: str) -> str:
    """The key, if it can be one. Raises InvalidArgument."""
    if KEY.fullmatch(key) is None:
        raise InvalidArgument(
            f"'{key}' cannot be the name of a secret",
            help="letters, digits, '_', '.' and '-', a letter or '_' first, at most 128",
        )
    return key


async def is_there(host: Host, source: SecretSource) -> bool:
    """Whether a run would have a value; makes none."""
    driver = secrets_driver(host, source.driver)
    if source.generate_length and driver.capabilities & SecretsCap.WRITE:
        return True
    return any(info.key == source.key for info in await driver.list())


async def value_of(host: Host, source: SecretSource) -> str:
    """The value; made and kept if the pipeline says so; empty if it need not be there.

    Raises:
        NotFound: It is not there, or its driver is not.
        Unavailable, DataLoss: The driver cannot read it.
    """
    driver = secrets_driver(host, source.driver)
    try:
        return await driver.get(source.key)
    except NotFound:
        if source.generate_length:
            made = "".join(secrets.choice(_ALPHABET) for _ in range(source.generate_length))
            await driver.put(source.key, made)
            return made
        if source.required:
            raise
        return ""
