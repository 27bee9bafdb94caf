"""CUDA, for every network. Skipped where there is no GPU; it has not been run on one yet."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import FAMILIES
from test_runs import columns, names, small

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU here")


@pytest.mark.parametrize("family", FAMILIES, ids=names)
def test_trained_and_resumed_as_if_never_stopped(family, type_in):
    cuda = ["--device", "cuda", "--epochs"]
    assert type_in(*small(family, *cuda, "4", "--out", "whole")).code == 0
    assert type_in(*small(family, *cuda, "2", "--out", "halves")).code == 0
    assert type_in(family[0], "--resume", "halves", "--epochs", "4").code == 0
    np.testing.assert_allclose(columns("halves"), columns("whole"), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", [["dcgan"], ["wgan"]], ids=names)
def test_a_checkpoint_of_cuda_serves_the_cpu_and_back(family, type_in):
    """The first has Adam's averages, the second RMSprop's."""
    assert type_in(*small(family, "--device", "cuda")).code == 0
    assert type_in("perturb", "--ckpt", "g.pt").code == 0
    for epochs, device in ("3", "cpu"), ("4", "cuda"):
        assert type_in(family[0], "--resume", "--epochs", epochs, "--device", device).code == 0


def test_bf16(type_in):
    for family in (["gan_mlp"], ["dcgan"], ["wgan", "--gp", "10"]):
        assert type_in(*small(family, "--device", "cuda", "--bf16")).code == 0


def test_a_divergence_is_told(type_in):
    result = type_in(*small(["dcgan"], "--lr", "1e20", "--epochs", "9", "--device", "cuda"))
    assert result.code == 2 and "infinite numbers" in result.err
    assert Path("runs/dcgan/losses.csv").exists()
