"""Training on CUDA, for every network, where there is a GPU."""

import numpy as np
import pytest
import torch
from conftest import FAMILIES, columns, small

import gan_mlp

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="there is no CUDA GPU here"
)
each_family = pytest.mark.parametrize("family", FAMILIES, ids=" ".join)
CUDA = ["--device", "cuda"]


def the_same_losses(one, again, other):
    """That other's losses begin with one's.

    One and again are of the same command. If even they differ, as docs/speed.md knows
    of one network, there is nothing to compare.
    """
    rows = columns(one)
    if not np.array_equal(rows, columns(again)):
        pytest.skip("the same command learned something else")
    np.testing.assert_array_equal(columns(other)[: len(rows)], rows)


@each_family
def test_stopped_and_resumed_it_learns_the_same(family, type_in):
    for epochs, out in ("4", "whole"), ("4", "again"), ("2", "halves"):
        line = small(family, *CUDA, "--epochs", epochs, "--out", out)
        assert type_in(*line).code == 0
    resume = [family[0], "--resume", "halves", "--epochs", "4"]
    assert type_in(*resume, *CUDA).code == 0
    the_same_losses("whole", "again", "halves")


@each_family
def test_a_run_moves_between_the_gpu_and_the_cpu(family, type_in):
    assert type_in(*small(family, *CUDA, "--out", "run")).code == 0
    for epochs, device in ("3", "cpu"), ("4", "cuda"):
        resume = [family[0], "--resume", "run", "--epochs", epochs]
        assert type_in(*resume, "--device", device).code == 0
    assert type_in("perturb", "--ckpt", "run").code == 0


@each_family
def test_it_trains_in_bfloat16(family, type_in):
    assert type_in(*small(family, *CUDA, "--bf16")).code == 0


@each_family
@pytest.mark.parametrize("source", [[], ["--report"]], ids=["ours", "report"])
def test_recorded_steps_learn_what_others_do(family, source, type_in):
    line = small(family, *source, *CUDA, "--epochs", "3")
    for folder, more in (
        ("plain", "--no-graph"),
        ("again", "--no-graph"),
        ("graph", "--graph"),
    ):
        assert type_in(*line, "--out", folder, more).code == 0
    the_same_losses("plain", "again", "graph")


def test_a_step_that_reads_a_number_cannot_be_recorded(type_in, monkeypatch):
    train_step = gan_mlp.train_step

    def read_a_number(*arguments, **settings):
        losses = train_step(*arguments, **settings)
        losses.tolist()
        return losses

    monkeypatch.setattr(gan_mlp, "train_step", read_a_number)
    with pytest.raises(RuntimeError) as raised:
        type_in(*small(["gan_mlp"], *CUDA, "--epochs", "1"))
    assert "--no-graph" in raised.value.__notes__[0]
    line = small(["gan_mlp"], *CUDA, "--epochs", "1", "--no-graph")
    assert type_in(*line).code == 0
