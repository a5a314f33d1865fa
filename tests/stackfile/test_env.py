import copy
import os
import pickle
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackconf.stackfile.env import EnvText, detect, expand, faults, may_refer

HOME = {"HOME": "/home/me"}


@pytest.mark.parametrize(
    ("text", "environ", "grammar", "result"),
    [
        ("${env.X}", {"X": "v"}, "new", "v"),
        ("${env.X}", {"X": "v"}, "old", "v"),
        ("${env.X:=d}", {}, "new", "d"),
        ("${env.X:=d}", {"X": ""}, "new", "d"),
        ("${env.X:=d}", {"X": "v"}, "new", "v"),
        ("${env.X:d}", {}, "old", "d"),
        ("${env.X:d}", {"X": ""}, "old", "d"),
        ("${env.X:d}", {"X": "v"}, "old", "v"),
        ("${env.X:=}", {}, "new", None),
        ("${env.X:}", {}, "old", ""),
        ("${env.X:+w}", {"X": "v"}, "new", "w"),
        ("${env.X:+w}", {}, "new", None),
        ("${env.X:+}", {"X": "v"}, "new", None),
        ("${env.X+w}", {"X": "v"}, "old", "w"),
        ("${env.X+w}", {"X": ""}, "old", ""),
        ("${env.X+}", {"X": "v"}, "old", ""),
        ("a${env.X:=}b", {}, "new", "ab"),
        ("${env.X:=}${env.Y:=}", {}, "new", None),
        ("${env.H:=localhost}:${env.P:=80}", {"P": "81"}, "new", "localhost:81"),
        ("${env.X:=0123}", {}, "new", "0123"),
        ("${env.X:=true}", {}, "new", "true"),
        ("${env.X:=http://a:80/b?c=d+e}", {}, "new", "http://a:80/b?c=d+e"),
        ("${env.X:http://a:80/b}", {}, "old", "http://a:80/b"),
        ("${env.X:-1}", {}, "old", "-1"),
        ("${env.X:=\u200b}", {}, "new", "\u200b"),
        ("${env.X:=a\nb}", {}, "new", "a\nb"),
        ("${env.X}", {"X": "${env.Y}"}, "new", "${env.Y}"),
        ("plain", {}, "new", "plain"),
        ("", {}, "new", ""),
        ("a}b", {}, "new", "a}b"),
        ("${env.X:=~/x}", HOME, "new", "/home/me/x"),
        ("${env.X:~/x}/y", HOME, "old", "/home/me/x/y"),
        ("${env.X}", {**HOME, "X": "~"}, "new", "/home/me"),
        ("${env.X:+~/y}", {**HOME, "X": "1"}, "new", "/home/me/y"),
        ("a${env.X:=~/x}", HOME, "new", "a/home/me/x"),
        ("${env.X:=a~/x}", HOME, "new", "a~/x"),
        ("~/${env.X:=x}", HOME, "new", "~/x"),
        ("${env.X:=~}", {"HOME": "/"}, "new", "/"),
        ("${env.X:=~/x}", {"HOME": "/"}, "new", "/x"),
        ("${env.X:=~nobody-of-this-name/x}", HOME, "new", "~nobody-of-this-name/x"),
    ],
)
def test_expansion(text, environ, grammar, result):
    expanded = expand(text, environ, grammar)
    assert expanded.text == result
    assert expanded.issues == ()


def upstream(text, environ, grammar):
    """`replace_env_vars` of 0.2.12 and of 1.5.0 for one text, written from their description alone."""
    if grammar == "old":
        pattern = r"\${env\.([A-Z0-9_]+)(?:([:\+])([^}]*))?}"
    else:
        pattern = r"\${env\.([A-Z0-9_]+)(?::([=+])([^}]*))?}"
    out, position, found = "", 0, False
    for match in re.finditer(pattern, text):
        found = True
        out += text[position : match.start()]
        position = match.end()
        name, operator, rest = match[1], match[2], match[3]
        value = environ.get(name)
        if operator == "+":
            piece = rest if value else ""
        elif operator in {":", "="}:
            piece = value or rest
        elif value:
            piece = value
        else:
            return LookupError
        out += os.path.expanduser(piece)  # noqa: PTH111 - what upstream calls
    out += text[position:]
    return None if grammar == "new" and found and out == "" else out


PIECES = """
    ${env. ${ env. A B1 _ a } { $ : = + := :+ - ~/ x
    ${env.A} ${env.B1:=x} ${env.B1:x} ${env.A+x} ${env.A:+x} ${env.A:=}
"""
TEXTS = st.lists(st.sampled_from([*PIECES.split(), "", "\n"]), max_size=10).map("".join)
ENVIRONS = st.dictionaries(
    st.sampled_from(["A", "B1", "_"]), st.sampled_from(["", "v", "~/w", "12", "${env.A}"])
)


