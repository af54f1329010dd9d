"""Files of other tools to pipelines: what has a counterpart is converted, the rest is listed with its place."""

from linkspan.workflows.adopting.detect import Source, adopt, find_sources

__all__ = ["Source", "adopt", "find_sources"]
