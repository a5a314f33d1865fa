"""`plugins`: from metadata alone; and `hardware` on this machine."""

from __future__ import annotations


def test_what_stackconf_brings_is_listed(cli, monkeypatch) -> None:
    monkeypatch.delenv("STACKCONF_DISABLED_PLUGINS")
    listed = cli("plugins", "list", "--json").data["plugins"]
    mine = {each["name"]: each for each in listed if each["distribution"] == "stackconf"}
    assert set(mine) == {"host", "nvidia"}
    assert mine["host"]["enabled"] is True
    assert mine["host"]["group"] == "stackconf.plugins"


def test_disabling_lasts_and_can_be_taken_back(cli, monkeypatch) -> None:
    monkeypatch.delenv("STACKCONF_DISABLED_PLUGINS")

    def enabled() -> bool:
        listed = cli("plugins", "list", "--json").data["plugins"]
        return next(each["enabled"] for each in listed if each["name"] == "nvidia")

    assert (
        cli("plugins", "disable", "nvidia").out == "`nvidia` is disabled: 1 entry point\n  plugins  nvidia\n"
    )
    assert not enabled()
    assert "already disabled" in cli("plugins", "disable", "nvidia").out
    assert cli("plugins", "enable", "nvidia").code == 0
    assert enabled()
    assert "was not disabled" in cli("plugins", "enable", "nvidia").out


def test_a_name_that_nothing_has_is_an_error(cli) -> None:
    ran = cli("plugins", "disable", "nvidai")
    assert (ran.code, ran.err) == (
        1,
        "error: no installed plugin or distribution is called `nvidai`; did you mean `nvidia`?\n",
    )


def test_what_the_environment_disables_cannot_be_enabled_here(cli) -> None:
    ran = cli("plugins", "enable", "nvidia")
    assert (ran.code, ran.err) == (
        1,
        "error: `nvidia` is still disabled, by the variable STACKCONF_DISABLED_PLUGINS\n",
    )


def test_a_plugin_of_a_disabled_distribution_is_still_disabled(cli, monkeypatch) -> None:
    monkeypatch.delenv("STACKCONF_DISABLED_PLUGINS")
    cli("plugins", "disable", "stackconf")
    ran = cli("plugins", "enable", "nvidia")
    assert ran.code == 1
    assert ran.err == "error: `nvidia` is still disabled, by `stackconf`; enable that instead\n"


def test_hardware_is_drawn_and_printed_as_json(cli, monkeypatch) -> None:
    monkeypatch.delenv("STACKCONF_DISABLED_PLUGINS")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    ran = cli("hardware", plugin=False)
    assert ran.code == 0
    headings = [line for line in ran.out.splitlines() if line and not line.startswith(" ")]
    assert headings[:5] == ["Host", "CPU", "Memory", "Accelerators", "Visibility variables"]
    data = cli("hardware", "--json", plugin=False).data
    assert data["cpu"]["logical_cores"] >= 1
    assert f"{data['memory']['total_bytes'] / 2**30:.1f} GiB" in ran.out
    assert 'CUDA_VISIBLE_DEVICES"" (hides all)' in ran.out.replace(" ", "").replace(
        "(hidesall)", " (hides all)"
    )


def test_what_nobody_looked_for_is_not_called_none(cli) -> None:
    ran = cli("hardware", plugin=False)
    assert "unknown model" in ran.out
    assert "none was looked for" in ran.out
