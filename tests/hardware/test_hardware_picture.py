"""Pictures of machines: what they say, where everything stands, and both ways to draw them."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from itertools import combinations
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from stackconf import Accelerator, Cpu, Hardware, Host, Memory, MigInstance, NumaNode, Problem, simulate
from stackconf.hardware.picture import Scene, Use, scene_of, to_svg, to_text
from stackconf.hardware.picture.scene import width

GOLDEN = Path(__file__).with_name("pictures.txt")
GIB = 1024**3
NO_CARDS = (Problem("nvidia", "accelerators", "absent", "no driver"),)


def cut_up() -> Hardware:
    slices = [MigInstance(f"MIG-{n}", "1g.10gb", int(9.75 * GIB), 16) for n in range(7)]
    card = Accelerator("nvidia", 0, "NVIDIA H100 80GB HBM3", mig_enabled=True, mig=slices)
    return Hardware(host=Host(os_release="Debian GNU/Linux 12", architecture="x86_64"), accelerators=(card,))


def mixed() -> Hardware:
    """Cards that are busy, hidden, of unknown size, linked in part, and one without a number."""
    cards = (
        Accelerator("nvidia", 0, "NVIDIA A40", memory_bytes=48 * GIB, free_bytes=12 * GIB, nvlink_peers=(1,)),
        Accelerator("nvidia", 1, "NVIDIA A40", memory_bytes=48 * GIB, nvlink_peers=(0, 2)),
        Accelerator("nvidia", 2, "NVIDIA A40", memory_bytes=48 * GIB, visible=False, nvlink_peers=(1,)),
        Accelerator("acme", name="A card & <its> \x1b[2J name"),
    )
    return Hardware(
        cpu=Cpu(model="日本 CPU", logical_cores=16, usable_cores=2.5),
        memory=Memory(total_bytes=64 * GIB, usable_bytes=8 * GIB),
        accelerators=cards,
    )


def four_sockets(*, numa: bool) -> Hardware:
    nodes = tuple(NumaNode(n, tuple(range(n * 28, n * 28 + 28)), 256 * GIB) for n in range(4))
    return Hardware(
        host=Host(os="Linux", architecture="x86_64"),
        cpu=Cpu(
            sockets=4,
            physical_cores=112,
            logical_cores=112,
            usable_cores=42,
            affinity=tuple(range(42)),
            numa=nodes if numa else None,
        ),
        memory=Memory(total_bytes=1024 * GIB, usable_bytes=1024 * GIB),
        problems=NO_CARDS,
    )


MACHINES = {
    "8 x H100": simulate("h100-80gb-sxm:8,cpu=96/192,memory=2TiB,numa=2"),
    "2 x L40S": simulate("l40s:2,cpu=32/64,memory=256GiB"),
    "CPU only, with limits": simulate("cpu=16,memory=64GiB,quota=3.5,limit=8GiB"),
    "MIG": cut_up(),
    "GB10": simulate("gb10,cpu=20"),
    "mixed cards on 4 nodes": simulate("a100-40gb-sxm,l4:2,cpu=64/128,numa=4"),
    "busy, hidden and unknown": mixed(),
    "4 sockets": four_sockets(numa=False),
    "4 sockets with their nodes": four_sockets(numa=True),
    "100 cards": simulate("l4:98,t4:2"),
    "nothing known": Hardware(),
}


def test_the_pictures_are_those_that_were_looked_at():
    drawn = "".join(
        f"{name}\n" + "\n".join(to_text(scene_of(machine))) + "\n\n" for name, machine in MACHINES.items()
    )
    assert drawn == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
@pytest.mark.parametrize("columns", [30, 40, 63, 80, 120])
def test_everything_has_a_place_of_its_own(machine, columns):
    check(scene_of(machine, columns))


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_eighty_columns_are_enough_and_ascii_takes_the_same_places(machine):
    scene = scene_of(machine)
    assert scene.width == 80
    drawn, plain = to_text(scene), to_text(scene, encoding="ascii")
    assert all(width(line) <= 80 for line in drawn)
    assert all(line.isascii() for line in plain)
    assert len(drawn) == len(plain) == scene.height


names = st.text(max_size=40)
cards = st.builds(
    Accelerator,
    vendor=st.just("acme"),
    index=st.none() | st.integers(0, 9),
    name=st.none() | names,
    memory_bytes=st.none() | st.integers(0, 2**40),
    free_bytes=st.none() | st.integers(0, 2**40),
    memory_kind=st.sampled_from([None, "dedicated", "unified"]),
    mig_enabled=st.sampled_from([None, True, False]),
    mig=st.lists(
        st.builds(MigInstance, profile=st.none() | names, memory_bytes=st.none() | st.just(GIB)), max_size=8
    ),
    numa_node=st.none() | st.integers(0, 3),
    visible=st.sampled_from([None, True, False]),
    nvlink_peers=st.none() | st.lists(st.integers(0, 9), max_size=4).map(tuple),
)
amounts = st.none() | st.integers(0, 2**44)
machines = st.builds(
    Hardware,
    host=st.builds(Host, os_release=st.none() | names),
    cpu=st.builds(
        Cpu,
        model=st.none() | names,
        sockets=st.none() | st.integers(0, 12),
        logical_cores=st.none() | st.integers(0, 400),
        usable_cores=st.none() | st.floats(0, 400),
        numa=st.none()
        | st.integers(0, 10).map(lambda count: tuple(NumaNode(n, (n,), None) for n in range(count))),
        affinity=st.none() | st.just((0, 2)),
    ),
    memory=st.builds(Memory, total_bytes=amounts, usable_bytes=amounts),
    accelerators=st.lists(cards, max_size=20),
)


@given(machines, st.integers(1, 140), st.lists(st.tuples(names, st.none() | st.floats(0, 2)), max_size=3))
def test_any_machine_can_be_drawn(machine, columns, used):
    uses = [Use(0, text, share) for text, share in used] if machine.accelerators else []
    scene = scene_of(machine, columns, uses=uses)
    check(scene)
    assert scene.width >= columns
    assert to_text(scene) == to_text(scene_of(evolve(machine), columns, uses=uses))


def check(scene: Scene) -> None:
    """Boxes lie within their parents and beside their siblings, text within boxes; nothing is hidden."""
    assert scene.boxes[0].depth == 0
    above: list = []
    for box in scene.boxes:
        above = above[: box.depth]
        inside(box, (0, 0, scene.width, scene.height))
        if above:
            parent = above[-1]
            inside(box, (parent.x + 1, parent.y + 1, parent.width - 2, parent.height - 2))
        above.append(box)
    for depth in {box.depth for box in scene.boxes}:
        for one, other in combinations([box for box in scene.boxes if box.depth == depth], 2):
            assert apart(one, other)
    taken: set[tuple[int, int]] = set()
    lines = {cell for box in scene.boxes for cell in border(box)}
    spans = [(text.x, text.y, width(text.text)) for text in scene.texts]
    for x, y, wide in [*spans, *((bar.x, bar.y, bar.width) for bar in scene.bars)]:
        cells = {(x + number, y) for number in range(wide)}
        assert not cells & (taken | lines)
        taken |= cells
        assert all(2 <= column < scene.width - 2 for column, _ in cells)
    for bar in scene.bars:
        assert width(bar.text) <= bar.width
    svg = ET.fromstring(to_svg(scene))
    _, _, wide, high = map(float, svg.get("viewBox", "").split())
    for element in svg.iter():
        if element.tag.endswith("}rect"):
            x, y = (float(element.get(name, 0)) for name in "xy")
            assert x >= 0 <= y
            assert x + float(element.get("width")) <= wide
            assert y + float(element.get("height")) <= high
    assert sum("box" in (each.get("class") or "").split() for each in svg.iter()) == len(scene.boxes)


def inside(box, room) -> None:
    x, y, wide, high = room
    assert x <= box.x
    assert y <= box.y
    assert box.x + box.width <= x + wide
    assert box.y + box.height <= y + high


def apart(one, other) -> bool:
    side_by_side = one.x + one.width <= other.x or other.x + other.width <= one.x
    return side_by_side or one.y + one.height <= other.y or other.y + other.height <= one.y


def border(box) -> set[tuple[int, int]]:
    across, down = range(box.x, box.x + box.width), range(box.y, box.y + box.height)
    return {(x, y) for x in across for y in (down[0], down[-1])} | {
        (x, y) for y in down for x in (across[0], across[-1])
    }


def test_an_svg_says_what_it_shows_escapes_names_and_carries_no_script():
    text = to_svg(scene_of(mixed(), 96))
    svg = ET.fromstring(text)
    assert svg.get("role") == "img"
    tags = {each.tag.rpartition("}")[2] for each in svg.iter()}
    assert tags == {"svg", "title", "desc", "style", "rect", "g", "text", "line"}
    assert "href" not in text
    assert "on" not in {name[:2] for each in svg.iter() for name in each.attrib}
    desc = next(each.text for each in svg.iter() if each.tag.endswith("desc"))
    assert "NVIDIA A40, 48 GiB each" in desc
    assert "A card &amp; &lt;its&gt; ?[2J" in text
    assert "prefers-color-scheme:dark" in text


def test_what_is_unknown_is_called_unknown_and_what_is_hidden_stands_apart():
    nothing = "\n".join(to_text(scene_of(Hardware())))
    assert "accelerators unknown" in nothing
    assert "no accelerator" not in nothing
    assert "no accelerator" in "\n".join(to_text(scene_of(Hardware(problems=NO_CARDS))))
    assert [box.kind for box in scene_of(mixed()).boxes].count("hidden") == 1


def test_links_are_told_by_their_groups():
    def linked(*peers):
        made = [Accelerator("nvidia", n, nvlink_peers=each) for n, each in enumerate(peers)]
        return [bar.text for bar in scene_of(Hardware(accelerators=made)).bars if bar.share is None]

    assert linked((1,), (0,), (3,), (2,)) == ["NVLink: cards 0-1, 2-3"]
    assert linked((1,), (0, 2), (1,)) == ["NVLink: cards 0-2, not each with each"]
    assert linked((), None) == []
