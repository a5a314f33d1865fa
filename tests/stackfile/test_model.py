import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stackconf.errors import InvalidConfig
from stackconf.stackfile.env import EnvText
from stackconf.stackfile.model import UPSTREAM_KEYS, load, loads

CASES = [
    tuple(case.strip("\n").split("\n---->\n"))
    for case in (Path(__file__).parent / "bad_input.txt").read_text().split("====\n")[1:]
]

HEAD = "version: 2\nproviders:\n  inference:\n"
GOOD = f"{HEAD}  - provider_id: ollama\n    provider_type: remote::ollama\n"


def read(text, **environ):
    return loads(text, "stack.yaml", environ)


def read_config(config, **environ):
    """One provider with this config, which stands from line 6 on."""
    lines = "".join(f"      {line}\n" for line in config.splitlines())
    return read(f"{GOOD}    config:\n{lines}", **environ)


def only_issue(stack):
    assert len(stack.issues) == 1, stack.issues
    return stack.issues[0]


class TestAGoodFile:
    TEXT = """\
version: '2'
image_name: mine
apis:
- safety
- inference
- weather
providers:
  inference:
  - provider_id: ollama
    provider_type: remote::ollama
    config:
      url: ${env.OLLAMA_URL:=http://localhost:11434}
      timeout: 30
      nested: {list: [1, "${env.WORD:=two}", null]}
  - provider_id: bedrock
    provider_type: remote::bedrock
  - provider_id: ramalama
    provider_type: remote::ramalama
    module: ramalama_stack==0.3.0a0
    config:
  vector_io:
  - provider_id: ollama
    provider_type: inline::faiss
    config: {}
models:
- model_id: ${env.MODEL}
stackconf:
  sealed: true
"""

    def test_providers_come_in_the_order_of_the_file(self):
        stack = read(self.TEXT)
        assert stack.issues == ()
        assert stack.errors == ()
        assert [(p.key, p.provider_type, p.module) for p in stack.providers] == [
            ("inference/ollama", "remote::ollama", None),
            ("inference/bedrock", "remote::bedrock", None),
            ("inference/ramalama", "remote::ramalama", "ramalama_stack==0.3.0a0"),
            ("vector_io/ollama", "inline::faiss", None),
        ]
        assert [p.config for p in stack.providers[1:]] == [{}, {}, {}]
        assert stack.providers[3].path == ("providers", "vector_io", 0)

    def test_references_are_expanded_and_say_so(self):
        stack = read(self.TEXT, OLLAMA_URL="http://there")
        config = stack.providers[0].config
        assert config == {
            "url": "http://there",
            "timeout": 30,
            "nested": {"list": [1, "two", None]},
        }
        assert isinstance(config["url"], EnvText)
        assert isinstance(config["nested"]["list"][1], EnvText)
        assert stack.environment == {"OLLAMA_URL", "WORD"}
        assert stack.grammar == "new"

    def test_the_document_itself_is_left_alone(self):
        stack = read(self.TEXT, OLLAMA_URL="http://there")
        entry = stack.document.data["providers"]["inference"][0]
        assert entry["config"]["url"] == "${env.OLLAMA_URL:=http://localhost:11434}"

    def test_apis_are_those_listed_and_then_those_used(self):
        assert read(self.TEXT).apis == ("safety", "inference", "weather", "vector_io")

    def test_everything_else_is_kept_as_it_is(self):
        stack = read(self.TEXT)
        assert stack.other == {
            "version": "2",
            "image_name": "mine",
            "apis": ["safety", "inference", "weather"],
            "models": [{"model_id": "${env.MODEL}"}],
        }
        assert stack.settings == {"sealed": True}

    def test_positions_of_fields(self):
        stack = read(self.TEXT)
        ollama, bedrock, ramalama, faiss = stack.providers
        assert str(stack.position_of(ollama, "url")) == "stack.yaml:12:12"
        assert str(stack.position_of(ollama, "url", key=True)) == "stack.yaml:12:7"
        assert str(stack.position_of(ollama, "nested.list.1")) == "stack.yaml:14:26"
        assert str(stack.position_of(ollama, ["nested", "list", 1])) == "stack.yaml:14:26"
        assert str(stack.position_of(ollama, "nested.nothing")) == "stack.yaml:14:7"
        assert str(stack.position_of(ollama, "nothing.at.all")) == "stack.yaml:11:5"
        assert str(stack.position_of(ollama)) == "stack.yaml:12:7"
        assert str(stack.position_of(bedrock, "region")) == "stack.yaml:15:5"
        assert str(stack.position_of(ramalama, "url")) == "stack.yaml:20:5"
        assert str(stack.position_of(faiss, "kvstore")) == "stack.yaml:24:5"

    def test_the_file_is_known_by_its_bytes(self, tmp_path):
        path = tmp_path / "stack.yaml"
        path.write_text(self.TEXT)
        stack = load(path, {})
        assert stack.digest == read(self.TEXT).digest
        assert stack.name == str(path)
        assert str(stack.position_of(stack.providers[0], "url")) == f"{path}:12:12"

    def test_the_environment_is_the_processs_unless_given(self, monkeypatch):
        monkeypatch.setenv("OLLAMA_URL", "http://from-the-process")
        assert loads(self.TEXT, "x").providers[0].config["url"] == "http://from-the-process"

    def test_the_text_of_a_value_is_within_reach(self):
        stack = read_config("api_key: 0123\nlist: [on]")
        (entry,) = stack.providers
        assert entry.config["api_key"] == 83
        assert stack.raw_text(entry, "api_key") == "0123"
        assert stack.raw_text(entry, "list.0") == "on"
        assert stack.raw_text(entry, "none") is None


