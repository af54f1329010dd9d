"""The register of diagnostic ids: one line each, explained by ``linkspan explain``.

``LS00xx`` command line, ``01xx`` daemon, ``02xx`` Dockerfile, ``10xx`` text and types, ``11xx`` graph,
``12xx`` expressions, ``13xx`` secrets and trust, ``14xx`` plugins and preflight, ``15xx`` likely
mistakes, ``20xx`` config, ``21xx`` driver config, ``30xx`` plugins, ``90xx`` deprecations.
"""

from typing import Final

IDS: Final[dict[str, str]] = {
    "LS0002": "unknown command",
    "LS0003": "unknown option",
    "LS0101": "no daemon answers at the socket",
    "LS0102": "the daemon refused the command",
    "LS1001": "unknown key",
    "LS1002": "a key is written twice",
    "LS1003": "a tab is used for indentation",
    "LS1004": "a plain text reads as a mapping",
    "LS1005": "unknown alias",
    "LS1006": "the file cannot be read as YAML",
    "LS1007": "the file is too large, too deep, or not UTF-8 text",
    "LS1008": "a required key is missing",
    "LS1009": "a key of another tool",
    "LS1010": "a value has the wrong type",
    "LS1011": "a boolean must be true or false",
    "LS1012": "unknown trigger",
    "LS1013": "a value is outside what is allowed",
    "LS1014": "an id is written twice, or is not a valid name",
    "LS1015": "unknown syntax version",
    "LS1101": "a job needs a job that does not exist",
    "LS1102": "jobs wait for each other",
    "LS1103": "a job reads another that it does not wait for",
    "LS1201": "unknown name in an expression",
    "LS1202": "text around an expression that must stand alone",
    "LS1203": "a comparison of unlike types",
    "LS1204": "an expression cannot be read",
    "LS1301": "an expression inside `run`",
    "LS1302": "a secret is not declared",
    "LS1303": "a secret would end up in a plain place",
    "LS1401": "no installed plugin answers a verb",
    "LS1402": "a verb has no such setting",
    "LS1403": "a verb misses a required setting",
    "LS2001": "unknown table or key in the config",
    "LS2002": "the config is not valid TOML",
    "LS2003": "the config file cannot be read",
    "LS2010": "a config value has the wrong type",
    "LS2011": "a config value is outside what is allowed",
    "LS2101": "a driver is not installed",
    "LS2104": "a driver misses a required setting",
}
