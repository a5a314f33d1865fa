from __future__ import annotations

import json
import os
import signal
import stat
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from textwrap import dedent
from urllib.request import urlopen

import pytest
from pydantic import BaseModel

from stackconf import ApplyError, ProviderType, hookimpl, user_field
from stackconf.testing import fresh_process, stack_with, unused_port
from stackconf_models import Engine, EngineFailed, put_in_place

# Written for a quick start: an engine is started some sixty times.
SERVER = """
import json, socket, sys, threading, time

with open(sys.argv[1], encoding="utf-8") as file:
    config = json.load(file)  # an engine without a readable file does not start
time.sleep(config.get("load", 0))

def answer(client):
    with client:
        client.recv(65536)
        while config.get("drip"):
            client.sendall(b"HTTP/1.0")
            time.sleep(0.05)
        body = json.dumps(config)
        status = config.get("status", 200)
        client.sendall(f"HTTP/1.0 {status} x\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n{body}".encode())

with socket.create_server(("127.0.0.1", int(sys.argv[2]))) as server:
    while True:
        threading.Thread(target=answer, args=[server.accept()[0]], daemon=True).start()
"""

# It leaves the engine its own output, as a daemon has it that somebody forgot to detach.
RESTART = """
here=$1 port=$2
echo restarted >> "$here/restarts"
echo "token=hunter2-secret is what it says"
if [ -e "$here/hang" ]; then
    sleep 60 &
    echo $! > "$here/child"
    wait
fi
if [ -e "$here/fail" ]; then
    echo "engine.service: unit is masked $(printf '%02000d' 0) at the end hunter2-secret" >&2
    exit 3
fi
[ -e "$here/pid" ] && kill -9 "$(cat "$here/pid")" && sleep 0.05
"$3" -IS "$here/server.py" "$here/engine.json" "$port" &
echo $! > "$here/pid"
if [ -e "$here/killed-half-way" ]; then kill -9 $PPID; fi
"""


