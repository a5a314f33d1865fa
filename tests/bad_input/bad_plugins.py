"""Plugins that go wrong, as the text of their files: each way for each hook, and ways to be unloadable."""

from __future__ import annotations

from textwrap import indent

from bad_files import SECRET

HEAD = """\
import sys, time
from pydantic import BaseModel, Field, SecretStr, field_validator, model_validator
from stackconf import Applied, Issue, Problem, ProviderType, because, hookimpl, user_field


class Config(BaseModel):
    url: str = user_field("http://x")
    threads: int = user_field(1)
    api_key: SecretStr | None = None


class Other(BaseException):
    pass


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no words")


provides = (ProviderType("inference", "remote::bad", Config),)
"""
ARGUMENTS = {
    "default_config": "provider, hardware",
    "validate_user_config": "provider, user_config, config, hardware",
    "apply_config": "provider, config, previous",
    "discover_hardware": "",
}
DEFECT = "; this is a defect of the plugin, not of your files"


def hook(name: str, body: str, *, asynchronous: bool = False) -> str:
    start = f"\n\n@hookimpl\n{'async ' if asynchronous else ''}def {name}({ARGUMENTS[name]}):\n"
    return HEAD + start + indent(body, "    ") + "\n"


def config_class(body: str) -> str:
    declared = 'provides = (ProviderType("inference", "remote::bad", Special),)\n'
    return HEAD + "\n\nclass Special(Config):\n" + indent(body, "    ") + "\n\n" + declared


RAISES = {
    'raise ValueError("no\\nsuch card")': "raised ValueError: no such card",
    "raise KeyError": "raised KeyError",
    "sys.exit(3)": "raised SystemExit: 3",
    "raise KeyboardInterrupt": "raised KeyboardInterrupt",
    'raise Other("x")': "raised Other: x",
    "raise Mute": "raised Mute: (its text cannot be read)",
    "time.sleep(600)": "did not come back within 0.5 s",
}