class TestDisabled:
    @pytest.mark.parametrize(
        ("provider_id", "grammar"),
        [
            ("null", "new"),
            ("~", "new"),
            ("", "new"),
            ("''", "new"),
            ("__disabled__", "new"),
            ("${env.ENABLE_X:=__disabled__}", "new"),
            ("${env.ENABLE_X:+x}", "new"),
            ("${env.ENABLE_X:=}", "new"),
            ("${env.ENABLE_X+x}", "old"),
            ("'${env.ENABLE_X:}'", "old"),
            ("${env.ENABLE_X:__disabled__}", "old"),
        ],
    )
    def test_in_every_spelling_nothing_else_is_expanded_or_judged(self, provider_id, grammar):
        entry = f"  - provider_id: {provider_id}\n    provider_type: remote::x\n"
        config = "    config:\n      url: ${env.NEEDED}\n      key: ${env.low}\n    confg: 1\n"
        stack = read(f"{HEAD}{entry}{config}{entry}")
        assert stack.issues == ()
        assert stack.providers == ()
        first, second = stack.disabled
        assert (first.disabled, first.provider_id, first.provider_type) == (True, None, "remote::x")
        assert first.config == {"url": "${env.NEEDED}", "key": "${env.low}"}
        assert second.path == ("providers", "inference", 1)
        assert stack.apis == ("inference",)
        assert stack.grammar == grammar

    def test_the_variable_turns_it_on(self):
        text = f"{HEAD}  - provider_id: ${{env.ENABLE_X:+x}}\n    provider_type: remote::x\n"
        assert [p.provider_id for p in read(text, ENABLE_X="1").providers] == ["x"]
        assert read(text).environment == {"ENABLE_X"}


