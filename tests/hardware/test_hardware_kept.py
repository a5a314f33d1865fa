"""What is kept until the next boot: a hung driver costs its deadline once; nothing stale is ever shown."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from machines import linux, write
from machines.boxes import card

from stackconf.hardware.discovery import BUILTIN, discover, fingerprint
from stackconf.hardware.facts import Visibility
from stackconf.hardware.host import read_host
from stackconf.hardware.kept import AGAIN_SECONDS, LEAST_CPUS, Kept, kept_here
from stackconf.hardware.probe import Detector

NVIDIA = next(each for each in BUILTIN if each.name == "nvidia")
BOOT = "11111111-2222-3333-4444-555555555555"
CPUS = 2 * LEAST_CPUS


@pytest.fixture
def kept(tmp_path):
    return Kept(tmp_path / "cache" / "boot.json", BOOT)


def again(kept, **about):
    """The same file, read by the next command."""
    told = {"boot": BOOT, "namespace": "", **about}
    return Kept(kept.file, **told)


# A driver that does not answer


@pytest.fixture
def box(tmp_path, monkeypatch, stub):
    """Looks at a machine whose driver does as the text says; how long it took is beside what was found."""
    root = write(tmp_path / "root", linux())
    file = tmp_path / "cards.txt"
    monkeypatch.setenv("STACKCONF_NVML_STUB", str(file))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(stub))

    def look(text, kept, *, deadline=2.0):
        file.write_text(text, encoding="utf-8")
        started = time.monotonic()
        found = discover([NVIDIA], root=root, deadline=deadline, kept=kept)
        return found, time.monotonic() - started

    return look


CARD = card("NVIDIA L4", "27b8", 23034, index=0, capability="8 9", cores=7424)
HANGS = "sleep nvmlInitWithFlags 60\n"


def test_a_hung_driver_costs_its_deadline_once(box, kept, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    first, seconds = box(HANGS, kept)
    assert seconds >= 2
    second, seconds = box(HANGS, again(kept))
    assert seconds < 1
    (problem,) = second.problems
    assert (problem.fact, problem.kind) == ("accelerators", "timeout")
    assert "did not answer within 2 s, " in problem.reason
    assert "asked again in " in problem.reason
    assert "--no-cache" in problem.reason
    assert second.visibility == (Visibility("CUDA_VISIBLE_DEVICES", "0"),)
    # A plan that was made after the first look is not stale after the second.
    assert fingerprint(first) == fingerprint(second)


def test_variables_are_those_of_now_and_not_of_the_hang(box, kept, monkeypatch):
    box(HANGS, kept)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert box(HANGS, again(kept))[0].visibility == (Visibility("CUDA_VISIBLE_DEVICES", "3"),)


@pytest.mark.exhaustive
def test_the_other_detectors_answer_meanwhile(tmp_path, kept):
    plugin = tmp_path / "other.py"
    plugin.write_text(
        "from stackconf import Accelerator, hookimpl\n"
        "@hookimpl\n"
        "def discover_hardware():\n"
        "    return [Accelerator('acme', uuid='A')]\n",
        encoding="utf-8",
    )
    hung = tmp_path / "hung.py"
    hung.write_text(
        "import time\n"
        "from stackconf import hookimpl\n"
        "@hookimpl\n"
        "def discover_hardware():\n"
        "    time.sleep(60)\n",
        encoding="utf-8",
    )
    detectors = [Detector("hung", str(hung)), Detector("other", str(plugin))]
    for _ in range(2):
        found = discover(detectors, deadline=5, kept=again(kept))
        assert [each.uuid for each in found.accelerators] == ["A"]
        assert ("hung", "timeout") in [(each.detector, each.kind) for each in found.problems]
    # Another file under the same name is another detector.
    hung.write_text(plugin.read_text(encoding="utf-8"), encoding="utf-8")
    found = discover(detectors, deadline=5, kept=again(kept))
    assert "timeout" not in {each.kind for each in found.problems}


@pytest.mark.parametrize(
    "change",
    [
        lambda kept, _: again(kept, boot=BOOT.replace("1", "9")),
        lambda kept, _: again(kept, version="99"),
        lambda kept, _: again(kept, namespace="mnt:[1]"),
        lambda kept, patch: patch.setattr("stackconf.hardware.kept.AGAIN_SECONDS", 0.0) or again(kept),
        lambda kept, _: kept.forget() or again(kept),
        lambda kept, _: kept.file.chmod(0o644) or again(kept),
        lambda kept, _: None,
    ],
)
def test_after_a_boot_an_update_a_while_or_on_request_it_is_asked_again(
    box, kept, tmp_path, monkeypatch, change
):
    kept.hung(NVIDIA, tmp_path / "root", 30.0, None)
    assert box(CARD, again(kept), deadline=30)[0].accelerators == ()
    found, _ = box(CARD, change(kept, monkeypatch), deadline=30)
    assert [each.name for each in found.accelerators] == ["NVIDIA L4"]
    assert "timeout" not in {each.kind for each in found.problems}


def test_one_with_more_time_than_it_had_is_asked_again_and_its_answer_ends_it(box, kept, tmp_path):
    kept.hung(NVIDIA, tmp_path / "root", 1.0, None)
    assert box(CARD, again(kept), deadline=1)[0].accelerators == ()
    assert len(box(CARD, again(kept), deadline=30)[0].accelerators) == 1
    assert again(kept).hang(NVIDIA, tmp_path / "root", 1.0) is None


@pytest.mark.exhaustive
def test_what_was_told_of_cards_before_the_hang_is_told_again_and_never_kept(box, kept):
    hangs_later = "sleep nvmlDeviceGetCudaComputeCapability 60\n"
    first, seconds = box(CARD + hangs_later, kept, deadline=6)
    assert seconds >= 6
    assert [each.name for each in first.accelerators] == ["NVIDIA L4"]
    renamed = CARD.replace("L4", "L40S")
    second, seconds = box(renamed + hangs_later, again(kept), deadline=6)
    assert seconds < 6
    assert [each.name for each in second.accelerators] == ["NVIDIA L40S"]
    assert {each.kind for each in second.problems} == {"timeout"}
    assert "L4" not in kept.file.read_text(encoding="utf-8")


# Processors


def tree(folder, *, cpus=CPUS, model="Big CPU", flags="avx2 avx512f lm", threads=2):
    """A machine with many processors."""
    cores = cpus // threads
    files = {
        "proc/meminfo": "MemTotal: 1000000 kB\nMemAvailable: 900000 kB\nSwapTotal: 0 kB\n",
        "proc/self/status": f"Cpus_allowed_list:\t0-{cpus - 1}\n",
        "proc/cpuinfo": "\n".join(
            f"processor\t: {cpu}\nvendor_id\t: GenuineIntel\nmodel name\t: {model}\nflags\t\t: {flags}\n"
            for cpu in range(cpus)
        ),
        "sys/devices/system/cpu/online": f"0-{cpus - 1}\n",
        "sys/devices/system/node/node0/cpulist": f"0-{cpus - 1}\n",
        "sys/devices/system/node/node0/meminfo": "Node 0 MemTotal: 1000000 kB\n",
    }
    for cpu in range(cpus):
        siblings = ",".join(str(cpu % cores + cores * thread) for thread in range(threads))
        files[f"sys/devices/system/cpu/cpu{cpu}/topology/core_cpus_list"] = f"{siblings}\n"
        files[f"sys/devices/system/cpu/cpu{cpu}/topology/physical_package_id"] = f"{cpu % cores // 8}\n"
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def large(tmp_path_factory):
    return tree(tmp_path_factory.mktemp("large"))


def test_what_was_kept_of_the_processors_is_the_same_and_their_files_are_not_read(large, kept, tmp_path):
    fresh = read_host(large)
    assert fresh[1].physical_cores == CPUS // 2
    assert read_host(large, kept) == fresh
    without = tree(tmp_path / "same")
    (without / "proc/cpuinfo").unlink()
    for file in without.glob("sys/devices/system/cpu/cpu*/topology/*"):
        file.unlink()
    assert read_host(without, again(kept)) == fresh
    assert stat.S_IMODE(kept.file.stat().st_mode) == 0o600


def test_what_this_process_may_use_is_never_kept(large, kept, tmp_path):
    read_host(large, kept)
    other = tree(tmp_path / "narrow")
    (other / "proc/self/status").write_text("Cpus_allowed_list:\t0-3\n", encoding="utf-8")
    (other / "proc/meminfo").write_text("MemTotal: 5 kB\nSwapTotal: 7 kB\n", encoding="utf-8")
    cpu, memory = read_host(other, again(kept))[1:3]
    assert (cpu.affinity, cpu.usable_cores, memory.total_bytes) == ((0, 1, 2, 3), 4.0, 5 * 1024)
    assert [cpu, memory] == read_host(other)[1:3]


def test_other_processors_online_are_read_anew(large, kept, tmp_path):
    read_host(large, kept)
    smaller = tree(tmp_path / "smaller", cpus=LEAST_CPUS, model="", threads=1)
    for _ in range(2):
        assert read_host(smaller, again(kept)) == read_host(smaller)
    # Nothing of the earlier ones is left in it.
    assert "Big CPU" not in kept.file.read_text(encoding="utf-8")


def test_a_small_machine_keeps_nothing(kept, tmp_path):
    read_host(tree(tmp_path / "small", cpus=LEAST_CPUS - 2), kept)
    assert not kept.file.exists()


def test_what_could_not_be_read_is_not_kept(kept, tmp_path):
    root = tree(tmp_path / "partly")
    for file in root.glob("sys/devices/system/cpu/cpu*/topology/physical_package_id"):
        file.unlink()
    read_host(root, kept)
    assert not kept.file.exists()


# Nothing stale, whatever stands in the file

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
fields = st.sampled_from(["cores", "sockets", "isa"])


@pytest.mark.exhaustive
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_with_another_boot_version_namespace_or_garbage_it_is_as_read_afresh(large, tmp_path, data):
    file = tmp_path / "kept.json"
    file.unlink(missing_ok=True)
    writer = Kept(file, BOOT)
    read_host(large, writer)
    content = json.loads(file.read_text(encoding="utf-8"))
    content["processors"]["model"] = "stale"
    kind = data.draw(
        st.sampled_from(["boot", "version", "namespace", "format", "bytes", "cut", "field", "part"])
    )
    reader = Kept(file, BOOT)
    if kind in {"boot", "namespace"}:
        content[kind] = data.draw(values.filter(lambda value: value != content[kind]))
    elif kind == "version":
        content["stackconf"] = data.draw(values.filter(lambda value: value != content["stackconf"]))
    elif kind == "format":
        content["format"] = data.draw(values.filter(lambda value: value != 1))
    elif kind == "part":
        content["processors"] = data.draw(values)
    raw = json.dumps(content).encode()
    if kind == "bytes":
        raw = data.draw(st.binary())
    elif kind == "cut":
        raw = raw[: data.draw(st.integers(0, len(raw) - 1))]
    elif kind == "field":
        # A field that cannot be right: of another type, or about other processors.
        name = data.draw(fields)
        wrong = values.filter(lambda value: type(value) is not type(content["processors"][name]))
        content["processors"][name] = data.draw(wrong)
        raw = json.dumps(content).encode()
    file.write_bytes(raw)
    file.chmod(0o600)
    assert read_host(large, reader) == read_host(large)
    # And it is mended by what was read.
    assert read_host(large, Kept(file, BOOT)) == read_host(large)


@pytest.mark.parametrize(
    "cores",
    [
        [],
        [[0, 1]],
        [list(range(CPUS)), [0]],
        [list(range(CPUS + 1))],
        [[cpu] for cpu in range(CPUS - 1)],
        [[str(cpu)] for cpu in range(CPUS)],
        "0-63",
    ],
)
def test_a_division_into_cores_that_is_none_is_not_believed(large, kept, cores):
    read_host(large, kept)
    content = json.loads(kept.file.read_text(encoding="utf-8"))
    content["processors"]["cores"] = cores
    kept.file.write_text(json.dumps(content), encoding="utf-8")
    kept.file.chmod(0o600)
    assert read_host(large, again(kept)) == read_host(large)


def test_a_file_that_others_may_change_a_link_and_a_pipe_are_not_read(large, kept, tmp_path):
    read_host(large, kept)
    content, lie = kept.file.read_bytes().replace(b"Big CPU", b"Lie"), tmp_path / "lie"
    for make in (
        lambda file: (file.write_bytes(content), file.chmod(0o666)),
        lambda file: (
            file.unlink(),
            lie.write_bytes(content),
            lie.chmod(0o600),
            file.symlink_to(lie),
        ),
        lambda file: (file.unlink(), os.mkfifo(file, 0o600)),
    ):
        make(kept.file)
        assert read_host(large, again(kept)) == read_host(large)


def test_where_nothing_can_be_written_everything_goes_on(large, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert read_host(large, Kept(tmp_path / "file" / "boot.json", BOOT)) == read_host(large)


def test_it_is_in_the_users_cache_and_can_be_put_elsewhere_or_turned_off(tmp_path):
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    places = [
        ({"HOME": "/home/a"}, "/home/a/.cache/stackconf"),
        ({"HOME": "/home/a", "XDG_CACHE_HOME": "/c"}, "/c/stackconf"),
        ({"STACKCONF_CACHE_HOME": "/own", "XDG_CACHE_HOME": "/c"}, "/own"),
    ]
    for environ, folder in places:
        assert str(kept_here(environ).file) == f"{folder}/boot-{boot}.json"
    for environ in ({}, {"HOME": "relative"}, {"HOME": "/home/a", "STACKCONF_NO_CACHE": "1"}):
        assert kept_here(environ) is None


def test_files_of_old_boots_go_and_those_of_other_machines_stay(kept):
    kept.file.parent.mkdir()
    old, other = kept.file.with_name("boot-old.json"), kept.file.with_name("boot-other.json")
    for file, days in ((old, 8), (other, 1)):
        file.write_text("{}", encoding="utf-8")
        os.utime(file, (time.time() - days * 86400,) * 2)
    kept.hung(NVIDIA, None, 3.0, None)
    assert (old.exists(), other.exists()) == (False, True)


@pytest.mark.parametrize(
    "entry",
    [
        None,
        3,
        {},
        {"at": "x"},
        {"at": 1e300, "deadline": 3},
        {"at": -1e9, "deadline": 3},
        {"at": 10**400, "deadline": 3},
    ],
)
def test_a_hang_that_makes_no_sense_is_none(kept, entry):
    kept.hung(NVIDIA, None, 3.0, None)
    assert kept.hang(NVIDIA, None, 3.0) is not None
    content = json.loads(kept.file.read_text(encoding="utf-8"))
    content["hangs"] = dict.fromkeys(content["hangs"], entry)
    kept.file.write_text(json.dumps(content), encoding="utf-8")
    assert again(kept).hang(NVIDIA, None, 3.0) is None


def test_two_commands_at_once_lose_nothing_that_matters(kept):
    one, other = again(kept), again(kept)
    assert one.hang(NVIDIA, None, 1.0) is other.hang(NVIDIA, None, 1.0) is None
    one.hung(NVIDIA, None, 3.0, None)
    other.hung(evolve(NVIDIA, name="second"), None, 3.0, 0.5)
    last = again(kept)
    assert last.hang(NVIDIA, None, 3.0).told_after is None
    assert last.hang(evolve(NVIDIA, name="second"), None, 3.0).told_after == 0.5
    assert last.hang(NVIDIA, None, 3.0).ago() < AGAIN_SECONDS