class Site:
    """A machine with one engine: its file, its server process, the operator's restart command."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, unused_port()
        (folder / "server.py").write_text(SERVER, encoding="utf-8")
        (folder / "restart.sh").write_text(RESTART, encoding="utf-8")
        self.file = folder / "engine.json"
        self.command = ["sh", str(folder / "restart.sh"), str(folder), str(self.port), sys.executable]
        self.url = f"http://127.0.0.1:{self.port}/health"
        self.journal = folder / ".engine.json.stackconf-before"

    def engine(self, **changes) -> Engine:
        usual = {"health_seconds": 10, "restart_seconds": 20, "secrets": ("hunter2-secret",)}
        return Engine(self.file, self.command, self.url, **{**usual, **changes})

    def runs_with(self) -> dict[str, object]:
        with urlopen(self.url, timeout=5) as answer:
            return json.loads(answer.read())

    @property
    def restarts(self) -> int:
        log = self.folder / "restarts"
        return len(log.read_text(encoding="utf-8").splitlines()) if log.exists() else 0

    def stop(self) -> None:
        pid = self.folder / "pid"
        if pid.exists():
            with suppress(ProcessLookupError):
                os.kill(int(pid.read_text(encoding="utf-8")), signal.SIGKILL)


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def running(site):
    """A site whose engine runs well with `{"context": 1}`."""
    applied = put_in_place(site.engine(), '{"context": 1}')
    assert applied.check() is None
    assert site.runs_with() == {"context": 1}
    return site


def test_a_new_file_is_what_the_engine_then_runs_with(running):
    applied = put_in_place(running.engine(), '{"context": 2}')
    assert applied.check() is None
    assert running.runs_with() == {"context": 2}
    assert applied.detail.startswith(f"wrote {running.file}, restarted; the engine is well after ")
    assert applied.pending is None
    assert not running.journal.exists()
    assert sorted(each.name for each in running.folder.glob(".*")) == []


def test_undo_brings_back_the_old_file_and_an_engine_that_runs_with_it(running):
    applied = put_in_place(running.engine(), '{"context": 2}')
    assert applied.check_undo() == f"{running.file} was changed by somebody else"
    applied.undo()
    assert applied.check_undo() is None
    assert running.runs_with() == {"context": 1}
    assert running.file.read_text(encoding="utf-8") == '{"context": 1}'
    assert not running.journal.exists()


def test_undo_of_the_first_file_removes_it(site):
    applied = put_in_place(site.engine(), '{"context": 1}')
    site.stop()
    applied.undo()
    assert applied.check_undo() is None
    assert not site.file.exists()
    assert not site.journal.exists()


def test_the_same_file_again_restarts_nothing(running):
    before = running.restarts
    applied = put_in_place(running.engine(), b'{"context": 1}')
    assert applied.detail == f"{running.file} says so already; the engine is well"
    assert (applied.check(), applied.undo(), applied.check_undo()) == (None, None, None)
    assert running.restarts == before


def test_the_same_file_with_an_engine_that_is_down_restarts_it(running):
    running.stop()
    assert put_in_place(running.engine(), '{"context": 1}').check() is None
    assert running.runs_with() == {"context": 1}


def test_an_engine_that_needs_its_time_to_load_is_waited_for(running):
    started = time.monotonic()
    assert put_in_place(running.engine(), '{"load": 0.7}').check() is None
    assert time.monotonic() - started >= 0.7


def test_an_engine_that_comes_up_ill_is_told_and_can_be_taken_back(running):
    applied = put_in_place(running.engine(health_seconds=1), '{"status": 503}')
    said = applied.check()
    assert said == f"not well within 1 s of the restart: {running.url} answered 503"
    applied.undo()
    assert applied.check_undo() is None
    assert running.runs_with() == {"context": 1}


def test_a_redirect_is_not_health(running):
    assert "answered 302" in put_in_place(running.engine(health_seconds=0.5), '{"status": 302}').check()


def test_an_engine_that_does_not_start_with_its_file_is_told(running):
    applied = put_in_place(running.engine(health_seconds=1), "this is no JSON")
    assert applied.check() == (f"not well within 1 s of the restart: {running.url}: connection refused")
    applied.undo()
    assert running.runs_with() == {"context": 1}


def test_an_answer_that_drips_in_is_not_waited_for_without_end(running):
    started = time.monotonic()
    applied = put_in_place(running.engine(health_seconds=1), '{"drip": true}')
    assert "gave no answer within" in applied.check()
    # The wait, and one more question by `check` does not follow: what went wrong is known.
    assert time.monotonic() - started < 8
    applied.undo()
    assert applied.check_undo() is None


def test_a_question_that_is_given_up_leaves_no_thread_behind(running):
    put_in_place(running.engine(health_seconds=1), '{"drip": true}')
    end = time.monotonic() + 5
    while (
        left := [each for each in threading.enumerate() if each.name == "health"]
    ) and time.monotonic() < end:
        time.sleep(0.02)
    assert left == []


def test_a_restart_that_fails_is_told_in_one_short_line_without_its_secrets(running):
    (running.folder / "fail").touch()
    applied = put_in_place(running.engine(), '{"context": 2}')
    said = applied.check()
    assert said.startswith("the restart command (sh) ended with 3: …")
    assert said.endswith("at the end ********")
    assert len(said) < 400
    assert "hunter2" not in said
    assert "\n" not in said

    # The command still fails, so nobody can say what runs: that is an undo that failed.
    with pytest.raises(EngineFailed, match="ended with 3"):
        applied.undo()
    assert running.file.read_text(encoding="utf-8") == '{"context": 1}'
    assert running.journal.exists()

    (running.folder / "fail").unlink()
    applied.undo()
    assert applied.check_undo() is None
    assert running.runs_with() == {"context": 1}


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and only not yet buried does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] not in {"Z", "X"}


def test_a_restart_that_hangs_is_killed_with_all_that_it_started(running):
    (running.folder / "hang").touch()
    started = time.monotonic()
    applied = put_in_place(running.engine(restart_seconds=1.5), '{"context": 2}')
    assert time.monotonic() - started < 8
    assert "was not done within 1.5 s and was killed" in applied.check()
    assert "token=********" in applied.check()
    child = int((running.folder / "child").read_text(encoding="utf-8"))
    end = time.monotonic() + 5
    while alive(child) and time.monotonic() < end:
        time.sleep(0.02)
    assert not alive(child)
    (running.folder / "hang").unlink()
    applied.undo()
    assert running.runs_with() == {"context": 1}


def test_a_restart_command_whose_engine_keeps_its_output_open_is_not_waited_for(running):
    # RESTART starts the engine without detaching it; every other test would hang if it were waited for.
    assert put_in_place(running.engine(restart_seconds=10), '{"context": 5}').check() is None


KILLED = """
import sys
from stackconf_models import Engine, put_in_place
file, url, content, *command = sys.argv[1:]
put_in_place(Engine(file, command, url, health_seconds=10), content)
"""


def test_an_apply_that_was_killed_is_repaired_by_the_next_one(running):
    (running.folder / "killed-half-way").touch()
    died = fresh_process(KILLED, running.file, running.url, '{"context": 2}', *running.command)
    assert died.returncode == -signal.SIGKILL
    (running.folder / "killed-half-way").unlink()
    assert running.journal.exists()
    assert stat.S_IMODE(running.journal.stat().st_mode) == 0o600

    before = running.restarts
    applied = put_in_place(running.engine(), '{"context": 2}')
    assert running.restarts == before + 1  # the file said so, but nobody knew what the engine runs with
    assert applied.check() is None
    assert running.runs_with() == {"context": 2}
    assert not running.journal.exists()

    applied.undo()
    assert running.runs_with() == {"context": 1}, (
        "undo leads to what was there before the one that was killed"
    )


def test_an_apply_that_was_killed_is_taken_back_by_applying_the_old_file(running):
    (running.folder / "killed-half-way").touch()
    fresh_process(KILLED, running.file, running.url, '{"context": 2}', *running.command)
    (running.folder / "killed-half-way").unlink()
    assert put_in_place(running.engine(), '{"context": 1}').check() is None
    assert running.file.read_text(encoding="utf-8") == '{"context": 1}'
    assert running.runs_with() == {"context": 1}
    assert not running.journal.exists()


def test_an_apply_killed_before_the_restart_is_not_taken_for_done(running):
    code = KILLED.replace(
        "put_in_place(", "engine._run = lambda _: os.kill(os.getpid(), 9)\nput_in_place(", 1
    )
    code = code.replace("import sys", "import os, sys\nfrom stackconf_models import engine", 1)
    code = code.replace(
        "import Engine, put_in_place\n",
        "import Engine\nfrom stackconf_models.engine import put_in_place\n",
        1,
    )
    died = fresh_process(code, running.file, running.url, '{"context": 2}', *running.command)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert running.file.read_text(encoding="utf-8") == '{"context": 2}'
    assert running.runs_with() == {"context": 1}
    assert put_in_place(running.engine(), '{"context": 2}').check() is None
    assert running.runs_with() == {"context": 2}


def test_an_undo_that_was_killed_is_not_taken_for_done(running):
    first = put_in_place(running.engine(), '{"context": 2}')
    assert first.check() is None
    (running.folder / "fail").touch()
    with pytest.raises(EngineFailed):
        first.undo()
    (running.folder / "fail").unlink()
    assert running.runs_with() == {"context": 2}
    assert running.file.read_text(encoding="utf-8") == '{"context": 1}'
    assert put_in_place(running.engine(), '{"context": 1}').check() is None
    assert running.runs_with() == {"context": 1}


def test_a_journal_that_cannot_be_read_stops_before_anything_is_touched(running):
    running.journal.write_text("{", encoding="utf-8")
    with pytest.raises(EngineFailed, match="look at it and remove it"):
        put_in_place(running.engine(), '{"context": 2}')
    assert running.file.read_text(encoding="utf-8") == '{"context": 1}'


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"restart": ["no-such-program-here", "now"]}, "there is no such program"),
        ({"file": "/no/such/folder/engine.json"}, "there is no folder /no/such/folder; make it"),
        ({"restart": ["true", "--token=hunter2-secret"]}, "holds a secret"),
        ({"health_url": "http://127.0.0.1:1/?key=hunter2-secret"}, "holds a secret"),
    ],
)
def test_what_is_wrong_from_the_beginning_is_refused_and_nothing_touched(running, change, said):
    usual = {"file": running.file, "restart": running.command, "health_url": running.url}
    engine = Engine(**{**usual, **change}, secrets=["hunter2-secret"])
    with pytest.raises(EngineFailed) as raised:
        put_in_place(engine, '{"context": 2}')
    assert said in str(raised.value)
    assert "hunter2" not in str(raised.value)
    assert "hunter2" not in repr(engine)
    assert running.file.read_text(encoding="utf-8") == '{"context": 1}'
    assert not running.journal.exists()


def test_a_secret_stands_only_in_a_private_file(running):
    secret = '{"api_key": "hunter2-secret"}'
    with pytest.raises(EngineFailed, match="let it be private"):
        put_in_place(running.engine(), secret)
    applied = put_in_place(running.engine(private=True), secret)
    assert applied.check() is None
    assert stat.S_IMODE(running.file.stat().st_mode) == 0o600
    assert "hunter2" not in repr(applied)
    applied.undo()
    assert stat.S_IMODE(running.file.stat().st_mode) == 0o644


def test_a_private_file_that_others_can_read_is_closed_even_if_it_says_so_already(running):
    assert put_in_place(running.engine(private=True), '{"context": 1}').check() is None
    assert stat.S_IMODE(running.file.stat().st_mode) == 0o600


def test_a_public_file_keeps_the_mode_it_has(running):
    running.file.chmod(0o640)
    put_in_place(running.engine(), '{"context": 2}')
    assert stat.S_IMODE(running.file.stat().st_mode) == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_root_leaves_the_file_to_whom_it_belonged(running):
    os.chown(running.file, 12345, 23456)
    put_in_place(running.engine(), '{"context": 2}')
    owner = running.file.stat()
    assert (owner.st_uid, owner.st_gid) == (12345, 23456)


def test_a_link_to_the_file_stays_a_link(running):
    link = running.folder / "link.json"
    link.symlink_to(running.file)
    engine = running.engine()
    linked = Engine(link, engine.restart, engine.health_url, health_seconds=10)
    applied = put_in_place(linked, '{"context": 7}')
    assert (link.is_symlink(), running.runs_with()) == (True, {"context": 7})
    applied.undo()
    assert (link.is_symlink(), running.runs_with()) == (True, {"context": 1})


def test_undo_of_a_file_made_through_a_link_removes_the_file_and_leaves_the_link(tmp_path):
    link, file = tmp_path / "link.ini", tmp_path / "file.ini"
    link.symlink_to(file)
    applied = put_in_place(Engine(link), "a = 1")
    assert file.read_text(encoding="utf-8") == "a = 1"
    applied.undo()
    assert (link.is_symlink(), file.exists(), applied.check_undo()) == (True, False, None)


def test_an_old_process_that_still_answers_is_told_apart_by_confirm(running):
    """A restart command that comes back before the engine has changed."""

    def confirm() -> str | None:
        runs = running.runs_with()
        return None if runs == {"context": 2} else f"it still runs with {runs}"

    idle = Engine(running.file, ["true"], running.url, health_seconds=0.5, confirm=confirm)
    applied = put_in_place(idle, '{"context": 2}')
    assert applied.check().endswith("it still runs with {'context': 1}")

    # `confirm` is about the new configuration: the old one is well without it.
    applied.undo()
    assert applied.check_undo() is None
    running.stop()
    assert applied.check_undo() is not None


def test_the_same_file_is_not_enough_where_confirm_says_that_the_engine_lacks_it(running):
    asked = []

    def confirm() -> str | None:
        asked.append(1)
        return "an old process" if len(asked) == 1 else None

    before = running.restarts
    assert put_in_place(running.engine(confirm=confirm), '{"context": 1}').check() is None
    assert running.restarts == before + 1


def test_an_engine_without_command_and_health_only_gets_its_file(tmp_path):
    file = tmp_path / "engine.ini"
    applied = put_in_place(Engine(file), "a = 1")
    assert applied.detail.startswith(f"wrote {file}; its health is not asked after")
    assert applied.check() is None
    file.write_text("a = 2", encoding="utf-8")
    assert applied.check() == f"{file} was changed by somebody else"


def test_nothing_but_a_file_is_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(EngineFailed, match="is not a file of at most"):
        put_in_place(Engine(tmp_path / "pipe"), "a = 1")


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / ".engine.ini.stackconf-before").mkdir()
    with pytest.raises(EngineFailed) as raised:
        put_in_place(Engine(tmp_path / "engine.ini"), "a = 1")
    assert len(str(raised.value).splitlines()) == 1
    assert not (tmp_path / "engine.ini").exists()


class Config(BaseModel):
    context: int = 1
    status: int = user_field(200)


def plugin_of(engine: Engine) -> object:
    class Plugin:
        provides = (ProviderType("inference", "remote::engine", Config),)

        @hookimpl
        def apply_config(self, provider, config, previous):
            return put_in_place(engine, config.model_dump_json())

    return Plugin()


def test_in_a_stack_an_engine_that_comes_up_ill_is_brought_back(site):
    entry = {"provider_id": "engine", "provider_type": "remote::engine"}
    with stack_with([plugin_of(site.engine(health_seconds=1.5))], {"inference": [entry]}) as stack:
        assert stack.apply().state == "applied"
        assert site.runs_with() == {"context": 1, "status": 200}
        ill = {"providers": {"inference": [{**entry, "config": {"status": 503}}]}}
        stack.configurations.register(ill, name="ill")
        with pytest.raises(ApplyError) as raised:
            stack.apply()
        assert "not well within 1.5 s of the restart" in str(raised.value)
        outcome = raised.value.report.outcomes[0]
        assert (outcome.state, "undo failed" in outcome.error) == ("failed", False)
    assert site.runs_with() == {"context": 1, "status": 200}
    assert not site.journal.exists()


def test_the_secrets_of_the_health_request_are_not_shown():
    assert "bearer" not in repr(Engine("/x", headers={"Authorization": "bearer abc"})).lower()


def test_the_library_needs_no_server_or_process_modules_until_it_is_used():
    code = dedent(
        """
        import sys
        import stackconf_models
        heavy = {"subprocess", "http.client", "pydantic", "yaml", "importlib.metadata", "psutil"}
        print(sorted(heavy & set(sys.modules)))
        """
    )
    assert fresh_process(code).stdout.strip() == "[]"
