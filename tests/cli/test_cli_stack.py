"""The commands on a real stack, from what is configured to what is applied."""

from __future__ import annotations

import json

import pytest
import yaml

REGISTERED = '{"inference": [{"provider_id": "one", "config": {"url": "http://user", "mode": "fast"}}]}'


def edit(here, old: str, new: str) -> None:
    file = here / "stack.yaml"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def test_inspect_prints_user_fields_in_the_shape_that_register_takes(cli, here) -> None:
    ran = cli("inspect")
    assert (ran.code, ran.err) == (0, "")
    assert yaml.safe_load(ran.out) == {
        "providers": {
            "inference": [
                {
                    "config": {"url": "http://one", "threads": 4, "token": "********"},
                    "provider_id": "one",
                    "provider_type": "remote::acme",
                }
            ],
            "safety": [],
            "vector_io": [{"config": {"size": 1}, "provider_id": "vectors", "provider_type": "inline::acme"}],
        }
    }
    assert cli("configurations", "inspect").out == ran.out
    assert cli("inspect", "--json").data == yaml.safe_load(ran.out)
    assert cli("configurations", "register", "-", stdin=ran.out).code == 0


def test_inspect_all_prints_every_field(cli) -> None:
    config = yaml.safe_load(cli("inspect", "--all").out)["providers"]["inference"][0]["config"]
    assert config == {"url": "http://one", "threads": 4, "token": "********", "mode": "plain"}


def test_explain_says_layer_source_reason_and_what_was_beaten(cli) -> None:
    assert cli("explain", "one").out.splitlines() == [
        "inference/one (remote::acme)",
        "",
        "  url = http://one",
        "    from  stack     stack.yaml:8:12",
        "    over  class     http://class  stackconf_plugin_file_plugin.Config",
        "",
        "  threads = 4",
        "    from  hardware  plugin plugin.py: four of four cores",
        "    over  class     1  stackconf_plugin_file_plugin.Config",
        "",
        "  token = ********",
        "    from  stack     stack.yaml:9:14: from ${env.ACME_TOKEN:=...}",
        "    over  class     null  stackconf_plugin_file_plugin.Config",
        "",
        "  1 field as the class has them (stackconf_plugin_file_plugin.Config)",
        "      mode = plain",
    ]


def test_explain_one_field_and_its_misspelling(cli) -> None:
    data = cli("explain", "inference/one", "threads", "--json").data
    assert [field["path"] for field in data["fields"]] == ["threads"]
    assert data["fields"][0]["layer"] == "hardware"
    assert data["fields"][0]["beat"][0] == {
        "layer": "class",
        "value": 1,
        "source": "stackconf_plugin_file_plugin.Config",
        "reason": "",
    }
    ran = cli("explain", "one", "thread")
    assert (ran.code, ran.err) == (1, "error: inference/one has no field `thread`; did you mean `threads`?\n")


def test_registering_changes_exactly_that_and_unregistering_takes_it_back(cli) -> None:
    before = cli("inspect", "--json").data
    ran = cli("configurations", "register", REGISTERED)
    assert ran.code == 0
    assert ran.out.splitlines() == [
        "registered `default` as revision 1, assigned",
        "  inference/one",
        "    url: http://user",
    ]
    assert "config.mode: dropped: not a user field" in ran.err
    expected = json.loads(json.dumps(before))
    expected["providers"]["inference"][0]["config"]["url"] = "http://user"
    assert cli("inspect", "--json").data == expected
    assert "overlay   configuration `default` (revision 1)" in cli("explain", "one", "url").out
    assert cli("configurations", "unregister", "default").code == 0
    assert cli("inspect", "--json").data == before


def test_register_takes_files_standard_input_and_options(cli, here) -> None:
    (here / "mine.json").write_text(REGISTERED, encoding="utf-8")
    assert cli(
        "configurations", "register", "--config", "mine.json", "--on-dropped", "ignore"
    ).err.startswith("hint: ")
    assert cli("configurations", "register", "mine.json", "--on-dropped", "error").code == 1
    ran = cli("configurations", "register", "-", "--name", "x", "--no-assign", "--json", stdin=REGISTERED)
    assert ran.data["revision"] == 2
    assert ran.data["assigned"] is False
    assert ran.data["kept"]["inference"][0]["config"] == {"url": "http://user"}
    assert ran.data["dropped"][0]["path"] == "config.mode"
    late = cli("configurations", "register", "mine.json", "--expect-revision", "1")
    assert (late.code, late.err.split(";")[0]) == (1, "error: expected revision 1, but the head is 2")


