"""The command line: a table of commands, one module a noun, everything else imported when needed."""
