"""CUDA: one graph for a step, against the plain loop. Skipped where there is no GPU."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import FAMILIES, start
from test_runs import columns, names, small

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU here")


@pytest.fixture(autouse=True)
def exactly():
    """Of cuDNN's algorithms, those that add up in the same order each time."""
    torch.backends.cudnn.deterministic = True
    yield
    torch.backends.cudnn.deterministic = False


@pytest.mark.parametrize("family", FAMILIES, ids=names)
def test_the_graph_computes_what_the_plain_loop_does(family, type_in):
    cuda = ["--epochs", "34", "--device", "cuda"]  # 34 epochs of 6 steps
    assert type_in(*small(family, *cuda, "--out", "graph")).code == 0
    assert type_in(*small(family, *cuda, "--out", "plain", "--no-graph")).code == 0
    assert len(columns("graph")) == 204
    np.testing.assert_allclose(columns("graph"), columns("plain"), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("family", FAMILIES, ids=names)
def test_resumed_with_a_graph_as_if_never_stopped(family, type_in):
    cuda = ["--device", "cuda", "--epochs"]
    assert type_in(*small(family, *cuda, "4", "--out", "whole")).code == 0
    assert type_in(*small(family, *cuda, "2", "--out", "halves")).code == 0
    assert type_in(family[0], "--resume", "halves", "--epochs", "4").code == 0
    np.testing.assert_allclose(columns("halves"), columns("whole"), rtol=1e-3, atol=1e-3)


def test_random_numbers_in_a_graph_are_fresh_and_repeat_with_the_seed(type_in, monkeypatch):
    """Of the upsampling discriminator's Dropout: the same images get other verdicts each time."""
    import common

    verdicts = []

    class Replayed(common.Run):
        def log(self, losses):
            super().log(losses)
            verdicts.append(losses.tolist())

    monkeypatch.setattr(common, "Run", Replayed)
    monkeypatch.setattr(
        common, "batches", lambda images, size: [images[:size].float() / 127.5 - 1] * 12
    )
    frozen = ["dcgan", "--arch", "upsample", "--lr", "1e-12", "--device", "cuda"]
    for out in ("first", "second"):
        assert type_in(*small(frozen, "--epochs", "1", "--out", out)).code == 0
    assert verdicts[:12] == verdicts[12:]
    assert len({verdict[2] for verdict in verdicts}) == 12


def test_a_checkpoint_of_cuda_serves_the_cpu(type_in):
    assert type_in(*small(["dcgan"], "--device", "cuda")).code == 0
    assert type_in("perturb", "--ckpt", "g.pt").code == 0
    assert type_in("dcgan", "--resume", "--epochs", "3", "--device", "cpu").code == 0


def test_bf16(type_in):
    for family in (["gan_mlp"], ["dcgan"], ["wgan", "--gp", "10"]):
        assert type_in(*small(family, "--device", "cuda", "--bf16")).code == 0


def test_a_divergence_keeps_the_last_good_checkpoint(home):
    process = start(*small(["dcgan"], "--lr", "1e20", "--epochs", "9", "--device", "cuda"))
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "no longer finite" in err.splitlines()[-1]
    assert Path("runs/dcgan/ckpt.pt").exists()