def test_configurations_are_listed_got_assigned_and_unassigned(cli) -> None:
    cli("configurations", "register", REGISTERED)
    cli("configurations", "register", REGISTERED, "--name", "second", "--no-assign")
    listed = cli("configurations", "list", "--json").data
    assert [(each["name"], each["assigned"]) for each in listed["configurations"]] == [
        ("default", 1),
        ("second", None),
    ]
    assert cli("configurations", "list").out.splitlines() == [
        "name     state         source  revision  providers      description",
        "default  assigned (1)  user    1         inference/one",
        "second   available     user    2         inference/one",
    ]
    got = yaml.safe_load(cli("configurations", "get", "second").out)
    assert got["providers"]["inference"][0]["config"] == {"url": "http://user"}
    assert cli("configurations", "assign", "second").out == "assigned `second` as revision 3\n"
    assert cli("configurations", "unassign", "second").out == "unassigned `second` as revision 4\n"
    wrong = cli("configurations", "get", "secnd")
    assert (wrong.code, wrong.err) == (1, "error: no configuration `secnd`; did you mean `second`?\n")


def test_a_refused_configuration_says_where_and_stores_nothing(cli, here) -> None:
    (here / "mine.yaml").write_text(
        "inference:\n- provider_id: one\n  config:\n    threads: 99\n", encoding="utf-8"
    )
    ran = cli("configurations", "register", "mine.yaml")
    assert ran.code == 1
    assert ran.err.splitlines()[0] == "error: the configuration was not registered"
    assert ran.err.splitlines()[1].startswith("mine.yaml:4:5: error: inference/one: config.threads: ")
    assert cli("configurations", "list", "--json").data["revision"] == 0


def test_plan_shows_joins_with_reasons_then_changes_then_leavers(cli, here) -> None:
    ran = cli("plan", "--exit-code")
    assert ran.code == 3
    assert ran.out.splitlines() == [
        "+ inference/one (remote::acme) joins",
        "    url: http://one  stack, stack.yaml:8:12",
        "    threads: 4       hardware, plugin plugin.py: four of four cores",
        "    token: ********  stack, stack.yaml:9:14: from ${env.ACME_TOKEN:=...}",
        "    1 field as the class has them",
        "",
        "+ vector_io/vectors (inline::acme) joins",
        "    1 field as the class has them",
        "",
        "stack.yaml, revision 0: 2 would join",
    ]
    assert cli("apply").code == 0
    again = cli("plan", "--exit-code")
    assert (again.code, again.out) == (
        0,
        "stack.yaml, revision 0: nothing would change; 2 providers unchanged\n",
    )
    edit(here, "http://one", "http://two")
    edit(here, "vector_io:\n", "safety: []\n  vector_io: []\n  other:\n")
    edit(here, "  - provider_id: vectors\n    provider_type: inline::acme\n    config: {}\n", "")
    edit(here, "  vector_io: []\n  other:\n", "  vector_io: []\n")
    assert cli("plan").out.splitlines() == [
        "~ inference/one (remote::acme) changes, reload",
        "    url: http://one -> http://two [reload]  stack, stack.yaml:8:12",
        "",
        "- vector_io/vectors (inline::acme) leaves",
        "",
        "stack.yaml, revision 0: 1 would change, 1 would leave",
    ]
    data = cli("plan", "--json").data
    assert data["summary"] == {"join": 0, "change": 1, "leave": 1, "unchanged": 0}
    assert data["changes"][0]["fields"][0]["before"] == "http://one"


def test_apply_reports_each_provider_and_pending_is_no_failure(cli, here) -> None:
    edit(here, "http://one", "http://down")
    ran = cli("apply")
    assert ran.code == 0
    first, second, verdict = ran.out.splitlines()
    assert first.split() == ["pending", "inference/one", first.split()[2], "s", "cannot", "reach", "it"]
    assert second.split()[:2] == ["applied", "vector_io/vectors"]
    assert verdict == "revision 0 applied in part: 1 applied, 1 pending"
    assert "the next `stackconf apply` tries again" in ran.err
    assert cli("apply", "--json").data["state"] == "pending"
    strict = cli("apply", "--require-healthy")
    assert strict.code == 1
    assert "not healthy: cannot reach it" in strict.out


