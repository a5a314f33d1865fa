"""What an apply and a registration cost the store, counted in its reads and its durable writes."""

import sys
from pathlib import Path

import pytest

from stackconf import ApplyError, Stack

sys.path.append(str(Path(__file__).parents[1] / "core"))

from core_kit import open_stack
from faults_kit import Fault, Files, stack_of

KEYS = [f"inference/p{number}" for number in range(5)]


class Traced:
    """Counts the transactions and statements of a stack's store while it is open."""

    def __init__(self, stack: Stack) -> None:
        stack.revision  # noqa: B018 (opens the file)
        self.connection = stack.store._connection
        self.statements: list[str] = []

    def __enter__(self):
        self.connection.set_trace_callback(self.statements.append)
        return self

    def __exit__(self, *_):
        self.connection.set_trace_callback(None)

    def count(self, *words: str) -> int:
        return sum(statement.startswith(words) for statement in self.statements)

    @property
    def writes(self) -> int:
        """Each is one commit that is synced."""
        return self.count("BEGIN IMMEDIATE")

    @property
    def reads(self) -> int:
        """Transactions that read, and reads outside of any."""
        inside, alone = False, 0
        for statement in self.statements:
            if statement.startswith("BEGIN"):
                inside = True
                alone += statement == "BEGIN"
            elif statement.startswith(("COMMIT", "ROLLBACK")):
                inside = False
            else:
                alone += not inside
        return alone


def files_in(folder: Path) -> dict[str, tuple[int, bytes]]:
    """What stands in every file, and when it was written last; what readers map is none of it."""
    return {
        str(file.relative_to(folder)): (file.stat().st_mtime_ns, file.read_bytes())
        for file in folder.rglob("*")
        if file.is_file() and not file.name.endswith("-shm")
    }


def changed(folder: Path, count: int, port: int) -> Stack:
    files = Files(folder)
    ports = {key: port if number < count else 80 for number, key in enumerate(KEYS)}
    stack = open_stack(folder, stack_of(ports), files.owner)
    stack.plan()
    stack.files = files
    return stack


def test_an_apply_that_changes_nothing_reads_the_store_once_and_writes_nothing(tmp_path):
    with changed(tmp_path, 0, 80) as stack:
        stack.apply()
        stack.apply()  # the key of the digests is read once in a process
        stack.files.begin()
        before = files_in(tmp_path)
        with Traced(stack) as traced:
            assert stack.apply().state == "nothing"
        assert stack.files.acts == []
        assert (traced.writes, traced.reads) == (0, 1)
        assert files_in(tmp_path) == before


@pytest.mark.parametrize("count", [1, 2, 5])
def test_an_apply_writes_twice_and_once_for_each_changed_provider_at_most(tmp_path, count):
    """In the database; and, once, the file beside it that says what is applied."""
    with changed(tmp_path, 0, 80) as stack:
        stack.apply()
    with changed(tmp_path, count, 81) as stack, Traced(stack) as traced:
        assert len(stack.apply().of("applied")) == count
        assert traced.writes <= 2 + count - 1


@pytest.mark.parametrize("count", [1, 2, 5])
def test_an_apply_that_fails_writes_once_more_that_it_takes_all_back(tmp_path, count):
    with changed(tmp_path, 0, 80) as stack:
        stack.apply()
    with changed(tmp_path, count, 81) as stack, Traced(stack) as traced:
        stack.files.begin(Fault("check", KEYS[count - 1]))
        with pytest.raises(ApplyError):
            stack.apply()
        assert traced.writes <= 2 + count


def test_a_registration_is_one_durable_write_and_a_few_reads(tmp_path):
    with changed(tmp_path, 0, 80) as stack:
        given = {"inference": [{"provider_id": "p0", "config": {"port": 1}}]}
        stack.configurations.register(given)
        given["inference"][0]["config"]["port"] = 2
        with Traced(stack) as traced:
            stack.configurations.register(given)
        assert traced.writes == 1
        assert traced.reads <= 10
        with Traced(stack) as traced:  # nothing new, nothing written
            stack.configurations.register(given)
        assert traced.writes == 0
