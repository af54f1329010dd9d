"""``linkspan workflow schema``."""

import click

from linkspan.core.cli.command import command
from linkspan.core.cli.session import Session
from linkspan.workflows.commands.reading import installed


@command(
    "schema",
    "Print a JSON Schema of the language with the verbs that are installed here, for editors.",
    examples=[
        "linkspan workflow schema > .linkspan/schema.json",
        "linkspan workflow schema --scenarios > .linkspan/tests/schema.json",
        "linkspan workflow schema --format jsonl",
    ],
    more=["linkspan workflow lint", "linkspan workflow test"],
)
@click.option("--scenarios", is_flag=True, help="Of the files that `workflow test` runs")
def schema(session: Session, scenarios: bool) -> int:
    """Print the schema."""
    if scenarios:
        from linkspan.workflows.scenarios.schema import scenario_schema

        session.document(scenario_schema())
        return 0
    from linkspan.workflows.schema import schema_of

    session.document(schema_of(installed()))
    return 0
