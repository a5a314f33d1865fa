"""What is no stack file at all: folders, holes in the path, devices, and files that may not be read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from bad_files import STACK
from bad_kit import overlay, process, tree


def a_folder() -> str:
    Path("folder").mkdir()
    return "folder"


def through_a_file() -> str:
    Path("file.yaml").write_text(STACK, encoding="utf-8")
    return "file.yaml/stack.yaml"


def a_dangling_link() -> str:
    Path("link.yaml").symlink_to("nowhere.yaml")
    return "link.yaml"


def a_link_to_itself() -> str:
    Path("loop.yaml").symlink_to("loop.yaml")
    return "loop.yaml"


def a_name_of_two_lines() -> str:
    return "two\nlines.yaml"


def a_name_that_is_too_long() -> str:
    return "a" * 300 + ".yaml"


def memory() -> str:
    return "/proc/self/mem"


def zeros() -> str:
    return "/dev/zero"


CASES = {
    a_folder: "error: `folder` is a folder; give the path of the stack file in it",
    through_a_file: "error: `file.yaml/stack.yaml` cannot be read: Not a directory; check the path",
    a_dangling_link: "error: there is no file `link.yaml`; check the path",
    a_link_to_itself: (
        "error: `loop.yaml` cannot be read: Too many levels of symbolic links; check the path"
    ),
    a_name_of_two_lines: "error: there is no file `two?lines.yaml`; check the path",
    a_name_that_is_too_long: (
        f"error: `{'a' * 300}.yaml` cannot be read: File name too long; check the path"
    ),
    memory: "error: `/proc/self/mem` cannot be read: Input/output error; check the path",
    zeros: "/dev/zero:1:1: error: the file is larger than 8 MiB; is this a stack file?",
}
COMMANDS = (
    ["check"],
    ["inspect", "-s"],
    ["explain", "ollama", "-s"],
    ["plan", "-s"],
    ["apply", "-s"],
    ["configurations", "list", "-s"],
    ["configurations", "register", json.dumps(overlay("inference/ollama", {"url": "http://x:1"})), "-s"],
)


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_one_line_from_every_command(cli, here, make):
    path = make()
    before = tree(here)
    for command in COMMANDS:
        ran = cli(*command, path)
        assert (ran.code, ran.lines()) == (1, [CASES[make]]), command
        told = cli(*command, path, "--json").data
        issues = told["files"][0]["issues"] if "files" in told else told["issues"]
        assert [issue["text"] for issue in issues] == [CASES[make]]
    assert tree(here) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(cli, here):
    file = here / "stack.yaml"
    file.write_text(STACK, encoding="utf-8")
    file.chmod(0)
    ran = cli("plan")
    assert (ran.code, ran.lines()) == (
        1,
        ["error: `stack.yaml` may not be read; give yourself permission to read it"],
    )


def test_no_file_at_all_is_wrong_usage(cli):
    ran = cli("plan")
    assert ran.code == 2
    what = "no stack file: none of stack.yaml, run.yaml, config.yaml is here"
    assert ran.lines() == [f"error: {what}; give --stack FILE or set STACKCONF_STACK"]


@pytest.mark.parametrize("make", [a_folder, through_a_file], ids=lambda make: make.__name__)
def test_the_installed_command(here, make):
    path = make()
    ran = process("plan", "-s", path, cwd=here, env=os.environ)
    assert (ran.code, ran.lines()) == (1, [CASES[make]])