class TestBadInput:
    """Each of these is one issue, in one line, where the fault is."""

    @pytest.mark.parametrize(
        ("text", "line", "column", "said"),
        [
            ("- a\n", 1, 1, "a stack file is a mapping with `providers:`, and this is a list"),
            ("hello\n", 1, 1, "and this is text"),
            ("12\n", 1, 1, "and this is a number"),
            (
                *("version: 2\ndistribution_spec:\n  providers: {inference: x}\nimage_type: conda\n", 2, 1),
                "this is a build file (`distribution_spec`), not a stack file; give the run.yaml",
            ),
        ],
    )
    def test_what_is_no_stack_file_is_refused(self, text, line, column, said):
        with pytest.raises(InvalidConfig) as caught:
            read(text)
        (issue,) = caught.value.issues
        assert said in str(issue)
        assert (issue.where.line, issue.where.column) == (line, column)
        assert str(caught.value) == str(issue)

    @pytest.mark.parametrize(("text", "expected"), CASES)
    def test_one_fault_is_one_line(self, text, expected):
        assert str(only_issue(read(text))) == expected

    def test_all_issues_are_reported_at_once_and_in_the_order_of_the_file(self):
        stack = read(
            "colour: red\nproviders:\n  inference:\n  - provider_id: a\n    provider_type: x\n    config:\n"
            "      one: ${env.ONE}\n      two: ${env.two}\n  - provider_id: a\n    provider_type: y\n"
            "  - {}\nstackconf: {sealed: 1}\nversion: 1\nversion: 2\n"
        )
        assert [(issue.where.line, issue.code) for issue in stack.issues] == [
            (1, "unknown-key"),
            (7, "env-missing"),
            (8, "env-lowercase"),
            (9, "duplicate-provider"),
            (11, "missing-key"),
            (11, "missing-key"),
            (12, "bad-setting"),
            (14, "duplicate-key"),
        ]

    def test_a_provider_with_faults_in_its_config_goes_on_and_its_faulty_leaves_say_so(self):
        stack = read_config("a: ${env.A}\nb: ${env.b}\nc: ${env.C:=c}\nd: d")
        (entry,) = stack.providers
        assert [issue.path for issue in entry.issues] == ["config.a", "config.b"]
        assert {issue.provider for issue in entry.issues} == {"inference/ollama"}
        assert entry.issues == stack.issues
        assert {name: getattr(value, "failed", None) for name, value in entry.config.items()} == {
            "a": True,
            "b": True,
            "c": False,
            "d": None,
        }

    def test_a_value_of_the_environment_is_in_no_issue(self):
        stack = read_config("a: ${env.A} ${env.b}\nb: '${env.A:x}'", A="hunter2")
        assert stack.issues
        assert "hunter2" not in repr(stack.issues)
        assert "hunter2" not in repr(stack)
        assert "hunter2" not in repr(stack.providers[0].config)

    def test_duplicates_of_an_id_in_different_apis_are_normal(self):
        entry = "\n  - {provider_id: meta-reference, provider_type: 'inline::meta-reference'}\n"
        stack = read(f"providers:\n  agents:{entry}  telemetry:{entry}  eval:{entry}")
        assert stack.issues == ()
        keys = [p.key for p in stack.providers]
        assert keys == [f"{api}/meta-reference" for api in ("agents", "telemetry", "eval")]

    def test_ids_that_become_equal_by_expansion_are_duplicates(self):
        text = GOOD + "  - provider_id: ${env.X:=ollama}\n    provider_type: remote::x\n"
        assert only_issue(read(text)).code == "duplicate-provider"
        assert len(read(text, X="other").providers) == 2

    def test_too_many_issues_are_cut_short(self):
        with pytest.raises(InvalidConfig, match="more than 10000 issues") as caught:
            read_config("\n".join(f"k{n}: ${{env.K{n}}}" for n in range(10_001)))
        assert len(caught.value.issues) == 10_001
        assert caught.value.issues[-1].code == "too-many-issues"

    @pytest.mark.parametrize("provider_id", ['"a\\nb"', '"\\u200b"', "x" * 201, "${env.X}"])
    def test_an_id_that_would_not_fit_into_a_line_is_refused(self, provider_id):
        text = (
            f"{HEAD}  - provider_id: {provider_id}\n    provider_type: x\n    config: {{u: '${{env.U}}'}}\n"
        )
        bad, missing = read(text, X="a\tb").issues
        assert (bad.code, bad.where.line) == ("bad-id", 4)
        assert missing.path == "providers.inference[0].config.u"

    def test_odd_names_do_not_break_the_line(self):
        stack = read_config('"a\\nb": ${env.A}')
        assert only_issue(stack).path == "config.a?b"


class TestSettings:
    def test_none_is_given(self):
        assert read(GOOD).settings == {}
        assert read(GOOD + "stackconf:\n").settings == {}

    @pytest.mark.parametrize(
        ("text", "environ", "value"),
        [
            ("{sealed: false, unknown_types: skip}", {}, {"sealed": False, "unknown_types": "skip"}),
            ("{sealed: '${env.SEALED:=true}'}", {}, {"sealed": True}),
            ("{sealed: '${env.SEALED:=true}'}", {"SEALED": "False"}, {"sealed": False}),
            ("{unknown_types: '${env.U:=error}'}", {"U": "skip"}, {"unknown_types": "skip"}),
            ("{keep_revisions: 1}", {}, {"keep_revisions": 1}),
            ("{keep_revisions: all}", {}, {"keep_revisions": "all"}),
            ("{keep_revisions: '${env.KEEP:=50}'}", {}, {"keep_revisions": 50}),
        ],
    )
    def test_they_are_typed_also_from_the_environment(self, text, environ, value):
        stack = read(GOOD + f"stackconf: {text}\n", **environ)
        assert stack.issues == ()
        assert stack.settings == value
        assert [type(item) for item in stack.settings.values()] == [type(item) for item in value.values()]

    @pytest.mark.parametrize("value", ["0", "-1", "true", "1.5", "some", "[1]", "'7'", "'${env.KEEP:=0}'"])
    def test_a_count_is_a_whole_number_from_1(self, value):
        stack = read(GOOD + f"stackconf: {{keep_revisions: {value}}}\n")
        assert stack.settings == {}
        (issue,) = stack.issues
        assert issue.code == "bad-setting"
        assert issue.message == "`keep_revisions` must be `all` or a whole number from 1"
        assert issue.where is not None


