"""Build contexts of a few lines, for tests of builders."""


def dockerfile(*lines: str, **files: str) -> dict[str, str]:
    """A context: a Dockerfile of these lines, and other files by their names."""
    return {"Dockerfile": "\n".join(lines) + "\n", **files}