@given(TEXTS, ENVIRONS, st.sampled_from(["new", "old"]))
def test_expansion_agrees_with_upstream(text, environ, grammar):
    environ["HOME"] = str(Path.home())
    expected = upstream(text, environ, grammar)
    expanded = expand(text, environ, grammar)
    if expected is LookupError:
        assert expanded.missing
        assert [issue.code for issue in expanded.issues].count("env-missing") == len(expanded.missing)
    else:
        assert expanded.missing == ()
        assert expanded.text == expected


@given(TEXTS, ENVIRONS, st.sampled_from(["new", "old"]))
def test_what_stays_literal_is_never_silent(text, environ, grammar):
    expanded = expand(text, environ, grammar)
    if "${env." in text and not expanded.names:
        assert expanded.failed
        assert expanded.value.failed
    assert may_refer(text) or expanded.value is text


@pytest.mark.parametrize(
    ("texts", "grammar"),
    [
        ([], "either"),
        (["${env.A}", "plain", "${env.a:x}"], "either"),
        (["${env.A:=x}"], "new"),
        (["${env.A:+x}"], "new"),
        (["${env.A:x}"], "old"),
        (["${env.A+x}"], "old"),
        (["${env.A:}"], "old"),
        (["${env.A:-1}"], "old"),
        (["${env.A:-x}"], "either"),
        (["${env.A:x}", "${env.B:=x}"], "new"),
        (["${env.A:x} ${env.C:x}", "${env.B:=x}"], "old"),
        (["${env.A:" * 3], "either"),
    ],
)
def test_the_grammar_follows_from_the_forms(texts, grammar):
    assert detect(texts) == grammar


UPPERCASE = "is left as it is: only UPPERCASE names are read"
NESTED = "a default cannot hold another reference (in `${env.A...`)"
OLD_FORM = "is the form of llama-stack up to 0.2.12, and this file is written in the other one"
NEW_FORM = "is the form of llama-stack from 0.2.13 and OGX, and this file is written in the other one"
NO_REFERENCE = "is left as it is: it is not a reference"
SHELL = "this looks like a shell or template variable, and is left as it is; for the environment variable"
DASH = "the default of `${env.URL:...}` begins with a `-`; if that is bash's `:-`,"


@pytest.mark.parametrize(
    ("text", "grammar", "code", "message", "write"),
    [
        ("${env.api_key}", "new", "lowercase", "`${env.api_key}` " + UPPERCASE, "`${env.API_KEY}`"),
        ("${env.Key:=hunter2}", "new", "lowercase", "`${env.Key:=...}` " + UPPERCASE, "`${env.KEY:=...}`"),
        ("${env.key:hunter2}", "old", "lowercase", "`${env.key:...}` " + UPPERCASE, "`${env.KEY:...}`"),
        ("${env.key:hunter2}", "new", "lowercase", "`${env.key:...}` " + UPPERCASE, "`${env.KEY:=...}`"),
        ("${env.A:=${env.B}}", "new", "nested", NESTED, None),
        ("${env.A:${env.B:hunter2}}", "old", "nested", NESTED, None),
        ("${env.A:${env.B:hunter2}}", "new", "nested", NESTED, None),
        ("${env.${env.A}}", "new", "nested", "references cannot nest", None),
        ("${env.URL:hunter2}", "new", "grammar", "`${env.URL:...}` " + OLD_FORM, "`${env.URL:=...}`"),
        ("${env.URL+hunter2}", "new", "grammar", "`${env.URL+...}` " + OLD_FORM, "`${env.URL:+...}`"),
        ("${env.URL:=hunter2}", "old", "grammar", "`${env.URL:=...}` " + NEW_FORM, "`${env.URL:...}`"),
        ("${env.URL:+hunter2}", "old", "grammar", "`${env.URL:+...}` " + NEW_FORM, "`${env.URL+...}`"),
        (
            *("${env.URL:-hunter2}", "new", "grammar"),
            *("`${env.URL:-...}` is left as it is: `:-` is bash's form", "`${env.URL:=...}`"),
        ),
        ("${env.URL:-hunter2}", "old", "bash-default", DASH, "`${env.URL:...}`"),
        ("${env.URL", "new", "unclosed", "`${env.URL` is left as it is: its `}` is missing", "`${env.URL}`"),
        (
            *("x ${env.URL:=hunter2", "new", "unclosed"),
            *("`${env.URL...` is left as it is: its `}` is missing", "`${env.URL}`"),
        ),
        (
            *("${env.MY-KEY}", "new", "malformed"),
            *("`${env.MY-...}` " + NO_REFERENCE, "`${env.NAME}` or `${env.NAME:=default}`"),
        ),
        (
            *("${env.}", "old", "malformed"),
            *("`${env.}` " + NO_REFERENCE, "`${env.NAME}` or `${env.NAME:default}`"),
        ),
        ("${ENV.URL}", "new", "malformed", "`${ENV.URL}` " + NO_REFERENCE, "`${env.URL}`"),
        ("${env:url}", "new", "malformed", "`${env:url}` " + NO_REFERENCE, "`${env.URL}`"),
        ("$env.URL", "new", "malformed", "`$env.URL` " + NO_REFERENCE, "`${env.URL}`"),
        ("${OPENAI_API_KEY}", "new", "lookalike", SHELL, "`${env.OPENAI_API_KEY}`"),
        ("${API_KEY:-hunter2}", "new", "lookalike", SHELL, "`${env.API_KEY}`"),
        ("$OPENAI_API_KEY", "old", "lookalike", SHELL, "`${env.OPENAI_API_KEY}`"),
        ("{{ API_KEY }}", "new", "lookalike", SHELL, "`${env.API_KEY}`"),
    ],
)
def test_each_fault_is_one_line_that_says_what_to_write_and_no_secret(text, grammar, code, message, write):
    (issue,) = faults(text, grammar)
    assert issue.code == f"env-{code}"
    assert issue.level == ("warning" if code in {"bash-default", "lookalike"} else "error")
    advice = f"write {write}" if write else "use one variable, or a literal default"
    separator = " " if message in {SHELL, DASH} else "; "
    assert str(issue) == f"{issue.level}: {message}{separator}{advice}"
    assert "hunter2" not in str(issue)
    assert [found for found in expand(text, {}, grammar).issues if found.code != "env-missing"] == [issue]