class TestRealOddities:
    """What the files of llama-stack and OGX hold, from October 2024 to 1.5.0."""

    def test_every_top_level_key_of_every_version_is_known(self):
        keys = "".join(f"{key}:\n" for key in sorted(UPSTREAM_KEYS - {"providers"}) if "_provider" not in key)
        keys = re.sub("(routing_table|provider_map):\n", "", keys)
        assert read(GOOD.replace("version: 2\n", "") + keys).issues == ()

    @pytest.mark.parametrize("version", ["version: '2'\n", "version: 2\n", ""])
    def test_version_is_text_or_number_or_absent(self, version):
        assert read(GOOD.replace("version: 2\n", version)).issues == ()

    def test_keys_for_anchors_are_let_through(self):
        stack = read("x-common: &c {timeout: 3}\n" + GOOD + "    config: {<<: *c, url: u}\n")
        assert stack.issues == ()
        assert stack.providers[0].config == {"timeout": 3, "url": "u"}

    def test_a_repeated_mapping_is_expanded_wherever_it_stands(self):
        stack = read_config("a: &x {u: '${env.U:=1}'}\nb: *x")
        assert stack.providers[0].config == {"a": {"u": "1"}, "b": {"u": "1"}}

    def test_the_older_grammar(self):
        stack = read(
            f"{HEAD}  - provider_id: ${{env.ENABLE_A+a}}\n    provider_type: remote::a\n"
            "  - provider_id: b\n    provider_type: remote::hf::endpoint\n    config:\n"
            "      dsn: ${env.DSN:postgresql://user:hunter2@host/db}\n"
            '      name: "${env.NAME:\\u200B}"\n      key: ${env.KEY:}\n'
            "      dir: ${env.DIR:~/.llama}/x.db\n",
            HOME="/home/me",
        )
        assert (stack.grammar, stack.issues) == ("old", ())
        assert len(stack.disabled) == 1
        config = stack.providers[0].config
        assert config == {
            "dsn": "postgresql://user:hunter2@host/db",
            "name": "\u200b",
            "key": "",
            "dir": "/home/me/.llama/x.db",
        }
        assert not config["key"].null
        assert "hunter2" not in repr(stack)

    def test_many_switched_off_providers(self):
        entries = "".join(
            f"  - provider_id: ${{env.ENABLE_{n}:=__disabled__}}\n    provider_type: remote::p{n}\n"
            f"    config: {{key: '${{env.KEY_{n}}}'}}\n"
            for n in range(28)
        )
        stack = read(HEAD + entries, ENABLE_3="three", KEY_3="k")
        assert stack.issues == ()
        assert [p.key for p in stack.providers] == ["inference/three"]
        assert len(stack.disabled) == 27

    def test_storage_resources_and_external_folders_are_kept(self):
        rest = (
            "external_providers_dir: ${env.EXTERNAL_PROVIDERS_DIR:=~/.llama/providers.d}\n"
            "external_apis_dir: /apis\nstorage: {backends: {kv_default: {type: kv_sqlite}}}\n"
            "registered_resources: {models: [{model_id: '${env.MODEL:+x}'}]}\nserver: {port: 8321}\n"
        )
        stack = read(GOOD + rest)
        assert stack.issues == ()
        assert stack.other["external_providers_dir"].startswith("${env.")
        assert "EXTERNAL_PROVIDERS_DIR" not in stack.environment

    OCTOBER = """\
built_at: '2024-10-08T17:40:45.325529'
image_name: local
docker_image: null
conda_env: local
apis_to_serve:
- inference
- memory
- shields
api_providers:
  inference:
    providers:
    - remote::ollama
  telemetry:
    provider_type: meta-reference
    config: {}
routing_table:
  inference:
  - provider_type: remote::ollama
    config:
      host: localhost
      port: 6000
    routing_key: Llama3.1-8B-Instruct
  safety:
  - provider_type: meta-reference
    config: {}
    routing_key: [llama_guard, code_scanner_guard]
  - provider_type: meta-reference
    config: {}
    routing_key: injection_shield
"""

    def test_the_form_of_october_2024_is_read_as_upstream_upgrades_it(self):
        stack = read(self.OCTOBER)
        issue = only_issue(stack)
        assert str(issue) == (
            "stack.yaml:16:1: warning: routing_table: this is the form of October 2024 (`routing_table`), "
            "read as upstream upgrades it; write `providers:` instead"
        )
        assert [(p.key, p.provider_type, dict(p.config)) for p in stack.providers] == [
            ("inference/remote::ollama", "remote::ollama", {"host": "localhost", "port": 6000}),
            ("safety/meta-reference-00", "meta-reference", {}),
            ("safety/meta-reference-01", "meta-reference", {}),
            ("telemetry/meta-reference", "meta-reference", {}),
        ]
        assert stack.apis == ("inference", "memory", "shields", "safety", "telemetry")
        assert str(stack.position_of(stack.providers[0], "port")) == "stack.yaml:21:13"

    def test_faults_in_that_form_have_their_places_too(self):
        text = self.OCTOBER.replace("port: 6000", "port: ${env.PORT}")
        text = text.replace(
            "    provider_type: meta-reference\n    config: {}\nrouting",
            "    provider_type: x\n    cofig: {}\nrouting",
        )
        unknown, missing = read(text).errors
        assert str(unknown).startswith(
            "stack.yaml:15:5: error: telemetry/x: cofig: a provider has no key `cofig`"
        )
        assert str(missing).startswith("stack.yaml:21:13: error: inference/remote::ollama: config.port: ")
        assert missing.code == "env-missing"

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("routing_table: []\n", "`routing_table` must map each api to its providers, and is a list"),
            ("routing_table: {inference: {provider_type: x}}\n", "begin the provider with `- `"),
            ("routing_table: {inference: [x]}\n", "a provider is a mapping"),
            ("routing_table: {inference: [{config: {}}]}\n", "`provider_type` is missing"),
        ],
    )
    def test_wrong_shapes_in_that_form_are_one_line_each(self, text, said):
        warning, error = sorted(read(text).issues, key=lambda issue: issue.level, reverse=True)
        assert warning.code == "old-form"
        assert said in str(error)


