"""Two processes share each batch: torchrun on one machine, over the CPU's gloo."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import HERE, SMALL, tree
from test_runs import FILES, columns, read

ONE_EACH = [
    ["gan_mlp"],
    pytest.param(["gan_cnn", "--arch", "tiny"], marks=pytest.mark.slow),
    pytest.param(["dcgan"], marks=pytest.mark.slow),
    ["wgan", "--gp", "10", "--n-critic", "2"],
]


def torchrun(*arguments):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launch, HERE / "tests" / "worker.py", *arguments, "--data-dir", "../data"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(
        list(map(str, command)), **pipes, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


def finished(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out, err


@pytest.mark.parametrize("family", ONE_EACH, ids=lambda family: family[0])
def test_both_processes_end_with_equal_weights_and_one_folder(family, home):
    out, err = finished(torchrun(*family, *SMALL))
    assert out.count("finished epoch 2") == 1 and "Warning" not in err
    both = [torch.load(f"weights{rank}.pt") for rank in (0, 1)]
    for first, second in zip(*both):
        assert first and all(map(torch.equal, first, second))
    assert [folder.name for folder in Path("runs").iterdir()] == [family[0]]
    assert all((Path("runs", family[0]) / name).exists() for name in FILES)


def test_losses_are_those_of_one_process_and_either_can_resume_the_other(type_in):
    options = ["gan_mlp", *SMALL, "--bf16", "off"]
    finished(torchrun(*options, "--out", "two"))
    type_in(*options, "--data-dir", "../data", "--out", "one")
    np.testing.assert_allclose(columns("two"), columns("one"), rtol=1e-4)

    assert type_in("gan_mlp", "--resume", "two", "--epochs", "4").code == 0
    finished(torchrun("gan_mlp", "--resume", "one", "--epochs", "4"))
    np.testing.assert_allclose(columns("two"), columns("one"), rtol=1e-3)
    assert len(read("one")) == 4 * 6


def test_a_killed_process_ends_the_run_with_a_message(home):
    process = torchrun("gan_mlp", *SMALL, "--epochs", "100000")
    while not re.match(r"epoch 3/", process.stdout.readline()):
        assert process.poll() is None
    began = time.monotonic()
    os.kill(int(Path("pid1").read_text()), signal.SIGKILL)
    out, err = process.communicate(timeout=100)
    assert process.returncode != 0 and time.monotonic() - began < 60
    assert "gan_mlp.py: error: another of its processes ended" in err
    (safe,) = re.findall(r"stopped; epoch (\d+) is safe. To go on: torchrun", out)
    assert torch.load("runs/gan_mlp/ckpt.pt")["epoch"] == int(safe)


def test_a_batch_must_divide(home):
    before = tree(home)
    process = torchrun("gan_mlp", "--batch-size", "15")
    _, err = process.communicate(timeout=100)
    assert process.returncode != 0
    mine = [line for line in err.splitlines() if line.startswith("gan_mlp.py: ")]
    assert mine == ["gan_mlp.py: error: --batch-size 15 does not divide among 2 processes"]
    assert {path for path in tree(home) if not path.name.startswith("pid")} == set(before)