@pytest.mark.parametrize(
    "text",
    [
        "$5",
        "costs $US",
        "a $NAME b",
        "{{ name }}",
        "${lower}",
        "$${x}",
        "${}",
        "pa$$WORD",
        "${file:/run/x}",
        "$X",
    ],
)
def test_what_only_resembles_a_reference_is_left_in_peace(text):
    assert faults(text, "new") == []
    assert expand(text, {}, "new").value == text


def test_a_missing_variable_is_named_and_the_advice_is_in_the_files_own_grammar():
    (issue,) = expand("${env.KEY} ${env.KEY}", {"KEY": ""}, "new").issues
    assert issue.message == "the environment variable `KEY` is not set, or empty"
    assert issue.hint == "set it, or give a default: `${env.KEY:=default}`"
    (issue,) = expand("${env.KEY}", {}, "old").issues
    assert issue.hint.endswith("`${env.KEY:default}`")


def test_several_faults_of_one_text_are_all_found():
    issues = expand("${env.a}${env.B}${env.C:x}${env.D:=1}", {}, "new").issues
    assert [issue.code for issue in issues] == ["env-lowercase", "env-grammar", "env-missing"]


class TestEnvText:
    def test_it_is_text_that_knows_where_it_came_from(self):
        value = expand("http://${env.HOST:=here}:${env.PORT}", {"PORT": "80"}, "new").value
        assert isinstance(value, EnvText)
        assert value == "http://here:80"
        assert value.names == ("HOST", "PORT")
        assert (value.whole, value.null, value.failed, value.grammar) == (False, False, False, "new")
        assert value.reference == "http://${env.HOST:=here}:${env.PORT}"
        assert value.shown == "http://${env.HOST:=...}:${env.PORT}"

    def test_a_whole_reference_is_told_from_an_embedded_one(self):
        assert expand("${env.A:=1}", {}, "new").value.whole
        assert not expand("${env.A:=1}${env.B:=2}", {}, "new").value.whole
        assert not expand(" ${env.A:=1}", {}, "new").value.whole

    def test_null_is_what_the_newer_upstream_makes_of_nothing(self):
        value = expand("${env.A:=}", {}, "new").value
        assert (value, value.null) == ("", True)
        assert expand("${env.A:}", {}, "old").value.null is False

    def test_text_without_a_reference_stays_what_it_was(self):
        text = "plain"
        assert expand(text, {}, "new").value is text

    @pytest.mark.parametrize("grammar", ["new", "old"])
    def test_neither_value_nor_default_show_in_its_repr(self, grammar):
        operator = ":=" if grammar == "new" else ":"
        text = f"x${{env.KEY{operator}hunter1}}"
        for environ in ({}, {"KEY": "hunter2"}):
            value = expand(text, environ, grammar).value
            assert repr([value]) == "[EnvText(${env.KEY})]"
            assert "hunter" not in value.shown

    def test_it_can_be_copied_and_pickled(self):
        value = expand("${env.KEY:=x}", {}, "new").value
        for other in (copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
            assert (other, other.names, other.shown) == (value, value.names, value.shown)
