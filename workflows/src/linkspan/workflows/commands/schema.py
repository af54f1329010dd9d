"""``linkspan workflow schema``."""

from linkspan.core.cli.command import command
from linkspan.core.cli.session import Session
from linkspan.workflows.commands.reading import installed
from linkspan.workflows.schema import schema_of


@command(
    "schema",
    "Print a JSON Schema of the language with the verbs that are installed here, for editors.",
    examples=[
        "linkspan workflow schema > .linkspan/schema.json",
        "linkspan workflow schema --format jsonl",
    ],
    more=["linkspan workflow lint"],
)
def schema(session: Session) -> int:
    """Print the schema."""
    session.document(schema_of(installed()))
    return 0
