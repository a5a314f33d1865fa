"""Who may set what: the policies that come along, and what the operator makes of them."""

from __future__ import annotations

import pytest
from ogx_kit import one, registered

from stackconf import InvalidConfig
from stackconf.fields import ClassPlan, labels_at, plan_of, plan_with, user_paths

CLOSED = (
    "api_key",
    "auth_credential",
    "db",
    "db_path",
    "headers",
    "host",
    "kvstore",
    "metadata_store",
    "moderation_endpoint",
    "password",
    "path",
    "persistence",
    "proxy",
    "region_name",
    "sqlstore",
    "storage_dir",
    "store",
    "tls",
    "token",
    "trust_remote_code",
    "uri",
    "user",
)
"""Never the user's, at whatever depth."""


def test_every_builtin_type_has_an_entry_and_every_entry_a_type(upstream):
    assert upstream.policies.keys() == {spec.key for spec in upstream.internals.builtin()}


def test_every_field_that_a_policy_names_is_there(upstream):
    for key, policy in upstream.policies.items():
        config_class = upstream.config_class(key)
        plan = plan_with(config_class, policy.user_fields("reload"))
        assert set(user_paths(plan)) == policy.allow | policy.guarded, key
        assert set(policy.urls) <= config_class.model_fields.keys(), key


def test_nothing_that_is_open_holds_a_secret_or_says_where_things_are_kept(upstream):
    opened = 0
    for key, policy in upstream.policies.items():
        plan = plan_with(upstream.config_class(key), policy.user_fields("reload"))
        for path in user_paths(plan):
            opened += 1
            assert not labels_at(plan, path.split(".")).secret, (key, path)
            assert not set(path.split(".")) & set(CLOSED), (key, path)
            assert below(plan, path.split(".")).isdisjoint(CLOSED), (key, path)
    assert opened > 20


def below(plan: ClassPlan, path: list[str]) -> set[str]:
    """The names of all fields below one."""
    for step in path[:-1]:
        plan = plan.fields[step].models[0]
    names: set[str] = set()
    queue = list(plan.fields[path[-1]].models)
    while queue:
        each = queue.pop()
        names |= each.fields.keys()
        queue += [model for field in each.fields.values() for model in field.models]
    return names


def test_an_address_is_open_only_where_no_credential_would_go_there(upstream):
    addresses = {
        (key, path)
        for key, policy in upstream.policies.items()
        for path in policy.allow
        if "url" in path or "endpoint" in path or "base" in path
    }
    assert addresses == set()


def test_text_fields_that_are_addresses_are_checked_to_be(upstream):
    """Those of every type that takes text for one, but for what is no http address."""
    others = {
        "vector_io/remote::elasticsearch elasticsearch_url",  # localhost:9200
        "vector_io/remote::weaviate weaviate_cluster_url",  # localhost:8080
    }
    found = set()
    for key in upstream.policies:
        for name, field in upstream.config_class(key).model_fields.items():
            words = name.split("_")
            if field.annotation in (str, str | None) and {"url", "endpoint", "base"} & {words[-1]}:
                found |= {f"{key} {name}"} if name not in upstream.policies[key].urls else set()
    assert found - others <= {"inference/remote::hf::endpoint endpoint_name"}


def test_upstreams_classes_are_left_as_they_are(upstream, tmp_path):
    text = one(upstream, "tool_runtime", "remote::brave-search", "{}")
    with upstream.stack(tmp_path, text) as stack:
        assert stack.configurations.inspect()["providers"]["tool_runtime"]
    config_class = upstream.config_class("tool_runtime/remote::brave-search")
    assert config_class.model_fields["max_results"].json_schema_extra is None
    assert not plan_of(config_class).has_user


def test_users_set_what_is_open_and_nothing_else(upstream, tmp_path):
    text = one(upstream, "tool_runtime", "remote::brave-search", "{api_key: abc}")
    with upstream.stack(tmp_path, text) as stack:
        kept = registered(stack, "tool_runtime", {"max_results": 7, "api_key": "mine"})
        assert [dropped.path for dropped in kept.dropped] == ["config.api_key"]
        (shown,) = stack.configurations.inspect()["providers"]["tool_runtime"]
        assert shown["config"]["max_results"] == 7
        assert "api_key" not in shown["config"]
        assert stack.resolution.providers["tool_runtime/one"].config.max_results == 7


RESTARTING = {
    "llama-stack": {"telemetry/inline::meta-reference"},
    "ogx": {
        f"file_processors/inline::{each}"
        for each in ("auto", "docling", "markitdown", "pypdf", "unstructured")
    },
}
"""What runs in worker processes, or is set once for the process."""


def test_all_is_swapped_but_what_a_process_can_have_only_once(upstream):
    locking = {f"vector_io/inline::{each}" for each in ("chromadb", "milvus", "qdrant")}
    found = {key for key, kind in upstream.kinds.items() if kind.update != "reload"}
    assert found == locking | RESTARTING[upstream.name]
    assert {upstream.kinds[key].update for key in found} == {"restart"}


# The operator


