"""Hooks: what a listener plugin may watch, change or refuse (pluggy).

Three groups. *Registration* hooks are plain functions, called once at start. *Interceptors*
(``before_…`` or an imperative verb) are awaited in order, each sees what the one before returned,
``None`` means no change, and raising a LinkspanError refuses the operation. *Events* (past tense) are
awaited side by side; what they return is ignored and a crash of one is logged with its plugin's name.

An implementation takes only the arguments it wants. Listeners are entry points of group ``linkspan``.
"""

import pluggy

PROJECT = "linkspan"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
