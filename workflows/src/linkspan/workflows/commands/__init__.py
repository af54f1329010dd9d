"""Commands about pipelines that need no run: lint, graph, schema, adopt, plan."""
