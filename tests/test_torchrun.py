"""Two processes share each batch: torchrun on one machine, over the CPU's gloo."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import HERE, SMALL
from test_runs import FILES, columns


def torchrun(script, *arguments, code=0):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launch, HERE / f"{script}.py", *arguments]
    done = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        check=False,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(Path.cwd().parent)},
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.mark.parametrize(
    "family",
    [
        ["gan_mlp"],
        pytest.param(["dcgan"], marks=pytest.mark.slow),
        pytest.param(["wgan", "--gp", "10", "--n-critic", "2"], marks=pytest.mark.slow),
    ],
    ids=lambda family: family[0],
)
def test_one_folder_and_one_voice_and_either_resumes_the_other(family, home, type_in):
    script = family[0]
    out = torchrun(*family, *SMALL, "--data-dir", "../data")
    assert out.count("epoch 2/2") == out.count("finished: ") == 1
    assert [folder.name for folder in Path("runs").iterdir()] == [script]
    assert not list(Path("..").glob("tmp*"))  # the second process left nothing behind
    assert all((Path("runs", script) / name).exists() for name in FILES)
    assert np.isfinite(columns(f"runs/{script}")).all()
    assert type_in(script, "--resume", "--epochs", "3").code == 0
    assert "epoch 4/4" in torchrun(script, "--resume", "--epochs", "4")


def test_the_weights_of_one_process(home, type_in):
    """Without BatchNorm the mean gradient of two halves is that of the whole batch."""
    line = ["gan_mlp", *SMALL, "--epochs", "4", "--data-dir", "../data", "--out"]
    torchrun(*line, "two")
    assert type_in(*line, "one").code == 0
    one, two = (torch.load(f"{out}/ckpt.pt", weights_only=True) for out in ("one", "two"))
    for net in ("G", "D"):
        for name, weight in one[net].items():
            assert (two[net][name] - weight).abs().mean() < 1e-4, name
    # the first process logs the losses of its own half of each batch
    assert abs(columns("one") - columns("two")).max() > 0.01


def test_a_batch_that_cannot_be_shared(home):
    said = torchrun("gan_mlp", *SMALL, "--batch-size", "9", "--data-dir", "../data", code=1)
    assert "2 processes share a batch: --batch-size must be a multiple of 2, 4 or more" in said
    assert not Path("runs").exists()
