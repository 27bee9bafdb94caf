"""Two processes share each batch, started by torchrun, over the CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import FILES, HERE, SCRIPTS, SMALL, read, small

import common


def torchrun(script, *arguments):
    """What two processes have printed."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [sys.executable, *launch, HERE / f"{script}.py", *arguments]
    own = {"OMP_NUM_THREADS": "1", "TMPDIR": str(Path.cwd().parent)}
    done = subprocess.run(
        list(map(str, command)),
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | own,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


others_are_slow = pytest.mark.parametrize(
    "script",
    ["gan_mlp"] + [pytest.param(name, marks=pytest.mark.slow) for name in SCRIPTS[1:]],
)


@others_are_slow
def test_they_leave_one_folder_and_speak_with_one_voice(script, home, type_in):
    out = torchrun(script, *SMALL)
    for text in ("epoch 2/2", "finished: ", "Discriminator("):
        assert out.count(text) == 1, text
    assert [folder.name for folder in Path("runs").iterdir()] == [script]
    names = {path.name for path in Path("runs", script).iterdir()}
    assert names == {*FILES, "samples"}
    # Neither left anything in the temporary folder.
    assert not list(Path("..").glob("tmp*"))
    # One process can go on.
    assert "epoch 3/3" in type_in(script, "--resume", "--epochs", "3").out


@pytest.mark.slow
def test_they_go_on_with_what_one_process_began(home, type_in):
    type_in(*small(["gan_mlp"]))
    out = torchrun("gan_mlp", "--resume", "--epochs", "4")
    assert out.count("going on with runs/gan_mlp after epoch 2") == 1
    assert out.count("epoch 4/4") == 1
    assert len(read("runs/gan_mlp")) == 24


@pytest.mark.parametrize("size", ["9", "2"])
def test_a_batch_that_cannot_be_shared_is_refused(size, refused, monkeypatch):
    monkeypatch.setattr(common, "WORLD", 2)
    line = ["gan_mlp", *SMALL, "--batch-size", size]
    refused("multiple of 2, 4 or more", *line)
