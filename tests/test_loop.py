"""The loop in main(): what each step is given, and what becomes of the losses. The step itself is
replaced by one that learns nothing (test_shapes.py is about the real one)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ARCHS, columns, load, read, small

import common

GANS = ["gan_mlp", "gan_cnn", "dcgan"]


@pytest.mark.parametrize("script", ARCHS)
def test_every_epoch_has_its_own_order_and_noise(script, type_in, watch):
    """Each image once, in G's range; with small seeds and with the largest."""
    seen = watch(script)
    for seed in ("0", "1", "429494", "429495"):
        assert type_in(*small([script], "--seed", seed)).code == 0
    data = common.read_idx(common.find_images("fashion-mnist", "../data"))
    places = {image.numpy().tobytes(): place for place, image in enumerate(data)}
    orders = []
    for first in range(0, 8 * 6, 6):  # eight epochs of six steps
        images = torch.cat([real for real, *_ in seen[first : first + 6]])
        assert images.min() == -1 and images.max() > 0.95
        again = images.add(1).mul(127.5).round().byte()
        orders.append(tuple(places[image.numpy().tobytes()] for image in again))
        assert len(set(orders[-1])) == 96  # the last four images are no whole batch
    assert len(set(orders)) == 8
    noise = torch.cat([z for _, z, *_ in seen])
    assert noise.shape == (48 * 16, 100) and len(noise[:, 0].unique()) > 48 * 16 - 9
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.02


def test_the_learning_rate_falls_after_epoch_5(type_in, watch):
    seen = watch("dcgan")
    type_in(*small(["dcgan"], "--batch-size", "100", "--epochs", "7", "--lr", "0.01"))
    expected = [0.01] * 5 + [0.01 * (5 / 6) ** 0.5, 0.01 * (5 / 7) ** 0.5]
    np.testing.assert_allclose([rates for _, _, *rates in seen], np.transpose([expected] * 2))


@pytest.mark.parametrize("script", ARCHS)
def test_losses_and_what_is_said_of_them(script, type_in, watch):
    """losses.csv has those of each step, a line of the screen the means of an epoch."""
    names = ["distance"] * (script == "wgan") + ["loss_D", "loss_G", "D(x)", "D(G(z))"]
    watch(script, lambda step: [step, step / 8, step * 10, -step, 1 / 3])
    out = type_in(*small([script])).out
    steps = np.arange(1, 13)
    losses = [steps, steps / 8, steps * 10, -steps, steps * 0 + 1 / 3][: len(names)]
    table = np.transpose([1 + (steps > 6), steps, *losses])
    np.testing.assert_allclose(columns(f"runs/{script}"), table, rtol=1e-5)
    text = Path("runs", script, "losses.csv").read_bytes()
    assert b"\r" not in text and text.startswith(f"epoch,step,{','.join(names)}\n1,1,".encode())
    means = [f"{name} {values[6:].mean():.3f}" for name, values in zip(names, losses)]
    assert f"epoch 2/2  {'  '.join(means)}  " in out


@pytest.mark.parametrize("script", GANS)
def test_a_discriminator_that_is_stuck_or_never_wrong(script, type_in, watch):
    """Stuck is one whose last step of an epoch says so: before it all may have been well."""
    watch(script, lambda step: [13.0, 0.009 if step in (7, 12) else 3.0, 0.5, 0.5])
    result = type_in(*small([script], "--epochs", "3"))
    assert result.code == 2 and "D is stuck at 1, epoch 2 unsaved" in result.err
    assert load(f"runs/{script}")["epoch"] == 1 and len(read(f"runs/{script}")) == 12
    watch(script, lambda step: [13.0, 0.009 if step % 6 else 0.011, 0.5, 0.5])
    assert type_in(script, "--resume", "--epochs", "2").code == 0

    said = "D is never wrong, so G learns nothing any more"
    for verdicts, told in (([0.995, 0.005], 1), ([0.985, 0.005], 0), ([0.995, 0.015], 0)):
        watch(script, lambda step: [0.1, 9.0, *verdicts])  # noqa: B023
        assert type_in(*small([script], "--epochs", "1")).out.count(said) == told


def test_a_discriminator_that_is_stuck_in_truth(type_in):
    """After two steps, the first one's D knew nothing: the mean of D(G(z)) is no sign."""
    result = type_in(*small(["dcgan"], "--batch-size", "50", "--lr", "0.05", "--no-bf16"))
    assert result.code == 2 and "D is stuck at 1, epoch 1 unsaved" in result.err
    assert columns("runs/dcgan")[:, 5].mean() < 0.9 and not Path("runs/dcgan/g.pt").exists()


@pytest.mark.parametrize("script", ARCHS)
def test_infinite_numbers_never_replace_a_good_checkpoint(script, type_in, watch):
    options = ["--gp", "1"] * (script == "wgan")  # clipping keeps weights finite at any rate
    result = type_in(*small([script], *options, "--lr", "1e30", "--out", "wild"))
    assert result.code == 2 and "infinite numbers" in result.err and "smaller --lr" in result.err
    assert not Path("wild/ckpt.pt").exists() and not Path("wild/g.pt").exists()
    watch(script, lambda step: [1.0, 1.0, 0.5, 0.5 if step != 8 else float("nan")])
    result = type_in(*small([script], "--epochs", "3", "--out", "run"))
    assert result.code == 2 and "epoch 2 ended in infinite numbers, unsaved" in result.err
    assert load("run")["epoch"] == load("run", "g.pt")["epoch"] == 1 and len(read("run")) == 6
