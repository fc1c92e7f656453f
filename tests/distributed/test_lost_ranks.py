"""A rank that is gone, or cannot be reached: the others raise within the group's time-out, and none hangs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from checkout import ROOT
from compiling_python import python
from lost_rank import LOST, STEPS, TIME_OUT, WORLD

from tcm_kernels import dispatch

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="torch has no torch.distributed"),
    pytest.mark.skipif(dispatch.why_not_here("cpu") is not None, reason="the cpu backend is not here"),
]
SLACK = 15.0  # seconds that a busy machine takes longer


def start(
    rank: int, world: int, where: dict[str, str], arguments: Sequence[str], within: Sequence[str] = ()
) -> subprocess.Popen[str]:
    """One rank's process; `within`: what it is started by."""
    paths = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
    return subprocess.Popen(
        [*within, sys.executable, str(ROOT / "tests/support/lost_rank.py"), *arguments],
        env=os.environ | where | {"RANK": str(rank), "WORLD_SIZE": str(world), "PYTHONPATH": paths},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def assert_raised_in_time(output: str) -> None:
    found = re.search(r"raised after ([\d.]+) s", output)
    assert found is not None, output
    assert float(found[1]) <= TIME_OUT + SLACK


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the ranks of all steps have printed, a file each."""
    folder = tmp_path_factory.mktemp("ranks")
    python(str(ROOT / "tests/support/lost_rank.py"), str(folder))
    return folder


@pytest.mark.parametrize(("mode", "when"), STEPS)
def test_the_ranks_that_are_left_raise(mode: str, when: str, reports: Path) -> None:
    outputs = [(reports / f"{mode}-{when}-{rank}").read_text() for rank in range(WORLD)]
    assert outputs[LOST] == "left with 17\n"
    for rank in range(WORLD):
        if rank != LOST:
            assert_raised_in_time(outputs[rank])


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def two_networks() -> Iterator[tuple[str, str]]:
    """Two network namespaces with a link between them: of 10.77.0.1 and 10.77.0.2, called `wire`."""
    if sys.platform != "linux" or shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need Linux, the program ip, and root")
    tag = uuid.uuid4().hex[:8]
    names = (f"tcm-a-{tag}", f"tcm-b-{tag}")
    try:
        try:
            for name in names:
                ip("netns", "add", name)
            peer = ("peer", "name", "wire", "netns", names[1])
            ip("-n", names[0], "link", "add", "wire", "type", "veth", *peer)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces cannot be made here: {error.stderr.decode()}")
        for number, name in enumerate(names, start=1):
            ip("-n", name, "address", "add", f"10.77.0.{number}/24", "dev", "wire")
            ip("-n", name, "link", "set", "wire", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


@pytest.mark.parametrize("mode", ["gather", "ring"])
def test_a_link_that_goes_down_in_the_middle_of_a_step_hangs_nobody(
    mode: str, two_networks: tuple[str, str], tmp_path: Path
) -> None:
    where = {"MASTER_ADDR": "10.77.0.1", "MASTER_PORT": "29555", "GLOO_SOCKET_IFNAME": "wire"}
    processes = [
        start(rank, 2, where, (mode, "1", "waits"), ("ip", "netns", "exec", name))
        for rank, name in enumerate(two_networks)
    ]
    try:
        waiting = processes[1]
        assert waiting.stdout is not None
        assert waiting.stdin is not None
        assert waiting.stdout.readline() == "waiting\n"
        ip("-n", two_networks[0], "link", "set", "wire", "down")
        waiting.stdin.write("go on\n")
        waiting.stdin.flush()
        for process in processes:
            output, errors = process.communicate(timeout=TIME_OUT + SLACK + 60)
            assert_raised_in_time(output + errors)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
