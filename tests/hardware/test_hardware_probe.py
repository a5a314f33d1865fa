"""One detector in a child process: whatever it does, the caller gets facts and problems in time."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from stackconf.errors import InvalidConfig
from stackconf.hardware import probe
from stackconf.hardware.facts import Accelerator, Fact, Host, Problem
from stackconf.hardware.probe import Detector, run

HEAD = """\
import os, sys, time
from stackconf import Accelerator, Cpu, Host, Problem, hookimpl
stackconf_api = 1
"""


def detector(folder: Path, body: str, *, head: str = HEAD) -> Detector:
    file = folder / "site_cards.py"
    file.write_text(head + textwrap.dedent(body), encoding="utf-8")
    return Detector("site", str(file), "acme-cards", "1.2")


def only_problem(facts: list[Fact]) -> Problem:
    (problem,) = facts
    assert isinstance(problem, Problem)
    return problem


def hook(body: str) -> str:
    return "@hookimpl\ndef discover_hardware():\n" + textwrap.indent(textwrap.dedent(body).strip(), "    ")


def test_facts_come_back_as_they_were(tmp_path):
    facts = run(detector(tmp_path, hook('return [Accelerator("acme", uuid="A-1"), Host(os="Linux")]')))
    assert facts == [Accelerator("acme", uuid="A-1"), Host(os="Linux")]


def test_a_plugin_file_is_named_by_its_path(tmp_path):
    target = detector(tmp_path, hook('return [Accelerator("acme")]')).target
    assert run(Detector(target, target)) == [Accelerator("acme")]


def test_an_attribute_of_an_installed_module(tmp_path, monkeypatch):
    (tmp_path / "acme_plugin.py").write_text(
        HEAD + "class Cards:\n    @hookimpl\n    def discover_hardware(self):\n"
        "        return [Accelerator('acme')]\n    @hookimpl(specname='discover_hardware')\n"
        "    def more(self):\n        yield Accelerator('more')\nclass Holder:\n    cards = Cards()\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    facts = run(Detector("acme", "acme_plugin:Holder.cards"))
    assert facts == [Accelerator("acme"), Accelerator("more")]


@pytest.mark.parametrize(
    "body",
    [
        "x = 1",
        "@hookimpl\ndef default_config(provider, hardware):\n    return None",
        hook("return None"),
        hook("return []"),
    ],
)
def test_a_plugin_with_nothing_to_say_says_nothing(tmp_path, body):
    assert run(detector(tmp_path, body)) == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (hook('raise ValueError("no\\nluck")'), "raised ValueError: no luck (site_cards.py:6)"),
        (hook("sys.exit(3)"), "raised SystemExit: 3 (site_cards.py:6)"),
        (hook("raise KeyboardInterrupt"), "raised KeyboardInterrupt (site_cards.py:6)"),
        (hook("return 5"), "returned a int; return a list of Host, Cpu"),
        (hook('return "cards"'), "returned a str; return a list"),
        (hook('return {"a": 1}'), "returned a dict; return a list"),
        (hook('return Host(os="Linux")'), "returned a Host; return a list"),
        (hook('return ["a", "b", "c"]'), "gave a str; give a list of Host"),
        (hook("return [Accelerator(vendor=5)]"), "Accelerator.vendor: expected text, not int 5"),
        (hook('return [Accelerator("a", memory_bytes="80GB")]'), "memory_bytes: expected a whole number"),
        (hook('return [Accelerator("a", memory_bytes=float("nan"))]'), "expected a whole number"),
        (
            hook('return [Accelerator("a", name=object())]'),
            "cannot be used: Accelerator: Object of type object",
        ),
        (hook('return [Cpu(isa=frozenset([1, "a"]))]'), "cannot be used: Cpu: '<' not supported"),
        (hook('return [Problem("a", "b", "broken", "c")]'), "expected one of absent, unsupported"),
        ("import no_such_module_at_all", "cannot be imported: ModuleNotFoundError"),
        ("def broken(:", "cannot be imported: SyntaxError"),
        ("sys.exit()", "cannot be imported: SystemExit"),
        ("stackconf_api = 99\n" + hook("return []"), "was skipped: it speaks plugin API 99"),
        ("@hookimpl(wrapper=True)\ndef discover_hardware():\n    return (yield)", "is a hook wrapper"),
        (hook("os._exit(7)"), "ended before it was done (exit code 7)"),
        (hook("import ctypes; ctypes.string_at(0)"), "crashed with SIGSEGV"),
        (hook("os.abort()"), "crashed with SIGABRT"),
    ],
)
def test_every_failure_is_one_problem_that_names_the_plugin(tmp_path, body, said):
    problem = only_problem(run(detector(tmp_path, body)))
    assert said in problem.reason
    assert problem.reason.startswith("discover_hardware of plugin `site` (acme-cards 1.2) ")
    assert (problem.detector, problem.fact, problem.kind) == ("site", "everything", "error")
    assert "\n" not in problem.reason


def test_what_came_before_the_failure_counts(tmp_path):
    body = hook('yield Accelerator("acme", uuid="A-1")\nos.kill(os.getpid(), 11)')
    first, problem = run(detector(tmp_path, body))
    assert first == Accelerator("acme", uuid="A-1")
    assert isinstance(problem, Problem)
    assert "SIGSEGV" in problem.reason


def test_one_wrong_fact_does_not_cost_the_others(tmp_path):
    facts = run(detector(tmp_path, hook('return [Accelerator("a"), Accelerator(5), Accelerator("c")]')))
    assert [type(fact).__name__ for fact in facts] == ["Accelerator", "Problem", "Accelerator"]


def test_noise_does_not_mix_with_facts(tmp_path):
    body = hook("""
        print("loading...", flush=True)
        os.write(1, b"native noise\\n")
        os.system("echo from a child")
        os.write(2, b"more noise\\n")
        return [Accelerator("acme")]
    """)
    assert run(detector(tmp_path, body)) == [Accelerator("acme")]


def test_noise_explains_a_failure_and_is_kept_short(tmp_path):
    body = hook("""
        os.write(2, b"x" * 100_000 + b"\\n\\x1b[31mlibacme: no firmware\\x1b[0m\\n")
        os._exit(1)
    """)
    problem = only_problem(run(detector(tmp_path, body)))
    assert "libacme: no firmware" in problem.reason
    assert "\x1b" not in problem.reason
    assert len(problem.reason) < 500


def test_a_flood_on_standard_output_does_not_fill_the_callers_memory(tmp_path):
    body = hook("""
        for _ in range(20_000):
            os.write(1, b"y" * 10_000)
        return [Accelerator("acme")]
    """)
    assert run(detector(tmp_path, body), deadline=60) == [Accelerator("acme")]


def test_a_flood_of_facts_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "MAX_REPORT", 50_000)
    body = hook('while True:\n    yield Accelerator("acme", name="x" * 1000)')
    facts = run(detector(tmp_path, body), deadline=60)
    assert isinstance(facts[-1], Problem)
    assert "and was stopped" in facts[-1].reason
    assert len(facts) < 200


@pytest.mark.parametrize(
    "body",
    [
        hook("time.sleep(60)"),
        hook("while True: pass"),
        "time.sleep(60)",
        hook("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"),
        hook("import subprocess; subprocess.run(['sleep', '60'])"),
        hook("os.close(1); os.close(2); time.sleep(60)"),
    ],
)
def test_a_hang_ends_at_the_deadline(tmp_path, body):
    started = time.monotonic()
    problem = only_problem(run(detector(tmp_path, body), deadline=1))
    assert time.monotonic() - started < 20
    assert problem.kind == "timeout"
    assert "did not answer within 1 s" in problem.reason
    assert "STACKCONF_PROBE_TIMEOUT" in problem.reason


def test_what_a_hanging_detector_started_is_ended_too(tmp_path):
    pid = tmp_path / "pid"
    body = hook(f"""
        import subprocess
        child = subprocess.Popen(["sleep", "60"])
        open({str(pid)!r}, "w").write(str(child.pid))
        time.sleep(60)
    """)
    run(detector(tmp_path, body), deadline=5)
    number = int(pid.read_text(encoding="utf-8"))
    for _ in range(50):
        if not _runs(number):
            return
        time.sleep(0.05)
    pytest.fail("the detector's own child is still running")


def test_what_a_child_started_is_ended_though_the_child_ended_itself(tmp_path):
    code = "import subprocess; print(subprocess.Popen(['sleep', '60']).pid, flush=True)"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    with child:
        number = int(child.stdout.readline())
        while _runs(child.pid):
            time.sleep(0.01)
        assert _runs(number)
        probe._end(child)
    for _ in range(100):
        if not _runs(number):
            return
        time.sleep(0.05)
    pytest.fail("what the child started is still running")


def test_a_background_process_that_keeps_the_pipe_does_not_delay_the_answer(tmp_path):
    body = hook("""
        import subprocess
        subprocess.Popen(["sleep", "30"], start_new_session=True)
        return [Accelerator("acme")]
    """)
    started = time.monotonic()
    assert run(detector(tmp_path, body), deadline=60) == [Accelerator("acme")]
    assert time.monotonic() - started < 20


def test_a_forked_process_that_keeps_the_report_open_does_not_delay_the_answer(tmp_path):
    body = hook("""
        if os.fork() == 0:
            time.sleep(30)
            os._exit(0)
        return [Accelerator("acme")]
    """)
    started = time.monotonic()
    assert run(detector(tmp_path, body), deadline=60) == [Accelerator("acme")]
    assert time.monotonic() - started < 20


def test_a_child_that_cannot_be_killed_is_left_behind_simulated_by_not_killing(tmp_path, monkeypatch):
    # Uninterruptible sleep cannot be made at will; what matters is that the caller stops waiting.
    monkeypatch.setattr(probe, "_kill", lambda child: None)
    monkeypatch.setattr(probe, "_LEFT_BEHIND", [])
    monkeypatch.setattr(probe, "GRACE_SECONDS", 0.05)
    problem = only_problem(run(detector(tmp_path, hook("time.sleep(60)")), deadline=0.5))
    (left,) = probe._LEFT_BEHIND
    assert left.poll() is None
    assert problem.kind == "timeout"
    assert left.wait(30) == -14  # it ends itself: SIGALRM, a second after its deadline


def test_a_child_outlives_an_interrupted_caller_by_no_more_than_its_deadline(tmp_path):
    pid = tmp_path / "pid"
    target = detector(tmp_path, hook(f'open({str(pid)!r}, "w").write(str(os.getpid()))\ntime.sleep(60)'))
    code = (
        "import os, time\nfrom pathlib import Path\nfrom stackconf.hardware.discovery import start\n"
        "from stackconf.hardware.probe import Detector\n"
        f"start([Detector('site', {target.target!r})], deadline=1)\n"
        f"while not Path({str(pid)!r}).exists(): time.sleep(0.01)\nos.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=False, timeout=30)
    number = int(pid.read_text(encoding="utf-8"))
    for _ in range(100):
        if not _runs(number):
            return
        time.sleep(0.05)
    pytest.fail("the child is still running")


def test_the_callers_path_is_the_childs(tmp_path, monkeypatch):
    (tmp_path / "acme_inventory.py").write_text("CARDS = ['A-1']\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    plugin = tmp_path / "plugin"
    plugin.mkdir()
    body = hook("import acme_inventory\nreturn [Accelerator('acme', uuid=acme_inventory.CARDS[0])]")
    assert run(detector(plugin, body)) == [Accelerator("acme", uuid="A-1")]


def test_a_caller_in_a_folder_that_is_gone(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    target = detector(tmp_path, hook('return [Accelerator("acme")]'))
    monkeypatch.chdir(gone)
    monkeypatch.syspath_prepend("")
    gone.rmdir()
    assert run(target) == [Accelerator("acme")]


def test_missing_targets(tmp_path):
    assert "FileNotFoundError" in only_problem(run(Detector("a", str(tmp_path / "none.py")))).reason
    assert "ModuleNotFoundError" in only_problem(run(Detector("a", "no_such_package.plugin"))).reason
    assert "AttributeError" in only_problem(run(Detector("a", "stackconf.types:nothing"))).reason


def test_an_interpreter_that_cannot_be_started_is_a_problem(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert "could not be started" in only_problem(run(Detector("a", "x"))).reason
    monkeypatch.setattr(sys, "executable", "")
    assert "no Python interpreter" in only_problem(run(Detector("a", "x"))).reason


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf", "1e9"])
def test_a_deadline_that_is_none_is_refused_in_one_line(monkeypatch, text):
    monkeypatch.setenv("STACKCONF_PROBE_TIMEOUT", text)
    with pytest.raises(InvalidConfig, match=r"^STACKCONF_PROBE_TIMEOUT: `.*` is not a number of seconds"):
        probe.deadline_seconds()


def test_the_deadline_comes_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("STACKCONF_PROBE_TIMEOUT", "0.5")
    problem = only_problem(run(detector(tmp_path, hook("time.sleep(60)"))))
    assert "within 0.5 s" in problem.reason
    monkeypatch.delenv("STACKCONF_PROBE_TIMEOUT")
    assert probe.deadline_seconds() == 10


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_helper_of_these_tests_sees_running_processes():
    assert _runs(os.getpid())
