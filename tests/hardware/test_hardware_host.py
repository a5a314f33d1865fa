"""The host plugin on this machine and on folders of others."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import (
    CPU,
    SAPPHIRE_RAPIDS,
    UNLIMITED_V1,
    arm,
    linux,
    mount,
    namespaces,
    topology,
    v1,
    v2,
    write,
    x86,
)

from stackconf.hardware.cgroup import cfs_quota, cpu_max, memory_bytes
from stackconf.hardware.facts import Cpu, Host, Limit, Memory, Problem
from stackconf.hardware.files import Files, cpu_list, whole_number
from stackconf.hardware.host import read_host
from stackconf.hardware.without_proc import read_without_proc

GIB = 1024**3
MIB = 1024**2


def read(root: Path) -> tuple[Host, Cpu, Memory, list[Problem]]:
    host, cpu, memory, *problems = read_host(root)
    assert isinstance(host, Host)
    assert isinstance(cpu, Cpu)
    assert isinstance(memory, Memory)
    assert all(isinstance(problem, Problem) for problem in problems)
    return host, cpu, memory, [problem for problem in problems if isinstance(problem, Problem)]


def facts(problems: list[Problem]) -> set[tuple[str, str]]:
    return {(problem.fact, problem.kind) for problem in problems}


# ------------------------------------------------------------------------------ this machine


def test_this_machine_agrees_with_psutil_and_the_scheduler():
    host, cpu, memory, _ = read(Path("/"))
    assert host.os == os.uname().sysname
    assert host.architecture == os.uname().machine
    assert host.kernel == os.uname().release
    assert cpu.logical_cores == psutil.cpu_count()
    assert cpu.affinity == tuple(sorted(os.sched_getaffinity(0)))
    assert memory.total_bytes == psutil.virtual_memory().total
    assert memory.available_bytes is not None
    assert 0 < memory.available_bytes <= memory.total_bytes
    assert memory.usable_bytes is not None
    assert cpu.usable_cores is not None
    assert 0 < cpu.usable_cores <= len(os.sched_getaffinity(0))


def test_what_psutil_says_on_other_systems_agrees_with_the_files_on_this_one():
    _, cpu, memory, _ = read(Path("/"))
    host, other, rest, *problems = read_without_proc(Files())
    assert isinstance(host, Host)
    assert isinstance(other, Cpu)
    assert isinstance(rest, Memory)
    assert (other.logical_cores, other.affinity) == (cpu.logical_cores, cpu.affinity)
    assert (other.physical_cores, other.architecture) == (cpu.physical_cores, cpu.architecture)
    assert (rest.total_bytes, rest.swap_bytes) == (memory.total_bytes, memory.swap_bytes)
    assert {problem.fact for problem in problems if isinstance(problem, Problem)} >= {"cpu.numa", "cpu.isa"}


def test_a_narrower_affinity_is_seen():
    everything = os.sched_getaffinity(0)
    if len(everything) < 2:
        pytest.skip("one CPU only")
    try:
        os.sched_setaffinity(0, {min(everything)})
        _, cpu, _, _ = read(Path("/"))
    finally:
        os.sched_setaffinity(0, everything)
    assert cpu.affinity == (min(everything),)
    assert cpu.usable_physical_cores == 1


# ------------------------------------------------------------------------------ processors


def test_plain_host_has_no_limits(tmp_path):
    host, cpu, memory, problems = read(write(tmp_path, linux(), x86()))
    assert (cpu.sockets, cpu.physical_cores, cpu.logical_cores) == (1, 4, 8)
    assert (cpu.usable_cores, cpu.usable_physical_cores, cpu.bound_by, cpu.limits) == (8.0, 4, "cores", ())
    assert (memory.usable_bytes, memory.bound_by, memory.limits) == (64 * GIB, "total", ())
    assert (memory.available_bytes, memory.swap_bytes) == (32 * GIB, GIB)
    assert (host.container, host.wsl, host.cgroup, host.cgroup_path) == ("", 0, "v2", "/")
    assert host.os_release == "Debian GNU/Linux 12 (bookworm)"
    assert (host.architecture, cpu.vendor, cpu.model) == ("x86_64", "GenuineIntel", "Intel(R) Xeon(R) Test")
    assert problems == []


def test_sapphire_rapids_with_two_sockets_nodes_and_hyper_threads(tmp_path):
    root = write(tmp_path, linux(), x86(sockets=2, cores=16, flags=SAPPHIRE_RAPIDS))
    _, cpu, _, problems = read(root)
    assert (cpu.sockets, cpu.physical_cores, cpu.logical_cores) == (2, 32, 64)
    assert cpu.isa is not None
    assert {"amx_tile", "amx_int8", "amx_bf16", "avx512_bf16", "avx512f", "avx2"} <= cpu.isa
    assert "lm" not in cpu.isa
    assert cpu.numa is not None
    assert [node.cpus for node in cpu.numa] == [
        (*range(16), *range(32, 48)),
        (*range(16, 32), *range(48, 64)),
    ]
    assert [node.memory_bytes for node in cpu.numa] == [32 * GIB, 32 * GIB]
    assert problems == []


def test_arm_server_without_a_model_name(tmp_path):
    host, cpu, _, problems = read(write(tmp_path, linux(), arm(cpus=4)))
    assert (host.architecture, cpu.vendor, cpu.model) == ("aarch64", "ARM", "Neoverse-V1")
    assert (cpu.physical_cores, cpu.usable_physical_cores, cpu.usable_cores) == (4, 4, 4.0)
    assert cpu.isa == {
        "neon", "dotprod", "fp16", "sve", "svei8mm", "svebf16", "i8mm", "bf16"
    }  # fmt: skip
    assert facts(problems) == {("cpu.numa", "unsupported")}


def test_an_arm_core_nobody_knows_is_named_by_its_numbers(tmp_path):
    assert read(write(tmp_path, linux(), arm(part="0xfff")))[1].model == "ARM part 0xfff"


def test_a_hybrid_machine_offers_what_every_core_can(tmp_path):
    tree = x86(cores=2, threads=1)
    tree["/proc/cpuinfo"] = tree["/proc/cpuinfo"].replace(" avx512f", "", 1)
    _, cpu, _, _ = read(write(tmp_path, linux(), tree))
    assert cpu.isa is not None
    assert "avx512f" not in cpu.isa
    assert "avx2" in cpu.isa


def test_offline_cpus_do_not_count(tmp_path):
    tree = x86(cores=4, threads=2)
    tree[f"{CPU}/online"] = "0-3,5-7\n"
    tree |= topology(0, package=0, core=0, siblings="0")
    _, cpu, _, _ = read(write(tmp_path, linux(), tree))
    assert (cpu.logical_cores, cpu.physical_cores) == (7, 4)
    assert cpu.affinity == (0, 1, 2, 3, 5, 6, 7)
    assert cpu.bound_by == "cores"


@pytest.mark.parametrize(
    ("allowed", "physical"),
    [("0-3", 4), ("0,4", 1), ("0,4,1", 2), ("6", 1)],
)
def test_physical_cores_are_counted_within_the_affinity(tmp_path, allowed, physical):
    _, cpu, _, problems = read(write(tmp_path, linux(allowed=allowed), x86()))
    size = len(cpu_list(allowed) or ())
    assert (cpu.usable_cores, cpu.usable_physical_cores, cpu.bound_by) == (size, physical, "affinity")
    assert cpu.limits == (Limit(size, "affinity"),)
    assert problems == []


def test_core_numbers_that_repeat_in_the_other_socket_are_other_cores(tmp_path):
    tree = x86(sockets=2, cores=2)
    kept = {path: text for path, text in tree.items() if not path.endswith(("cpus_list", "siblings_list"))}
    _, cpu, _, _ = read(write(tmp_path, linux(), kept))
    assert (cpu.physical_cores, cpu.logical_cores) == (4, 8)


def test_without_topology_the_physical_cores_are_unknown_and_not_zero(tmp_path):
    tree = arm(cpus=4)
    kept = {path: text for path, text in tree.items() if "/topology/" not in path}
    _, cpu, _, problems = read(write(tmp_path, linux(), kept))
    assert (cpu.physical_cores, cpu.usable_physical_cores, cpu.sockets) == (None, None, None)
    assert (cpu.logical_cores, cpu.usable_cores) == (4, 4.0)
    assert {("cpu.physical_cores", "unsupported"), ("cpu.sockets", "unsupported")} <= facts(problems)


def test_an_empty_folder_is_a_machine_of_which_nothing_is_known(tmp_path):
    host, cpu, memory, problems = read(tmp_path)
    assert host == Host(container=None, cgroup=None)
    assert cpu == Cpu()
    assert memory == Memory()
    assert {"cpu.logical_cores", "cpu.isa", "memory.total_bytes", "host.container"} <= {
        problem.fact for problem in problems
    }


# ------------------------------------------------------------------------------ cgroups


def test_v2_quota_on_an_ancestor(tmp_path):
    groups = {"/pod": {"cpu.max": "350000 100000"}, "/pod/app": {"cpu.max": "max 100000"}}
    _, cpu, _, problems = read(write(tmp_path, linux(), x86(), v2("/pod/app", groups)))
    assert (cpu.usable_cores, cpu.usable_physical_cores) == (3.5, 3)
    assert cpu.bound_by == "cgroup v2 /sys/fs/cgroup/pod/cpu.max"
    assert cpu.limits == (Limit(3.5, "cgroup v2 /sys/fs/cgroup/pod/cpu.max"),)
    assert problems == []


def test_v2_memory_takes_the_tightest_and_keeps_the_others(tmp_path):
    groups = {
        "/pod": {"memory.max": str(8 * GIB), "memory.high": "max"},
        "/pod/app": {"memory.max": str(16 * GIB), "memory.high": str(6 * GIB)},
    }
    _, _, memory, problems = read(write(tmp_path, linux(), x86(), v2("/pod/app", groups)))
    assert (memory.usable_bytes, memory.total_bytes) == (6 * GIB, 64 * GIB)
    assert memory.bound_by == "cgroup v2 /sys/fs/cgroup/pod/app/memory.high"
    assert [limit.amount / GIB for limit in memory.limits] == [6, 8, 16]
    assert problems == []


def test_available_memory_ends_at_the_limit_and_counts_cache_as_free(tmp_path):
    files = {
        "memory.max": str(4 * GIB),
        "memory.current": str(3 * GIB),
        "memory.stat": f"anon 1\ninactive_file {2 * GIB}\nfile 5",
    }
    _, _, memory, _ = read(write(tmp_path, linux(), x86(), v2("/app", {"/app": files})))
    assert memory.available_bytes == 3 * GIB


def test_a_quota_below_one_cpu_still_leaves_one_thread(tmp_path):
    groups = {"/app": {"cpu.max": "50000 100000"}}
    _, cpu, _, _ = read(write(tmp_path, linux(), x86(), v2("/app", groups)))
    assert (cpu.usable_cores, cpu.usable_physical_cores) == (0.5, 1)


def test_a_quota_above_the_cores_limits_nothing(tmp_path):
    groups = {"/app": {"cpu.max": "9900000 100000"}}
    _, cpu, _, _ = read(write(tmp_path, linux(), x86(), v2("/app", groups)))
    assert (cpu.usable_cores, cpu.bound_by, cpu.limits) == (8.0, "cores", ())


def test_v1_limit_in_the_own_group(tmp_path):
    tree = v1(
        {"cpu,cpuacct": "/app", "memory": "/app"},
        {
            "cpu,cpuacct": {"/app": {"cpu.cfs_quota_us": "150000", "cpu.cfs_period_us": "100000"}},
            "memory": {"/app": {"memory.limit_in_bytes": str(GIB), "memory.usage_in_bytes": str(GIB // 4)}},
        },
    )
    host, cpu, memory, problems = read(write(tmp_path, linux(), x86(), tree))
    assert (host.cgroup, host.cgroup_path) == ("v1", "/app")
    assert (cpu.usable_cores, cpu.usable_physical_cores) == (1.5, 1)
    assert cpu.bound_by == "cgroup v1 /sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_quota_us"
    assert (memory.usable_bytes, memory.available_bytes) == (GIB, GIB - GIB // 4)
    assert problems == []


def test_v1_limit_on_an_ancestor_only(tmp_path):
    unlimited = {"memory.limit_in_bytes": UNLIMITED_V1}
    tree = v1(
        {"cpu": "/a/b/c", "memory": "/a/b/c"},
        {
            "cpu": {
                "/a": {"cpu.cfs_quota_us": "200000", "cpu.cfs_period_us": "100000"},
                "/a/b": {"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"},
                "/a/b/c": {"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"},
            },
            "memory": {
                "/": unlimited,
                "/a": {"memory.limit_in_bytes": str(2 * GIB), "memory.use_hierarchy": "1"},
                "/a/b": unlimited,
                "/a/b/c": unlimited,
            },
        },
    )
    _, cpu, memory, problems = read(write(tmp_path, linux(), x86(), tree))
    assert cpu.limits == (Limit(2.0, "cgroup v1 /sys/fs/cgroup/cpu/a/cpu.cfs_quota_us"),)
    assert memory.limits == (Limit(2 * GIB, "cgroup v1 /sys/fs/cgroup/memory/a/memory.limit_in_bytes"),)
    assert problems == []


def test_v1_ancestor_without_hierarchy_does_not_bind(tmp_path):
    groups = {
        "/a": {"memory.limit_in_bytes": str(2 * GIB), "memory.use_hierarchy": "0"},
        "/a/b": {"memory.limit_in_bytes": UNLIMITED_V1},
    }
    _, _, memory, _ = read(write(tmp_path, linux(), x86(), v1({"memory": "/a/b"}, {"memory": groups})))
    assert memory.limits == ()


def test_v1_limit_of_an_ancestor_outside_the_container_is_told_by_the_statistics(tmp_path):
    groups = {
        "/": {
            "memory.limit_in_bytes": UNLIMITED_V1,
            "memory.stat": f"cache 1\nhierarchical_memory_limit {3 * GIB}",
        }
    }
    tree = v1({"memory": "/docker/abc"}, {"memory": groups}, root="/docker/abc")
    _, _, memory, _ = read(write(tmp_path, linux(), x86(), tree))
    assert memory.usable_bytes == 3 * GIB
    assert "hierarchical_memory_limit" in (memory.bound_by or "")


def test_hybrid_has_its_controllers_in_v1(tmp_path):
    tree = v1(
        {"cpu": "/", "memory": "/jobs/42"},
        {"memory": {"/jobs/42": {"memory.limit_in_bytes": str(5 * GIB)}}},
        unified="/",
    )
    host, _, memory, problems = read(write(tmp_path, linux(), x86(), tree))
    assert (host.cgroup, host.cgroup_path) == ("hybrid", "/jobs/42")
    assert memory.bound_by == "cgroup v1 /sys/fs/cgroup/memory/jobs/42/memory.limit_in_bytes"
    assert problems == []


def test_the_mount_may_show_only_the_containers_own_group(tmp_path):
    tree = v1(
        {"memory": "/docker/0123456789ab"},
        {"memory": {"/": {"memory.limit_in_bytes": str(GIB)}}},
        root="/docker/0123456789ab",
    )
    host, _, memory, problems = read(write(tmp_path, linux(), x86(), tree, {"/.dockerenv": ""}))
    assert memory.usable_bytes == GIB
    assert host.container == "docker"
    assert problems == []


@pytest.mark.parametrize("own", ["/../..", "/../other", "/.."])
def test_a_group_outside_the_namespace_is_a_problem_and_not_a_wrong_limit(tmp_path, own):
    groups = {"/": {"memory.max": str(GIB), "cpu.max": "100000 100000"}}
    host, cpu, memory, problems = read(write(tmp_path, linux(), x86(), v2(own, groups)))
    assert host.cgroup_path == own
    assert (cpu.limits, memory.limits) == ((), ())
    assert {("cpu.limits", "unsupported"), ("memory.limits", "unsupported")} <= facts(problems)


def test_a_mount_from_above_the_namespace_reaches_the_group(tmp_path):
    tree = v2("/../../job", {"/job": {"memory.max": str(GIB)}}, root="/../..")
    _, _, memory, problems = read(write(tmp_path, linux(), x86(), tree))
    assert memory.bound_by == "cgroup v2 /sys/fs/cgroup/job/memory.max"
    assert problems == []


def test_a_mount_from_above_the_namespace_still_gives_the_ancestors_limit(tmp_path):
    tree = v2("/job", {"/": {"memory.max": str(GIB)}}, root="/..")
    _, _, memory, problems = read(write(tmp_path, linux(), x86(), tree))
    assert memory.usable_bytes == GIB
    assert ("memory.limits", "unsupported") in facts(problems)


def test_the_mount_that_shows_most_ancestors_is_read(tmp_path):
    tree = v2("/pod/app", {"/pod": {"memory.max": str(GIB)}, "/pod/app": {"memory.max": "max"}})
    tree["/proc/self/mountinfo"] = mount("/mine", root="/pod/app") + tree["/proc/self/mountinfo"]
    tree["/mine/memory.max"] = "max\n"
    _, _, memory, problems = read(write(tmp_path, linux(), x86(), tree))
    assert memory.usable_bytes == GIB
    assert problems == []


def test_a_mount_point_with_a_space(tmp_path):
    tree = {
        "/proc/self/cgroup": "0::/app\n",
        "/proc/self/mountinfo": mount("/my\\040groups"),
        "/my groups/app/memory.max": f"{GIB}\n",
    }
    assert read(write(tmp_path, linux(), x86(), tree))[2].usable_bytes == GIB


def test_controllers_that_are_not_mounted_are_a_problem(tmp_path):
    _, _, _, problems = read(write(tmp_path, linux(), x86(), {"/proc/self/mountinfo": ""}))
    assert facts(problems) == {("cpu.limits", "unsupported"), ("memory.limits", "unsupported")}


def test_a_kernel_without_cgroups(tmp_path):
    tree = linux()
    del tree["/proc/self/cgroup"]
    host, cpu, _, problems = read(write(tmp_path, tree, x86()))
    assert (host.cgroup, host.cgroup_path, cpu.limits) == ("none", None, ())
    assert problems == []


@pytest.mark.parametrize("garbage", ["", "lots", "0 100000", "100000 0", "-5 100000", "1e5 1e5", "max"])
def test_a_garbled_quota_is_a_problem_and_no_limit(tmp_path, garbage):
    tree = v2("/app", {"/app": {"cpu.max": garbage}})
    _, cpu, _, problems = read(write(tmp_path, linux(), x86(), tree))
    assert (cpu.usable_cores, cpu.limits) == (8.0, ())
    assert facts(problems) == {("cpu.limits", "error")}
    assert "/sys/fs/cgroup/app/cpu.max" in problems[0].reason


@pytest.mark.parametrize("garbage", ["", "0", "-7", "4G", "1073741824x", "\u0661\u0662"])
def test_a_garbled_memory_limit_is_a_problem_and_no_limit(tmp_path, garbage):
    tree = v2("/app", {"/app": {"memory.max": garbage}})
    _, _, memory, problems = read(write(tmp_path, linux(), x86(), tree))
    assert (memory.usable_bytes, memory.limits) == (64 * GIB, ())
    assert facts(problems) == {("memory.limits", "error")}


def test_files_that_may_not_be_read_are_denied_and_not_missing():
    tree = v2("/app", {"/app": {"memory.max": str(GIB), "cpu.max": "max 100000"}})
    with TemporaryDirectory() as folder:
        root = write(Path(folder), linux(), x86(), tree)
        root.chmod(0o755)
        (root / "sys/fs/cgroup/app/memory.max").chmod(0)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)  # root may read everything
        try:
            _, _, _, problems = read(root)
        finally:
            os.seteuid(user)
    assert facts(problems) == {("memory.limits", "denied")}
    assert "memory.max: Permission denied" in problems[0].reason


def test_a_folder_where_a_file_should_be_is_a_problem(tmp_path):
    root = write(tmp_path, linux(), x86(), v2("/app", {"/app": {"cpu.max/oops": ""}}))
    (root / "proc/meminfo").unlink()
    (root / "proc/meminfo").mkdir()
    _, _, memory, problems = read(root)
    assert memory.total_bytes is None
    assert {("cpu.limits", "error"), ("memory", "error"), ("memory.total_bytes", "error")} <= facts(problems)


def test_bytes_that_are_no_text_do_not_raise(tmp_path):
    root = write(tmp_path, linux(), x86())
    for name in (
        "proc/cpuinfo",
        "proc/meminfo",
        "proc/self/cgroup",
        "proc/self/mountinfo",
        "proc/self/status",
    ):
        (root / name).write_bytes(bytes(range(256)) * 8)
    _, cpu, memory, problems = read(root)
    assert (cpu.isa, memory.total_bytes, cpu.affinity) == (None, None, None)
    assert (cpu.logical_cores, cpu.physical_cores) == (8, 4)
    assert {"cpu.isa", "memory.total_bytes", "cpu.affinity", "cpu.limits"} <= {one.fact for one in problems}


# ------------------------------------------------------------------------------ containers, WSL


@pytest.mark.parametrize(
    ("tree", "kind"),
    [
        ({"/.dockerenv": ""}, "docker"),
        ({"/run/.containerenv": 'engine="podman-4.9"'}, "podman"),
        ({"/proc/1/environ": "PATH=/bin\0container=lxc\0"}, "lxc"),
        ({"/run/systemd/container": "systemd-nspawn\n"}, "systemd-nspawn"),
        ({"/proc/self/environ": "KUBERNETES_SERVICE_HOST=10.0.0.1\0"}, "kubernetes"),
        (
            {"/proc/self/cgroup": "0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-ab.scope\n"},
            "kubernetes",
        ),
        ({"/proc/self/cgroup": "3:memory:/docker/0123456789abcdef\n", "/.dockerenv": ""}, "docker"),
        ({"/proc/self/cgroup": "0::/lxc/web\n"}, "lxc"),
        ({"/var/run/secrets/kubernetes.io/serviceaccount/ca.crt": "x", "/.dockerenv": ""}, "kubernetes"),
    ],
)
def test_containers_by_what_they_leave(tmp_path, tree, kind):
    links = namespaces(initial=())
    host, *_ = read(write(tmp_path, linux(), x86(), tree, links=links))
    assert host.container == kind


def test_kubernetes_with_its_limits(tmp_path):
    tree = v2("/", {"/": {"cpu.max": "250000 100000", "memory.max": str(2 * GIB)}})
    tree["/proc/self/environ"] = "HOME=/root\0KUBERNETES_SERVICE_HOST=10.0.0.1\0"
    host, cpu, memory, _ = read(write(tmp_path, linux(), x86(), tree))
    assert (host.container, cpu.usable_cores, memory.usable_bytes) == ("kubernetes", 2.5, 2 * GIB)


def test_a_virtual_machine_made_from_a_container_image_is_no_container(tmp_path):
    links = namespaces(initial=("pid", "ipc", "uts"))
    host, _, _, problems = read(write(tmp_path, linux(), x86(), {"/.dockerenv": ""}, links=links))
    assert host.container == ""
    assert problems == []


def test_docker_with_the_hosts_pid_namespace_is_one(tmp_path):
    links = namespaces(initial=("pid",))
    host, *_ = read(write(tmp_path, linux(), x86(), {"/.dockerenv": ""}, links=links))
    assert host.container == "docker"


def test_a_namespace_of_no_known_kind_is_unknown(tmp_path):
    host, _, _, problems = read(write(tmp_path, linux(), x86(), links=namespaces(initial=())))
    assert host.container is None
    assert ("host.container", "unsupported") in facts(problems)


@pytest.mark.parametrize(
    ("kernel", "wsl"),
    [
        ("4.4.0-22621-Microsoft", 1),
        ("5.15.90.1-microsoft-standard-WSL2", 2),
        ("4.19.84-microsoft-standard", 2),
        ("6.8.0-45-generic", 0),
    ],
)
def test_wsl_by_the_kernels_name(tmp_path, kernel, wsl):
    host, *_ = read(write(tmp_path, linux(kernel=kernel), x86(), links=namespaces(initial=())))
    assert host.wsl == wsl
    if wsl:
        assert host.container == ""


def test_wsl2_with_a_kernel_of_ones_own(tmp_path):
    tree = {"/proc/sys/fs/binfmt_misc/WSLInterop": "enabled\n"}
    assert read(write(tmp_path, linux(kernel="6.6.1-mine"), x86(), tree))[0].wsl == 2


def test_wsl1_without_cgroup_mounts_and_with_its_own_cpuinfo(tmp_path):
    tree = linux(kernel="4.4.0-22621-Microsoft") | {"/proc/self/mountinfo": "", "/proc/self/cgroup": ""}
    cpuinfo = {"/proc/cpuinfo": x86(cores=2)["/proc/cpuinfo"]}
    host, cpu, _, problems = read(write(tmp_path, tree, cpuinfo))
    assert (host.wsl, host.cgroup) == (1, "none")
    assert (cpu.logical_cores, cpu.physical_cores, cpu.sockets) == (4, 2, 1)
    assert facts(problems) == {("cpu.numa", "unsupported")}


# ------------------------------------------------------------------------------ parsing anything

texts = st.one_of(
    st.text(max_size=40),
    st.text("0123456789-, \nmax.", max_size=20),
    st.from_regex(r"[0-9]{1,25}( [0-9]{1,25})?", fullmatch=True),
)


@settings(deadline=None)
@given(texts, texts)
def test_limits_never_raise_and_are_never_zero(text, other):
    for amount in (cpu_max(text), cfs_quota(text, other), memory_bytes(text)):
        assert amount is None or amount > 0


@given(texts)
def test_lists_never_raise(text):
    numbers = cpu_list(text)
    assert numbers is None or list(numbers) == sorted(set(numbers))
    number = whole_number(text)
    assert number is None or str(number) == (text.strip().lstrip("0") or "0")


@given(st.sets(st.integers(0, 500), max_size=60))
def test_lists_read_back_what_the_kernel_writes(numbers):
    assert cpu_list(",".join(map(str, sorted(numbers)))) == tuple(sorted(numbers))


@given(st.integers(1000, 10**9), st.integers(1000, 10**6))
def test_quotas_read_back_what_the_kernel_writes(quota, period):
    assert cpu_max(f"{quota} {period}\n") == quota / period
    assert cfs_quota(f"{quota}\n", f"{period}\n") == quota / period
