"""What common.Recorded makes of a training step, on a machine without CUDA.

A graph does on CUDA what a step did while it was recorded, on the same tensors. Here a
stand-in does: it calls the step again.
"""

import contextlib
import importlib

import pytest
import torch
from conftest import SCRIPTS, tiny
from torch import nn

import common

CUDA = torch.device("cuda")


class Graph:
    """In the place of torch.cuda.CUDAGraph."""

    made = 0
    recording = None  # the graph that records at the moment

    def __init__(self):
        Graph.made += 1

    def replay(self):
        self.computations()


@contextlib.contextmanager
def record(graph):
    """In the place of torch.cuda.graph."""
    Graph.recording = graph
    try:
        yield
    finally:
        Graph.recording = None


class Step:
    """A training step that notes how it was called. Its losses are easy to foresee."""

    def __init__(self):
        self.calls = []

    def __call__(self, G, D, opt_G, opt_D, real, z, factor=1):
        how = {
            "real": real,
            "recording": Graph.recording is not None,
            "capturable": opt_G.param_groups[0].get("capturable"),
        }
        self.calls.append(how)

        def compute():
            return torch.stack([real.sum(), z.sum() * factor])

        losses = compute()
        if Graph.recording:
            # A replay fills the same place anew, and runs nothing of Python's.
            Graph.recording.computations = lambda: losses.copy_(compute())
        return losses


@pytest.fixture(autouse=True)
def no_cuda(monkeypatch):
    Graph.made = 0
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", record)


def optimizer(kind=torch.optim.Adam):
    weight = nn.Parameter(torch.ones(1))
    return kind([weight], lr=0.1)


def call(recorded, number, opt=None, **settings):
    """One step, on images and noise that are all this number."""
    opt = opt or optimizer()
    real = torch.full((2,), float(number))
    z = torch.full((3,), float(-number))
    return recorded(None, None, opt, opt, real, z, **settings)


def test_each_step_gets_its_own_images_and_noise():
    step = Step()
    recorded = common.recorded(step, CUDA)
    losses = [call(recorded, number).tolist() for number in range(1, 7)]
    assert losses == [[2.0 * n, -3.0 * n] for n in range(1, 7)]


def test_losses_are_not_overwritten_by_later_steps():
    step = Step()
    recorded = common.recorded(step, CUDA)
    losses = [call(recorded, number) for number in range(1, 7)]
    assert torch.stack(losses)[:, 0].tolist() == [2, 4, 6, 8, 10, 12]


def test_the_batches_themselves_are_left_as_they_are():
    step = Step()
    recorded = common.recorded(step, CUDA)
    opt = optimizer()
    batches = [torch.full((2,), float(number)) for number in range(4)]
    for real in batches:
        recorded(None, None, opt, opt, real, torch.zeros(3))
    assert [real[0].item() for real in batches] == [0, 1, 2, 3]
    _, second = step.calls
    assert second["real"] is not batches[1]


def test_the_first_call_is_computed_and_the_second_recorded():
    """So a print in a step is heard twice."""
    step = Step()
    recorded = common.recorded(step, CUDA)
    for number in range(6):
        call(recorded, number)
    assert [call["recording"] for call in step.calls] == [False, True]
    assert Graph.made == 1


def test_each_epoch_records_anew_with_its_own_settings():
    """The numbers that Python gives stay in a record as they are."""
    step = Step()
    for factor in (3, 5):
        recorded = common.recorded(step, CUDA)
        losses = [call(recorded, 1, factor=factor)[1].item() for _ in range(4)]
        assert losses == [-3 * factor] * 4
    assert Graph.made == 2


def test_the_optimizer_is_capturable_only_while_recording():
    step = Step()
    recorded = common.recorded(step, CUDA)
    opt = optimizer()
    for number in range(3):
        call(recorded, number, opt)
        # A checkpoint that says capturable could not go on with a CPU.
        assert opt.param_groups[0]["capturable"] is False, number
    assert [call["capturable"] for call in step.calls] == [False, True]


def test_sgd_that_knows_no_capturable_is_left_alone():
    step = Step()
    recorded = common.recorded(step, CUDA)
    opt = optimizer(torch.optim.SGD)
    for number in range(3):
        call(recorded, number, opt)
    assert "capturable" not in opt.param_groups[0]


def test_counts_of_steps_are_moved_to_the_images_device():
    """RMSprop counts its steps on the CPU, which a record could not reach."""
    step = Step()
    recorded = common.recorded(step, CUDA)
    opt = optimizer(torch.optim.RMSprop)
    (weight,) = opt.param_groups[0]["params"]
    weight.grad = torch.ones(1)
    opt.step()
    moved = []

    class Count:
        def to(self, device):
            moved.append(device)
            return torch.tensor(1.0)

    opt.state[weight]["step"] = Count()
    call(recorded, 0, opt)
    assert moved == []
    call(recorded, 1, opt)
    assert moved == [torch.device("cpu")]  # where z is, here


def test_a_step_that_cannot_be_recorded_says_what_helps():
    def fail(*_, **__):
        if Graph.recording:
            raise RuntimeError("operation not permitted when stream is capturing")
        return torch.zeros(2)

    recorded = common.recorded(fail, CUDA)
    call(recorded, 0)
    with pytest.raises(RuntimeError, match="^operation not permitted") as raised:
        call(recorded, 1)
    assert "--no-graph" in raised.value.__notes__[0]


def test_elsewhere_the_step_stays_itself(monkeypatch):
    step = Step()
    assert common.recorded(step, torch.device("cpu")) is step
    assert common.recorded(step, torch.device("mps")) is step
    assert common.recorded(step, CUDA, graph=False) is step
    monkeypatch.setattr(common, "WORLD", 2)  # under torchrun
    assert common.recorded(step, CUDA) is step


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_training_asks_for_a_record_in_each_epoch(script, type_in, monkeypatch):
    """With its own learning rate and penalty; --no-graph comes through."""

    module = importlib.import_module(script)
    asked = []

    def recorded(step, device, graph):
        asked.append((step, device, graph))

        def nothing(*_, **__):
            return torch.tensor([1.0, 1.0, 0.5, 0.5, 0.5][: len(module.LOSSES)])

        return nothing

    monkeypatch.setattr(common, "recorded", recorded)
    type_in(*tiny([script], "--epochs", "3"))
    assert asked == [(module.train_step, torch.device("cpu"), True)] * 3
    asked.clear()
    type_in(*tiny([script], "--no-graph"))
    assert asked == [(module.train_step, torch.device("cpu"), False)] * 2