def test_the_operator_opens_and_closes_fields(upstream, tmp_path):
    policy = "{allow: [api_key], deny: [max_results]}"
    top = f"stackconf:\n  policy:\n    tool_runtime/remote::brave-search: {policy}\n"
    text = one(upstream, "tool_runtime", "remote::brave-search", "{}", top)
    with upstream.stack(tmp_path, text) as stack:
        assert upstream.lines(tmp_path, text) == []
        kept = registered(stack, "tool_runtime", {"max_results": 7, "api_key": "${env.OGX_T_KEY}"})
        assert [dropped.path for dropped in kept.dropped] == ["config.max_results"]


def test_everything_can_be_closed(upstream, tmp_path):
    top = "stackconf:\n  policy:\n    tool_runtime/remote::brave-search: {deny: ['*']}\n"
    text = one(upstream, "tool_runtime", "remote::brave-search", "{}", top)
    nothing = pytest.raises(InvalidConfig, match="it sets no user field of the stack")
    with upstream.stack(tmp_path, text) as stack, nothing:
        registered(stack, "tool_runtime", {"max_results": 7})


def test_what_is_below_an_open_field_can_be_closed(ogx, tmp_path):
    top = "stackconf:\n  policy:\n    inference/remote::ollama: {deny: [network.limits.keepalive_expiry]}\n"
    config = "{network: {limits: {max_connections: 5}}}"
    text = one(ogx, "inference", "remote::ollama", config, top)
    with ogx.stack(tmp_path, text) as stack:
        wanted = {"network": {"limits": {"max_connections": 9, "keepalive_expiry": 1}}}
        kept = registered(stack, "inference", wanted)
        assert [dropped.path for dropped in kept.dropped] == ["config.network.limits.keepalive_expiry"]


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (
            "tool_runtime/remote::brave-serch: {}",
            "`tool_runtime/remote::brave-serch`; did you mean `tool_runtime/remote::brave-search`?",
        ),
        ("tool_runtime/remote::brave-search: {alow: [x]}", "unknown key `alow`; did you mean `allow`?"),
        ("tool_runtime/remote::brave-search: [max_results]", "must be a mapping; write"),
        ("tool_runtime/remote::brave-search: {allow: api_key}", "must be a list of fields; write"),
        (
            "tool_runtime/remote::brave-search: {allow: [api_kee]}",
            "BraveSearchToolConfig has no field `api_kee`; did you mean `api_key`?",
        ),
        ("tool_runtime/remote::tavily-search: {deny: [nothing]}", "has no field `nothing`"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_one_line_with_its_place(upstream, tmp_path, policy, said):
    top = f"stackconf:\n  policy:\n    {policy}\n"
    text = one(upstream, "tool_runtime", "remote::brave-search", "{}", top)
    (line,) = upstream.lines(tmp_path, text)
    assert line.startswith("stack.yaml:10:")
    assert said in line


# Credentials


def ollama(upstream) -> tuple[str, str]:
    """A type whose address is open, and the field."""
    return ("remote::vllm", "url") if upstream.name == "llama-stack" else ("remote::ollama", "base_url")


@pytest.mark.parametrize("held", [False, True])
def test_a_user_moves_an_address_only_while_no_key_would_follow(upstream, tmp_path, held):
    kind, address = ollama(upstream)
    credential = "api_token" if upstream.name == "llama-stack" else "auth_credential"
    config = f"{{{address}: 'http://here:1/v1', {credential}: {'sk-4711' if held else 'fake'}}}"
    with upstream.stack(tmp_path, one(upstream, "inference", kind, config)) as stack:
        wanted = {address: "http://there:2/v1"}
        if not held:
            registered(stack, "inference", wanted)
            assert "there" in str(getattr(stack.resolution.providers["inference/one"].config, address))
            return
        with pytest.raises(InvalidConfig) as raised:
            registered(stack, "inference", wanted)
    (issue,) = [each for each in raised.value.issues if each.level == "error"]
    assert issue.code == "credential-target"
    assert f"`{credential}`, which would be sent there" in issue.message
    assert "sk-4711" not in str(issue)


def test_the_operator_may_let_the_key_follow(upstream, tmp_path):
    kind, address = ollama(upstream)
    credential = "api_token" if upstream.name == "llama-stack" else "auth_credential"
    top = f"stackconf:\n  policy:\n    inference/{kind}: {{allow: [{address}]}}\n"
    config = f"{{{address}: 'http://here:1/v1', {credential}: sk-4711}}"
    with upstream.stack(tmp_path, one(upstream, "inference", kind, config, top)) as stack:
        registered(stack, "inference", {address: "http://there:2/v1"})
        config_now = stack.resolution.providers["inference/one"].config
        assert "there" in str(getattr(config_now, address))


# Secrets


SECRETS = ("api_key", "api_token", "auth_credential", "access_token", "password", "secret", "session_token")


def test_every_field_that_upstream_redacts_is_redacted_here(upstream):
    found = 0
    for key in upstream.policies:
        plan = plan_of(upstream.config_class(key))
        for name, field in plan.fields.items():
            if any(word in name for word in SECRETS):
                found += 1
                assert field.secret, (key, name)
    assert found > 20