def test_a_failed_apply_is_1_and_says_what_was_taken_back(cli, here) -> None:
    edit(here, "config: {}", "config: {size: 13}")
    ran = cli("apply")
    assert ran.code == 1
    first, second, verdict = ran.out.splitlines()
    assert first.split()[:3] == ["rolled", "back", "inference/one"]
    assert second.split()[:2] == ["failed", "vector_io/vectors"]
    assert "ValueError: refused by http://me:********@server/" in second
    assert verdict == "revision 0 failed: 1 failed, 1 rolled back"
    assert "hunter2" not in ran.out + ran.err
    data = cli("apply", "--json").data
    assert [each["state"] for each in data["outcomes"]] == ["rolled_back", "failed"]


def test_what_could_not_be_taken_back_is_named(cli, here) -> None:
    edit(here, "config: {}", "config: {size: 13}")
    edit(here, "http://one", "http://stuck")
    ran = cli("apply")
    assert ran.code == 1
    assert ran.out.splitlines()[0].split()[:2] == ["unknown", "inference/one"]
    assert ran.err.splitlines()[-1] == (
        "error: the apply failed, and inference/one could not be taken back: its state is unknown"
    )


def test_errors_in_one_provider_leave_the_others_to_be_seen(cli, here) -> None:
    edit(here, "config: {}", "config: {size: many}")
    for command in ("inspect", "plan", "explain one", "providers list"):
        ran = cli(*command.split())
        assert ran.code == 1, command
        assert "inference/one" in ran.out or "http://one" in ran.out
        assert ran.err.startswith("stack.yaml:15:20: error: vector_io/vectors: config.size: ")
    applied = cli("apply")
    assert (applied.code, applied.out) == (1, "")
    assert applied.err.startswith("error: nothing was applied: 1 error in the configuration\n")


def test_unknown_types_are_errors_with_a_way_out(cli, here) -> None:
    edit(here, "inline::acme", "inline::weather")
    ran = cli("plan")
    assert ran.code == 1
    assert ran.err.splitlines()[-1] == "hint: --skip-unknown leaves providers of unknown types alone"
    skipped = cli("plan", "--skip-unknown")
    assert (skipped.code, skipped.err) == (0, "")
    assert "not managed\n    vector_io/vectors: no installed plugin provides" in skipped.out


def test_what_is_not_managed_stops_nothing_and_is_told_shortly(cli, here) -> None:
    edit(here, "inline::acme", "inline::weather")
    edit(here, "config: {}", "config: {url: '${env.WEATHER_URL}'}")
    assert cli("apply").code == 1
    applied = cli("apply", "--skip-unknown")
    assert (applied.code, applied.out.splitlines()[-1]) == (0, "revision 0 applied: 1 applied")
    assert (
        "warning: vector_io/vectors: config.url: the environment variable `WEATHER_URL` is not" in applied.err
    )
    assert "hint: 1 provider not managed, of unknown type; -v says which" in applied.err
    ran = cli("status", "--skip-unknown", "--exit-code")
    assert (ran.code, ran.err) == (0, "")
    assert "vector_io/vectors  not managed  0       -      -          -" in ran.out.splitlines()
    assert "inline::weather" in cli("drift", "--skip-unknown", "-v").err
    assert "inline::weather" in cli("check", "--skip-unknown").err


def test_check_reports_every_issue_of_every_file(cli, here) -> None:
    (here / "bad.yaml").write_text("version: 2\nproviderz: {}\n", encoding="utf-8")
    ran = cli("check", "stack.yaml", "bad.yaml", "gone.yaml")
    assert ran.code == 1
    assert ran.out.splitlines() == [
        "stack.yaml: 2 providers, no issues",
        "bad.yaml: 0 providers, 1 error",
        "gone.yaml: 1 error",
    ]
    assert [line.split(" ")[0] for line in ran.err.splitlines()] == ["bad.yaml:2:1:", "error:"]
    data = cli("check", "stack.yaml", "bad.yaml", "--json").data
    assert data["valid"] is False
    assert [each["valid"] for each in data["files"]] == [True, False]
    assert data["files"][1]["issues"][0]["where"] == {"file": "bad.yaml", "line": 2, "column": 1}
    assert cli("check").out == "stack.yaml: 2 providers, no issues\n"


def test_check_stores_nothing(cli, here) -> None:
    cli("check")
    assert sorted(each.name for each in here.iterdir() if each.name != "__pycache__") == [
        "plugin.py",
        "stack.yaml",
    ]


