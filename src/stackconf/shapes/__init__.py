"""The JSON shapes of what the core returns and raises, both ways.

For each there is a function `..._data` that makes plain JSON types of it, redacted, as `--json` prints
and a server sends them, and a function `..._from` that makes an equal object of those. Reading wants
what it needs, ignores keys that it does not know (a newer server may send more), runs nothing, and
raises `Misshapen` in one line for anything else.
"""