NAMES = st.sampled_from(
    [
        *UPSTREAM_KEYS,
        "stackconf",
        "inference",
        "safety",
        "provider_id",
        "provider_type",
        "config",
        "module",
        "x",
    ]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(
        ["", "a", "b", "__disabled__", "${env.A}", "${env.B:=x}", "${env.a}", "${env.A:x}", "$X", "{{A}}"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
PROVIDERS = st.dictionaries(
    st.sampled_from(["inference", "safety"]),
    VALUES | st.lists(VALUES | st.dictionaries(NAMES, VALUES, max_size=5), max_size=3),
)
FILES = st.fixed_dictionaries(
    {},
    optional={
        "providers": VALUES | PROVIDERS,
        "routing_table": VALUES | PROVIDERS,
        "api_providers": PROVIDERS,
    },
).flatmap(lambda base: st.dictionaries(NAMES, VALUES, max_size=3).map(lambda more: {**more, **base}))


@given(FILES | VALUES)
def test_any_shape_ends_in_providers_and_placed_issues(data):
    text = yaml.safe_dump(data)
    try:
        stack = read(text, A="value-of-A")
    except InvalidConfig as error:
        issues, stack = error.issues, None
    if stack is not None:
        issues = stack.issues
        for entry in stack.providers:
            assert entry.provider_id
            assert entry.provider_type
            assert stack.document.position(entry.path) is not None
        keys = [entry.key for entry in stack.providers]
        assert len(keys) == len(set(keys))
    for issue in issues:
        assert issue.where is not None
        assert issue.where.line <= text.count("\n")
        assert "\n" not in str(issue)
        assert issue.code
        if issue.code != "duplicate-provider":  # an id is no secret, wherever it comes from
            assert "value-of-A" not in issue.message + issue.hint + issue.path
