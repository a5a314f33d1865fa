"""`plugins`: from metadata alone; and `hardware` on this machine."""

from __future__ import annotations

import io

from stackconf.cli.hardware import _Facts
from stackconf.cli.output import Screen
from stackconf.hardware.facts import Accelerator, Hardware, MigInstance, Problem
from stackconf.testing import GIB, machine


def test_what_stackconf_brings_is_listed(cli, monkeypatch) -> None:
    monkeypatch.delenv("STACKCONF_DISABLED_PLUGINS")
    listed = cli("plugins", "list", "--json").data["plugins"]
    mine = {each["name"]: each for each in listed if each["distribution"] == "stackconf"}
    assert set(mine) == {"host", "nvidia", "amd", "intel", "apple"}
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


def test_json_tells_the_state_after_the_change(cli, monkeypatch) -> None:
    monkeypatch.delenv("STACKCONF_DISABLED_PLUGINS")
    for verb, enabled in (("disable", False), ("enable", True)):
        (entry,) = cli("plugins", verb, "nvidia", "--json").data["concerns"]
        assert entry["enabled"] is enabled


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
    assert [line for line in headings if line[0] not in "┌│└"][:5] == [
        "Host",
        "CPU",
        "Memory",
        "Accelerators",
        "Visibility variables",
    ]
    data = cli("hardware", "--json", plugin=False).data
    assert data["cpu"]["logical_cores"] >= 1
    assert f"{data['memory']['total_bytes'] / 2**30:.1f} GiB" in ran.out
    assert '  CUDA_VISIBLE_DEVICES  "" (hides all)\n' in ran.out


def test_what_nobody_looked_for_is_not_called_none(cli) -> None:
    ran = cli("hardware", plugin=False)
    assert "unknown model" in ran.out
    assert "none was looked for" in ran.out


def drawn(hardware: Hardware, width: int | None) -> str:
    screen = Screen(io.StringIO(), "never")
    screen.width = width
    _Facts(screen).tell(hardware)
    return screen.stream.getvalue()


def test_cards_slices_and_limits_are_drawn() -> None:
    card = Accelerator(
        "nvidia",
        index=0,
        name="NVIDIA H100 80GB HBM3",
        uuid="GPU-1",
        memory_bytes=80 * GIB,
        mig_enabled=True,
        mig=[MigInstance("MIG-1", "1g.10gb", 10 * GIB)],
        visible=False,
    )
    picture = drawn(
        machine(cores=48, cpu_quota=3.5, memory_gib=64, memory_limit_gib=16, accelerators=[card]), None
    )
    assert "  logical cores       96     3.5\n  physical cores      48       3\n" in picture
    assert "  bound by          cgroup v2 cpu.max\n" in picture
    assert "  total             64.0 GiB  16.0 GiB\n  bound by          cgroup v2 memory.max\n" in picture
    first, second = [" ".join(line.split()) for line in picture.splitlines() if "-1" in line]
    assert first == "0: NVIDIA H100 80GB HBM3, MIG on 80.0 GiB unknown unknown unknown no unknown GPU-1"
    assert second == "0: MIG 1g.10gb 10.0 GiB MIG-1"


def test_cards_that_could_not_be_looked_for_are_unknown_and_not_none() -> None:
    picture = drawn(
        Hardware(problems=[Problem("nvidia", "accelerators", "timeout", "no answer within 10 s")]), 60
    )
    assert "Accelerators\n  unknown; nvidia: no answer within 10 s\n" in picture
    assert "Problems" not in picture
