from __future__ import annotations

from threading import Thread

import pytest

from stackconf import Holder, StackconfError

KEY = "inference/tiny"


class Engine:
    def __init__(self, name):
        self.name, self.open = name, True

    def close(self):
        self.open = False


@pytest.fixture
def holder():
    return Holder(close=Engine.close)


def test_a_swap_keeps_what_it_replaced_open_until_the_next(holder):
    one, two, three = Engine("1"), Engine("2"), Engine("3")
    assert holder.swap(KEY, one).before is None
    assert holder.swap(KEY, two).before is one
    assert (holder.current(KEY), one.open) == (two, True)
    holder.swap(KEY, three)
    assert [each.open for each in (one, two, three)] == [False, True, True]


def test_an_undo_has_back_exactly_what_was_there_and_ends_what_came(holder):
    one, two = Engine("1"), Engine("2")
    holder.swap(KEY, one)
    change = holder.swap(KEY, two)
    for _ in range(2):
        change.undo()
        assert holder.current(KEY) is one
        assert (one.open, two.open) == (True, False)
    assert change.check_undo() is None
    assert change.check() == f"{KEY} of this process has been configured anew since"


def test_each_check_belongs_to_its_value_and_comes_back_with_it(holder):
    wrong: dict[str, str] = {}
    holder.swap(KEY, Engine("1"), check=lambda: wrong.get("1"))
    change = holder.swap(KEY, Engine("2"), check=lambda: wrong.get("2"))
    wrong.update({"2": "two is ill"})
    assert change.check() == "two is ill"
    assert change.check_undo() == f"{KEY} of this process does not have again what it had before"
    change.undo()
    assert change.check_undo() is None
    wrong.update({"1": "one is ill"})
    assert change.check_undo() == "one is ill"


def test_an_undo_never_takes_away_what_came_after(holder):
    one, two = Engine("1"), Engine("2")
    first = holder.swap(KEY, one)
    second = holder.swap(KEY, two)
    with pytest.raises(StackconfError, match="configured anew since; that is kept"):
        first.undo()
    assert holder.current(KEY) is two
    second.undo()
    first.undo()
    assert holder.current(KEY) is None
    assert not one.open


def test_an_undo_brings_nothing_back_that_is_closed(holder):
    holder.swap(KEY, Engine("1"))
    second = holder.swap(KEY, Engine("2"))
    third = holder.swap(KEY, Engine("3"))
    third.undo()
    with pytest.raises(StackconfError, match="is closed by now"):
        second.undo()
    assert holder.current(KEY).name == "2"


def test_a_leave_and_a_join_in_one_apply_are_both_undone(holder):
    one = Engine("1")
    holder.swap(KEY, one)
    left = holder.swap(KEY, None)
    joined = holder.swap(KEY, Engine("2"))
    joined.undo()
    left.undo()
    assert holder.current(KEY) is one
    assert one.open
    assert left.check_undo() is None


def test_leaving_what_is_not_there_and_leaving_twice(holder):
    nothing = holder.swap(KEY, None)
    assert nothing.check() is None
    nothing.undo()
    assert nothing.check_undo() is None
    holder.swap(KEY, Engine("1"))
    holder.swap(KEY, None)
    holder.swap(KEY, None)
    assert holder.current(KEY) is None
    assert holder.providers == ()


def test_the_same_value_again_is_not_closed(holder):
    one = Engine("1")
    holder.swap(KEY, one)
    again = holder.swap(KEY, one)
    assert again.check() is None
    again.undo()
    holder.swap(KEY, one)
    holder.swap(KEY, one)
    assert one.open


def test_a_value_that_comes_back_is_not_closed(holder):
    one, two = Engine("1"), Engine("2")
    for engine in (one, two, one):
        holder.swap(KEY, engine)
    assert holder.current(KEY) is one
    assert (one.open, two.open) == (True, True)
    holder.swap(KEY, None)
    holder.swap(KEY, one)
    change = holder.swap(KEY, two)
    assert one.open, "an undo needs it"
    change.undo()
    assert holder.current(KEY) is one


def test_providers_do_not_touch_each_other(holder):
    one, other = Engine("1"), Engine("other")
    holder.swap(KEY, one)
    holder.swap("inference/other", other).undo()
    assert holder.providers == (KEY,)
    assert (one.open, other.open) == (True, False)


def test_install_is_told_before_and_may_refuse():
    told = []

    def install(provider, engine):
        told.append((provider, engine and engine.name))
        if engine and engine.name == "bad":
            raise ValueError("no")

    holder = Holder(close=Engine.close, install=install)
    one = Engine("1")
    holder.swap(KEY, one)
    with pytest.raises(ValueError, match="no"):
        holder.swap(KEY, Engine("bad"))
    assert told == [(KEY, "1"), (KEY, "bad"), (KEY, "1")]
    assert (holder.current(KEY), one.open) == (one, True)
    holder.swap(KEY, None).undo()
    assert told[3:] == [(KEY, None), (KEY, "1")]


def test_what_an_undo_took_back_is_discarded_and_not_closed():
    ended = []
    holder = Holder(close=lambda value: ended.append(("close", value)), discard=ended.append)
    holder.swap(KEY, "one")
    holder.swap(KEY, "two").undo()
    holder.swap(KEY, "three")
    holder.swap(KEY, "four")
    assert ended == ["two", ("close", "one")]


def test_a_value_that_cannot_be_closed_fails_no_change_but_fails_its_undo(caplog):
    def stuck(value):
        raise OSError(f"{value} is stuck")

    holder = Holder(close=stuck)
    for value in ("one", "two", "three"):
        change = holder.swap(KEY, value)
    assert "could not close str: one is stuck" in caplog.text
    with pytest.raises(OSError, match="three is stuck"):
        change.undo()
    assert holder.current(KEY) == "two"
    assert change.check_undo() is None


def test_nothing_is_ended_twice():
    ended = []
    holder = Holder(close=ended.append)
    first = holder.swap(KEY, "one")
    holder.swap(KEY, "two").undo()
    first.undo()
    holder.swap(KEY, "three")
    holder.swap(KEY, "four").undo()
    holder.clear()
    assert ended == ["two", "one", "four", "three"]
    for _ in range(2):
        holder.swap(KEY, "five")
    holder.clear()
    assert ended[4:] == ["five"]


def test_clear_closes_everything():
    told = []
    holder = Holder(close=Engine.close, install=lambda provider, engine: told.append(engine))
    engines = [Engine(str(number)) for number in range(3)]
    holder.swap(KEY, engines[0])
    holder.swap(KEY, engines[1])
    holder.swap("inference/other", engines[2])
    holder.clear()
    assert not any(engine.open for engine in engines)
    assert holder.providers == ()
    assert told[-2:] == [None, None]


def test_applied_carries_all_three_and_what_else_is_to_undo(holder):
    done = []
    applied = holder.swap(KEY, Engine("1")).applied("one", undo=lambda: done.append(holder.current(KEY)))
    assert (applied.detail, applied.check()) == ("one", None)
    applied.undo()
    assert done == [None], "the rest is undone after the swap"
    assert applied.check_undo() is None


def test_many_threads_leave_one_value_open(holder):
    engines = [Engine(str(number)) for number in range(50)]
    threads = [Thread(target=holder.swap, args=(KEY, engine)) for engine in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert holder.current(KEY).open
    assert sum(engine.open for engine in engines) == 2, "the one in force and the one for an undo"
