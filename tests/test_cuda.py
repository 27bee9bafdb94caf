"""CUDA, for every network, where there is a GPU. What is recorded of a step, on any machine."""

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import FAMILIES, columns, small

import common
import gan_mlp

on_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="there is no CUDA GPU here"
)
each_family = pytest.mark.parametrize("family", FAMILIES, ids=" ".join)
CUDA = ["--device", "cuda", "--epochs"]


def the_same(one, again, other):
    """That other's losses are one's, if those are repeatable: docs/speed.md knows of a GPU and a
    network whose were not, once."""
    rows = columns(one)
    if not np.array_equal(rows, columns(again)):
        pytest.skip("the same command learned something else")
    np.testing.assert_array_equal(columns(other)[: len(rows)], rows)


@on_gpu
@each_family
def test_resumed_as_if_never_stopped_and_on_another_device(family, type_in):
    for epochs, out in ("4", "whole"), ("4", "again"), ("2", "halves"):
        assert type_in(*small(family, *CUDA, epochs, "--out", out)).code == 0
    for epochs, device in ("4", "cuda"), ("5", "cpu"), ("6", "cuda"):
        line = [family[0], "--resume", "halves", "--epochs", epochs, "--device", device]
        assert type_in(*line).code == 0
    assert type_in("perturb", "--ckpt", "halves").code == 0
    assert type_in(*small(family, "--device", "cuda", "--bf16")).code == 0
    the_same("whole", "again", "halves")


@on_gpu
@each_family
@pytest.mark.parametrize("source", [[], ["--report"]], ids=["ours", "report"])
def test_recorded_steps_learn_what_others_do(family, source, type_in):
    line = small(family, *source, *CUDA, "3")
    for folder, more in (
        ("plain", "--no-graph"),
        ("again", "--no-graph"),
        ("graph", "--graph"),
    ):
        assert type_in(*line, "--out", folder, more).code == 0
    the_same("plain", "again", "graph")


@on_gpu
def test_a_step_that_cannot_be_recorded(type_in, monkeypatch):
    monkeypatch.setattr(
        gan_mlp, "train_step", lambda *_: torch.ones(4, device="cuda").tolist()
    )
    with pytest.raises(RuntimeError) as raised:
        type_in(*small(["gan_mlp"], *CUDA, "1"))
    assert "--no-graph" in raised.value.__notes__[0]


def test_what_is_recorded(monkeypatch):
    """With a graph that computes its step anew, of what it was recorded with."""
    opt, seen = torch.optim.RMSprop([torch.ones(1)]), []

    def step(G, D, opt_G, opt_D, real, z, factor, is_replayed=False):
        seen.append((is_replayed, opt.param_groups[0]["capturable"]))
        return torch.stack([real.sum(), z.sum() * factor])

    class Graph:
        def __init__(self):
            self.factor = factor  # Python's numbers stay as they are

        def replay(self):
            learn.losses.copy_(
                step(0, 0, opt, opt, learn.real, learn.z, self.factor, True)
            )

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", contextlib.nullcontext)
    args, device = SimpleNamespace(graph=True), torch.device("cuda")
    learn, losses = common.recorded(step, args, device), []
    for n, factor in enumerate((3, 3, 3, 5, 5, 5)):
        opt.param_groups[0]["lr"] = 0.1 if n < 5 else 0.2
        losses.append(
            learn(0, 0, opt, opt, torch.full((2,), n), torch.full((2,), -n), factor)
        )
    assert torch.stack(losses).tolist() == [
        [2 * n, -2 * n * (3 if n < 3 else 5)] for n in range(6)
    ]
    recorded, replayed = (False, True), (True, False)
    anew = [recorded, replayed]
    assert seen == [(False, False), *anew, replayed, *anew, replayed, *anew]
    assert common.recorded(step, args, torch.device("cpu")) is step
    assert common.recorded(step, SimpleNamespace(graph=False), device) is step
    monkeypatch.setattr(common, "WORLD", 2)
    assert common.recorded(step, args, device) is step
