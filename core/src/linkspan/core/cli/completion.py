"""``linkspan completion``: the script that a shell evaluates."""

from typing import Final

import click

from linkspan.core.cli.command import command
from linkspan.core.cli.session import Session

_BASH: Final = r"""
_linkspan_completion() {
    # To bash `=` and `:` end a word; to us they stand inside of one, as in before:test/unit.
    local line=${COMP_LINE:0:COMP_POINT} IFS=$' \t\n' words reply
    read -r -a words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    local typed=${words[${#words[@]}-1]}
    local head=${typed%"${typed##*[:=]}"}
    COMPREPLY=()
    while IFS= read -r reply; do
        case $reply in
            dir,*) compopt -o dirnames 2>/dev/null ;;
            file,*) compopt -o default 2>/dev/null ;;
            plain,*) reply=${reply#plain,}; COMPREPLY+=("${reply#"$head"}") ;;
        esac
    done < <(COMP_WORDS=$line COMP_CWORD=$((${#words[@]} - 1)) _LINKSPAN_COMPLETE=bash_complete "$1")
    # Something follows `=` and `:`.
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[:=] ]] && compopt -o nospace 2>/dev/null
    return 0
}

complete -o nosort -F _linkspan_completion linkspan
""".strip()
"""click's own script leaves words as bash splits them."""


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

    if shell == "bash":
        session.terminal.print(_BASH)
        return
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completion for {shell}")
    source = kind(click.Group("linkspan"), {}, "linkspan", "_LINKSPAN_COMPLETE").source()
    session.terminal.print(source)
