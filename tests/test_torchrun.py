"""Two processes share each batch: torchrun on one machine, over the CPU's gloo."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import FILES, HERE, SMALL

import common

# Runs a script, and keeps what each process computed with: images, noise, and weights at the end.
NOTED = """
import importlib, os, sys
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
import torch, common
module, seen = importlib.import_module(os.path.basename(sys.argv[0])[:-3]), []
train_step, save = module.train_step, common.save
def note(G, D, opt_G, opt_D, real, z, *rest):
    whole = [x if torch.is_tensor(x) else torch.cat(x) for x in (real, z)]
    seen.append((*whole, torch.rand(1)))
    return train_step(G, D, opt_G, opt_D, real, z, *rest)
def keep(path, content):
    about = content, seen, torch.distributed.get_backend()
    torch.save(about, f"{path.stem}-{os.environ['RANK']}.pt")
    save(path, content)
module.train_step, common.save = note, keep
common.run(module.main)
"""
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("gan_cnn", "dcgan", "wgan")]


def torchrun(*command):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    own = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(Path.cwd().parent)}
    kept = {"capture_output": True, "text": True, "timeout": 600, "env": own}
    done = subprocess.run([*launch, *map(str, command)], check=False, **kept)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("script", ["gan_mlp", *SLOW])
def test_one_folder_and_one_voice_and_either_resumes_the_other(script, home, type_in):
    Path("noted.py").write_text(NOTED)
    out = torchrun("noted.py", HERE / f"{script}.py", *SMALL)
    assert out.count("epoch 2/2") == out.count("finished: ") == out.count("Discriminator(") == 1
    assert [folder.name for folder in Path("runs").iterdir()] == [script]
    assert not list(Path("..").glob("tmp*"))  # neither left anything in the temporary folder
    assert all(Path("runs", script, name).exists() for name in FILES)

    (first, seen, backend), (second, other, _) = (torch.load(f"ckpt-{n}.pt") for n in (0, 1))
    assert backend == "gloo"
    steps = list(zip(seen, other))
    for (_, z, random), (_, other_z, other_random) in steps:
        assert not torch.equal(z, other_z) and random != other_random  # as dropout draws, too
    halves = [half[0] for step in steps[: len(steps) // 2] for half in step]  # of epoch 1
    images = torch.cat(halves).add(1).mul(127.5).round()
    assert len(images.flatten(1).unique(dim=0)) == len(images) >= 80  # nobody's image twice
    for name, weight in first["G"].items():  # both learn what both have seen
        assert "running" in name or torch.equal(weight, second["G"][name]), name

    assert type_in(script, "--resume", "--epochs", "3").code == 0
    assert "epoch 4/4" in torchrun(HERE / f"{script}.py", "--resume", "--epochs", "4")


def test_a_batch_that_cannot_be_shared(type_in, monkeypatch):
    monkeypatch.setattr(common, "WORLD", 2)
    for size in ("9", "2"):
        result = type_in("gan_mlp", *SMALL, "--batch-size", size)
        assert result.code == 2 and "multiple of 2, 4 or more" in result.err
    assert not Path("runs").exists()