def test_providers_are_listed_with_their_state(cli, here) -> None:
    cli("apply")
    assert cli("providers", "list").out.splitlines() == [
        "provider                type          state     last apply  plugin",
        "inference/one           remote::acme  valid     applied     plugin.py",
        "vector_io/vectors       inline::acme  valid     applied     plugin.py",
        "inference/__disabled__  remote::acme  disabled  -           -",
    ]
    (here / "stack.yaml").unlink()
    ran = cli("providers", "list", "--json")
    assert {"type": "inference/remote::acme", "state": "enabled", "plugin": "plugin.py"} in ran.data["types"]


@pytest.mark.parametrize("name", ["one", "inference/one", "inference/remote::acme", "remote::acme"])
def test_the_fields_of_a_provider_or_type_are_shown(cli, name) -> None:
    data = cli("providers", "show", name, "--json").data
    assert data["type"] == "inference/remote::acme"
    threads = data["fields"][1]
    assert (threads["path"], threads["type"], threads["default"], threads["update"]) == (
        "threads",
        "int 1..64",
        1,
        "in_place",
    )
    assert [field["user_field"] for field in data["fields"]] == [True, True, True, False]
    assert data["fields"][2]["secret"] is True
    assert "A server of the Acme kind" in cli("providers", "show", name).out


def test_options_stand_before_the_command_or_after_it(cli, here) -> None:
    (here / "stack.yaml").rename(here / "other.yaml")
    expected = cli("-s", "other.yaml", "inspect").out
    assert cli("inspect", "-s", "other.yaml").out == expected
    assert cli("configurations", "-s", "other.yaml", "inspect").out == expected
    assert json.loads(cli("--json", "inspect", "--stack=other.yaml").out) == yaml.safe_load(expected)


def test_the_stack_and_the_store_come_from_the_environment_too(cli, here, monkeypatch) -> None:
    (here / "stack.yaml").rename(here / "other.yaml")
    monkeypatch.setenv("STACKCONF_STACK", "other.yaml")
    monkeypatch.setenv("STACKCONF_STORE", str(here / "elsewhere.db"))
    assert cli("configurations", "register", REGISTERED).code == 0
    assert (here / "elsewhere.db").exists()
    assert cli("configurations", "list", "--store", "empty.db", "--json").data["revision"] == 0


def test_of_several_stack_files_the_first_is_taken_and_that_is_said(cli, here) -> None:
    (here / "run.yaml").write_text("version: 2\nproviders: {}\n", encoding="utf-8")
    ran = cli("check")
    assert ran.out == "stack.yaml: 2 providers, no issues\n"
    assert ran.err == "hint: taking `stack.yaml`; `run.yaml` here too, to be had with --stack\n"


def test_every_name_can_be_completed(process, here) -> None:
    def completed(words: str, number: int) -> str:
        return process(_STACKCONF_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(number)).out

    assert completed("stackconf expl", 1) == "plain,explain\n"
    assert completed("stackconf explain inf", 2) == "plain,inference/one\n"
    assert "plain,--skip-unknown" in completed("stackconf plan --s", 2)
    (here / "stack.yaml").write_text("no: [stack", encoding="utf-8")
    assert completed("stackconf explain inf", 2).strip() == ""


def test_completing_says_nothing_else_and_imports_no_plugin_file(process, cli, here) -> None:
    (here / "run.yaml").write_text("providers: {}\n", encoding="utf-8")
    (here / "loud.py").write_text("open('imported', 'w').close()\n", encoding="utf-8")
    assert cli("configurations", "register", REGISTERED).code == 0
    for words, number, found in (
        ("stackconf explain inf", 2, "plain,inference/one\n"),
        ("stackconf --plugin loud.py configurations get def", 5, "plain,default\n"),
    ):
        ran = process(_STACKCONF_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(number))
        assert (ran.out, ran.err) == (found, "")
    assert not (here / "imported").exists()


def test_a_types_fields_are_shown_beside_a_broken_stack(cli, here) -> None:
    (here / "stack.yaml").write_text("no: [stack", encoding="utf-8")
    ran = cli("providers", "show", "inline::acme")
    assert (ran.code, ran.err) == (0, "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_is_printed(cli, shell) -> None:
    ran = cli("completion", shell)
    assert ran.code == 0
    assert "_STACKCONF_COMPLETE" in ran.out
