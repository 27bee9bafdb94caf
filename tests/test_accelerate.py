"""What makes a step faster or a sample better must not change what is computed."""

import importlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ARCHS
from test_runs import columns, small

import common

CASES = [(script, arch) for script in ARCHS for arch in ARCHS[script]]


@pytest.mark.parametrize("script, arch", CASES)
def test_bf16_computes_nearly_the_same_and_judges_in_float32(script, arch):
    torch.manual_seed(0)
    make_G, make_D = importlib.import_module(script).ARCHS[arch]
    G, D, z = make_G().eval(), make_D().eval(), torch.randn(8, 100)
    with torch.no_grad():
        expected = D(G(z))
        for network in (G, D):
            common.compute_in_bf16(network, torch.device("cpu"))
        verdicts = D(G(z))
    assert verdicts.dtype == torch.float32
    torch.testing.assert_close(verdicts, expected, rtol=0.05, atol=0.05)
    assert not torch.equal(verdicts, expected)  # or it did not compute in bfloat16 at all
    assert {p.dtype for net in (G, D) for p in net.parameters()} == {torch.float32}


def test_bf16_is_asked_for_once_and_then_kept(type_in):
    for given in ("on", "off"):
        assert type_in(*small(["gan_mlp"], "--bf16", given, "--out", given)).code == 0
        assert torch.load(f"{given}/ckpt.pt")["args"]["bf16"] == given
        assert type_in("gan_mlp", "--resume", given, "--epochs", "3").code == 0
    assert not np.array_equal(columns("on"), columns("off"))
    refused = type_in("gan_mlp", "--resume", "on", "--bf16", "off", "--epochs", "4")
    assert refused.code == 2 and "--bf16 off does not fit on/ckpt.pt (it has on)" in refused.err


def test_depthwise_convolutions_stay_in_float32(type_in):
    assert type_in(*small(["gan_cnn", "--arch", "separable"], "--epochs", "1")).code == 0
    assert torch.load("runs/gan_cnn/ckpt.pt")["args"]["bf16"] == "off"


def test_average_by_hand():
    network = torch.nn.Linear(1, 1, bias=False)
    average = common.Average(network, 0.75)
    mean = None
    for step, weight in enumerate([4.0, 2.0, 8.0, 0.0], start=1):
        network.weight.data.fill_(weight)
        average.update()
        share = 10 / (step + 9)  # of the newest: 10/10, 10/11, 10/12, 10/13, and so on to 1/4
        mean = weight if mean is None else mean + share * (weight - mean)
        assert average.network.weight.item() == pytest.approx(mean)
    for _ in range(200):
        average.update()
    network.weight.data.fill_(1.0)
    before = average.network.weight.item()
    average.update()
    assert average.network.weight.item() == pytest.approx(before + 0.25 * (1 - before))


def test_without_an_average_the_newest_weights_are_saved(type_in):
    for ema, same in (("0", True), ("0.999", False)):
        assert type_in(*small(["dcgan"], "--ema", ema, "--out", ema)).code == 0
        drawn = torch.load(Path(ema, "g.pt"))["state_dict"]
        newest = torch.load(Path(ema, "ckpt.pt"))["G"]
        floats = [name for name in newest if newest[name].is_floating_point()]
        assert all(torch.equal(drawn[name], newest[name]) for name in floats) == same


def test_each_process_gets_its_share_of_a_batch(monkeypatch):
    monkeypatch.setattr(common, "WORLD", 2)
    monkeypatch.setattr(common, "RANK", 1)
    monkeypatch.setattr(common, "parallel", lambda network, device: network)
    batch, args = (
        torch.arange(12).view(3, 4),
        SimpleNamespace(bf16="off", no_graph=True, batch_size=4),
    )
    network = torch.nn.Linear(1, 1)

    def step(G, D, opt_G, opt_D, images, z):
        return images.tolist(), z.tolist()

    for dim, mine in (0, [[4, 5, 6, 7]]), (1, [[1, 3], [5, 7], [9, 11]]):
        share = common.accelerate(step, network, network, None, None, args, batch_dim=dim)
        assert share(batch, batch) == (mine, mine)
