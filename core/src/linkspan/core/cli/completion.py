"""``linkspan completion``: the script that a shell evaluates."""

import click

from linkspan.core.cli.command import command
from linkspan.core.cli.session import Session


@command(
    "completion",
    "Print the script that completes commands, options and names in a shell.",
    examples=[
        'eval "$(linkspan completion bash)"',
        "linkspan completion zsh > ~/.zfunc/_linkspan",
        "linkspan completion fish > ~/.config/fish/completions/linkspan.fish",
    ],
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(session: Session, shell: str) -> None:
    """Print a completion script."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completion for {shell}")
    source = kind(click.Group("linkspan"), {}, "linkspan", "_LINKSPAN_COMPLETE").source()
    session.terminal.print(source)