DEFAULTS = {
    **RAISES,
    "return default_config(provider, hardware)": "raised RecursionError: maximum recursion depth exceeded",
    "return [1]": "returned list, not a mapping of field names to values",
    'return "threads=1"': "returned str, not a mapping of field names to values",
    "yield 1": "returned generator, not a mapping of field names to values",
    'return {"threds": 3}': "gave the unknown field `threds`",
    'd = {}; d["threads"] = d; return d': "gave values nested without end",
}
BAD_VALUES = {
    'return {"threads": "many"}': "should be a whole number, not 'many'",
    'return {"threads": object()}': "should be a whole number, not an object of type object",
    'return {"threads": because([1], "why not")}': "should be a whole number, not a list",
}
FINDINGS = {
    **RAISES,
    'return "bad"': "returned str, not a list of Issue",
    "return 3": "returned int, not a list of Issue",
    'return Issue("bad")': "returned Issue, not a list of Issue",
    'return ["bad"]': "gave str, not Issue",
    "yield Issue(None)": "gave an Issue whose message is NoneType, not text",
    'yield Issue("x", path=("a", 1))': "gave an Issue whose path is tuple, not text",
    'yield Issue("x", level="fatal")': "gave an Issue whose level is none of error, warning, ignored",
    'while True: yield Issue("again")': "gave more than 1000 issues",
    "raise ValueError(config.api_key.get_secret_value())": "raised ValueError: ********",
}
APPLIES = {
    'raise ValueError("no\\nsuch card")': "apply_config of plugin `bad.py` raised ValueError: no such card",
    "raise Mute": "apply_config of plugin `bad.py` raised Mute: (its text cannot be read)",
    "sys.exit(0)": "apply_config of plugin `bad.py` raised SystemExit: 0",
    "raise KeyboardInterrupt": "apply_config of plugin `bad.py` raised KeyboardInterrupt",
    'raise Other("x")': "apply_config of plugin `bad.py` raised Other: x",
    "raise ValueError(config.api_key.get_secret_value())": (
        "apply_config of plugin `bad.py` raised ValueError: ********"
    ),
    'return "done"': "apply_config of plugin `bad.py` returned str, not Applied",
    "return True": "apply_config of plugin `bad.py` returned bool, not Applied",
    "time.sleep(600)": (
        "apply_config of plugin `bad.py` did not answer within 0.5 s and may still be running"
    ),
    'return Applied("x", check=lambda: "down\\nhard", undo=lambda: None)': "check failed: down hard",
    'return Applied("x", check=lambda: 1 / 0, undo=lambda: None)': (
        "check failed: ZeroDivisionError: division by zero"
    ),
    'return Applied("x", check=lambda: time.sleep(600), undo=lambda: None)': (
        "check failed: no answer within 0.5 s"
    ),
    'return Applied("x", check=lambda: "down")': "check failed: down; undo failed: down",
    'return Applied("x", check=lambda: "down", undo=lambda: 1 / 0)': (
        "check failed: down; undo failed: ZeroDivisionError: division by zero"
    ),
    'return Applied("x", check=4, undo=3)': (
        "check failed: TypeError: 'int' object is not callable; "
        "undo failed: TypeError: 'int' object is not callable"
    ),
}
ASYNC_APPLIES = {
    'raise ValueError("no")': "apply_config of plugin `bad.py` raised ValueError: no",
    'return "done"': "apply_config of plugin `bad.py` returned str, not Applied",
    "import asyncio; await asyncio.sleep(600)": (
        "apply_config of plugin `bad.py` did not answer within 0.5 s and may still be running"
    ),
}
CLASSES = {
    '@model_validator(mode="after")\ndef check(self): raise KeyError("boom")': "raised KeyError: 'boom'",
    '@model_validator(mode="after")\ndef check(self): sys.exit(4)': "raised SystemExit: 4",
    '@model_validator(mode="after")\ndef check(self): time.sleep(600)': "did not come back within 0.5 s",
}
REFUSALS = {
    '@field_validator("url")\n@classmethod\ndef check(cls, each): raise ValueError(f"two\\nlines: {each}")': (
        "stack.yaml:5:19: error: inference/bad: config.url: two lines: http://u:********@h"
    ),
    '@field_validator("url")\n@classmethod\ndef check(cls, value): assert not value, ""': (
        "stack.yaml:5:19: error: inference/bad: config.url: refused by the type's own check, "
        "not 'http://u:********@h'"
    ),
}
BROKEN = {
    "import no_such_library\n": "cannot be imported: ModuleNotFoundError: No module named 'no_such_library'",
    "def broken(:\n": "cannot be imported: SyntaxError: bad.py:1: invalid syntax",
    "import sys; sys.exit(3)\n": "cannot be imported: SystemExit: 3",
    "raise KeyboardInterrupt\n": "cannot be imported: KeyboardInterrupt",
    "raise ValueError('two\\nlines')\n": "cannot be imported: ValueError: two lines",
    HEAD + "stackconf_api = 7\n": (
        "is written for stackconf api 7, and this stackconf serves 1; update one of them"
    ),
    HEAD + "provides = 3\n": "`provides` is not a sequence of ProviderType",
    HEAD + 'provides = ("inference/remote::bad",)\n': "`provides` is not a sequence of ProviderType",
}
DECLARED_WRONGLY = {
    HEAD + "\n\n@hookimpl\ndef defualt_config(provider, hardware): ...\n": (
        "implements the unknown hook `defualt_config`; did you mean `default_config`?"
    ),
    HEAD + "\n\n@hookimpl\ndef default_config(provider, hardwear): ...\n": (
        "`default_config` has no argument `hardwear`; did you mean `hardware`?"
    ),
    HEAD.replace('remote::bad", Config', 'remote::bad", "nowhere.config:Config"'): (
        "its config class `nowhere.config:Config` cannot be imported: "
        "ModuleNotFoundError: No module named 'nowhere'"
    ),
    HEAD.replace('remote::bad", Config', 'remote::bad", "json:Config"'): (
        "its config class `json:Config` cannot be imported: "
        "AttributeError: module 'json' has no attribute 'Config'"
    ),
    HEAD.replace('remote::bad", Config', 'remote::bad", dict'): (
        "the config class of `inference/remote::bad` is not a pydantic model: <class 'dict'>"
    ),
}
STACK = f"""\
providers:
  inference:
  - provider_id: bad
    provider_type: remote::bad
    config: {{url: "http://u:{SECRET}@h", api_key: "${{env.BAD_SECRET}}"}}
  scoring:
  - provider_id: good
    provider_type: inline::braintrust
"""
