"""Results as definitions of BuildKit's (``pb.Definition``): how a client hands one build's result to another.

A definition is a graph of operations. Ours has one: the image that was built.
"""

import hashlib
from typing import Final

from linkspan.plugins.docker_api.buildkit.wire import Message, message
from linkspan.sdk.errors import Unsupported

_IMAGE: Final = "docker-image://"


def definition_of(image_id: str) -> bytes:
    """A definition that stands for an image of this daemon."""
    source = message({3: message({1: _IMAGE + image_id})})
    digest = f"sha256:{hashlib.sha256(source).hexdigest()}"
    # Clients take a definition without metadata for none.
    about = message({1: digest, 2: message({2: {"llb.customname": image_id}})})
    return message({1: [source, message({1: [message({1: digest})]})], 2: [about]})


def image_of(definition: bytes) -> str:
    """The image that a definition stands for.

    Raises:
        Unsupported: It is none of :func:`definition_of`.
    """
    operations = [Message(each) for each in Message(definition).all(1)]
    names = [Message(each.data(3)).text(1) for each in operations if each.data(3)]
    if len(operations) != 2 or len(names) != 1 or not names[0].startswith(f"{_IMAGE}sha256:"):
        raise Unsupported("only results of builds of this daemon can be build contexts")
    return names[0].removeprefix(_IMAGE)
