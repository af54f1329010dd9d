"""Go's ``text/template`` over plain data: what Docker's users write behind ``--format``.

Texts, numbers, booleans, None, lists and mappings are what a template sees; a callable in a mapping is a
method (``{{.Label "a"}}``). Faults are told in Go's words and with Go's places.
"""

from linkspan.sdk.templates.functions import FUNCTIONS
from linkspan.sdk.templates.lexing import TemplateError
from linkspan.sdk.templates.printing import NilPointer, text_of
from linkspan.sdk.templates.running import Template

__all__ = ["FUNCTIONS", "NilPointer", "Template", "TemplateError", "text_of"]
