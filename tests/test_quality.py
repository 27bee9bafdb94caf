"""The numbers of benchmarks/quality.py, against cases worked out by hand."""

import gzip
import struct
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import HERE
from torch import nn

sys.path.insert(0, str(HERE / "benchmarks"))
import quality

import common

# ---- Frechet distance

# Four points, with the mean 0 and the covariance 2/3 I.
CROSS = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]])


def test_frechet_of_the_same_points_is_0():
    assert quality.frechet(CROSS, CROSS) == pytest.approx(0, abs=1e-9)


def test_frechet_of_moved_points_is_the_squared_way():
    moved = CROSS + torch.tensor([3.0, 4.0])
    assert quality.frechet(moved, CROSS) == pytest.approx(3**2 + 4**2)


def test_frechet_of_wider_points():
    # Deviations 2 s and s, with s = sqrt(2/3), differ by s: s^2 for each of two axes.
    assert quality.frechet(2 * CROSS, CROSS) == pytest.approx(2 * 2 / 3)


def test_frechet_of_covariances_that_do_not_commute():
    # diag(1, 0), and the same turned by 45 degrees: each has the trace 1. Their product
    # has the eigenvalues 1/2 and 0, so its root has the trace sqrt(1/2).
    line = torch.tensor([[1.0, 0], [-1, 0]]) / 2**0.5
    turned = torch.tensor([[1.0, 1], [-1, -1]]) / 2
    assert quality.frechet(line, turned) == pytest.approx(1 + 1 - 2 * 0.5**0.5)


# ---- precision and recall


def on_a_line(*places):
    """Points with one feature: [N, 1]."""
    return torch.tensor(places)[:, None]


def test_coverage_by_balls_on_a_line():
    # As far as the nearest neighbour, the balls around 0, 1 and 10 reach 1, 1 and 9.
    real = on_a_line(0.0, 1.0, 10.0)
    inside = on_a_line(-0.5, 1.5, 3.0, 19.0)
    outside = on_a_line(-1.5, 19.5)
    points = torch.cat([inside, outside])
    assert quality.coverage(inside, real, k=1) == 1
    assert quality.coverage(outside, real, k=1) == 0
    assert quality.coverage(points, real, k=1) == pytest.approx(4 / 6)


def test_coverage_counts_three_neighbours():
    # The ball around 0 reaches to 3 on both sides, and that around 3, too.
    real = on_a_line(0.0, 1.0, 2.0, 3.0)
    inside = on_a_line(-2.9, 5.9)
    outside = on_a_line(-3.1, 6.1)
    assert quality.coverage(inside, real) == 1
    assert quality.coverage(outside, real) == 0


def test_one_image_again_and_again_is_precise_and_recalls_nothing():
    real = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
    collapsed = real[:1].repeat(400, 1)
    assert quality.coverage(collapsed, real) == 1
    assert quality.coverage(real, collapsed) < 0.01


# ---- the other numbers


def test_effective_classes():
    # Shares 1/2, 1/4, 1/4 have the entropy 1.5 log 2.
    several = torch.tensor([0, 0, 5, 9])
    one = torch.tensor([7, 7, 7])
    assert quality.effective_classes(several) == pytest.approx(2**1.5)
    assert quality.effective_classes(one) == pytest.approx(1)


def test_sharpness_adds_the_differences_across_and_down():
    stripes = torch.tensor([-1.0, 1.0]).repeat(14)  # a row; its neighbours differ by 2
    across = stripes.expand(2, 1, 28, 28)
    down = across.transpose(2, 3)
    assert quality.sharpness(across) == pytest.approx(2)
    assert quality.sharpness(0.5 * down) == pytest.approx(1)


class Halves(nn.Module):
    """A classifier whose features are the means of an image's left and right half. It
    predicts class 0 if the left is brighter, else 1."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(2, 2, bias=False)
        self.last.weight.data = torch.eye(2)

    def features(self, x):
        left = x[:, 0, :, :14].mean(dim=(1, 2))
        right = x[:, 0, :, 14:].mean(dim=(1, 2))
        return torch.stack([left, right], dim=1)


class Lamp(nn.Module):
    """A generator: an entry of z is the left half's brightness; the right is grey."""

    def __init__(self, entry):
        super().__init__()
        self.entry = entry

    def forward(self, z):
        images = torch.zeros(len(z), 1, 28, 28)
        images[:, :, :, :14] = z[:, self.entry, None, None, None]
        return images


def test_kept():
    # z[6] = 0.5 makes all of class 0, where half of them were; z[1] changes nothing.
    is_left = quality.noise(10, 1000)[:, 6] > 0
    share = is_left.float().mean().item()
    assert 0.4 < share < 0.6
    net = Halves()
    G = Lamp(entry=6)
    kept = partial(quality.kept, net, G, z_dim=10)
    assert kept(value=0.5, positions=[6]) == pytest.approx(share)
    assert kept(value=0.5, positions=[1]) == 1
    # Without positions it tries five: of ten, 0, 2, 4, 6 and 8.
    assert kept(value=0.5) == pytest.approx((share + 4) / 5)
    # z[6] = -0.5 makes all of class 1.
    assert kept(value=-0.5, positions=[6]) == pytest.approx(1 - share)


def test_pictures_are_drawn_within_the_scale():
    z = on_a_line(3.0, -3.0, 0.5)
    pictures = quality.draw(Lamp(entry=0), z)
    corners = pictures[:, 0, 0, 0]
    assert corners.tolist() == [1, -1, 0.5]


def test_judge():
    generator = torch.Generator().manual_seed(0)
    real = 0.1 * torch.randn(100, 1, 28, 28, generator=generator)
    judge = quality.Judge(Halves(), Halves(), real)
    same = judge.images(real)
    assert same["FD"] == pytest.approx(0, abs=1e-6)
    assert same["precision"] == 1
    assert same["recall"] == 1
    assert same["sharpness"] == 1
    assert same["saturated"] == 0

    collapsed = judge.images(real[:1].repeat(100, 1, 1, 1))
    assert collapsed["precision"] == 1
    assert collapsed["recall"] == pytest.approx(0.01)
    assert collapsed["classes"] == pytest.approx(1)

    # A black left half in half of them, a black right half in the others, else grey.
    fakes = torch.zeros(8, 1, 28, 28)
    fakes[:4, :, :, :14] = -1
    fakes[4:, :, :, 14:] = -1
    numbers = judge.images(fakes)
    assert numbers["FD"] > 0.1
    assert numbers["precision"] == 0
    assert numbers["recall"] == 0
    assert numbers["classes"] == pytest.approx(2)
    assert numbers["brightness"] == 127.5 / 2
    assert numbers["saturated"] == 0.5


def test_table_row():
    first = {"FD": 10.0, "recall": 0.5}
    second = {"FD": 12.0, "recall": 0.5}
    one = quality.table_row("name", 20, 0, [first])
    assert one.startswith("| name | 20 | 0 | 10.0 |  |  | 0.50 |")
    both = quality.table_row("name", 20, "0 1", [first, second])
    # The standard deviation of 10 and 12 is sqrt(2).
    assert both.startswith("| name | 20 | 0 1 | 11.0 ± 1.4 |  |  | 0.50 ± 0.00 |")


# ---- files


def test_images_and_labels_are_read(tmp_path):
    black = bytes(28 * 28)
    white = bytes([255] * 28 * 28)
    images = struct.pack(">4I", 0x803, 2, 28, 28) + black + white
    labels = struct.pack(">2I", 0x801, 2) + bytes([9, 4])
    (tmp_path / "train-images-idx3-ubyte").write_bytes(images)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(images)
    with pytest.raises(common.UserError, match="t10k-labels-idx1-ubyte"):
        quality.read("t10k", tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(labels)
    pixels, classes = quality.read("t10k", tmp_path)
    assert pixels.flatten(1).mean(dim=1).tolist() == [-1, 1]
    assert classes.tolist() == [9, 4]


def test_packed_images_and_labels_are_read(tmp_path):
    images = struct.pack(">4I", 0x803, 1, 28, 28) + bytes(28 * 28)
    labels = struct.pack(">2I", 0x801, 1) + bytes([7])
    images_file = tmp_path / "train-images-idx3-ubyte.gz"
    labels_file = tmp_path / "train-labels-idx1-ubyte.gz"
    images_file.write_bytes(gzip.compress(images))
    labels_file.write_bytes(gzip.compress(labels))
    _, classes = quality.read("train", tmp_path)
    assert classes.tolist() == [7]


def test_the_epochs_at_which_a_training_is_looked_at():
    assert quality.stages(20) == [1, 2, 5, 10, 20]
    assert quality.stages(7) == [1, 2, 5, 7]


FOLDER = Path("runs", "quality", "wgan-gp-10-seed3")


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """The commands that quality.py types; a stand-in for wgan.py counts its epochs."""
    monkeypatch.chdir(tmp_path)
    commands = []

    def call(command, stdout):
        words = [str(word) for word in command]
        epoch = int(words[words.index("--epochs") + 1])
        commands.append(words)
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / "g.pt").write_text(f"epoch {epoch}")
        state = {"script": "wgan", "arch": "", "z_dim": 1, "args": {}, "epoch": epoch}
        common.save(FOLDER / "ckpt.pt", state)
        return 0

    monkeypatch.setattr(quality.subprocess, "call", call)
    return commands


def train_two_epochs():
    args = SimpleNamespace(epochs=2, device="cpu", data_dir=None)
    quality.train("wgan --gp 10", seed=3, args=args)


def test_a_training_goes_on_from_look_to_look_and_keeps_each_generator(commands):
    train_two_epochs()
    first, second = commands
    assert first[1] == str(HERE / "wgan.py")
    assert "--gp 10 --dataset fashion-mnist --seed 3" in " ".join(first)
    assert first[-2:] == ["--out", str(FOLDER)]
    assert second[-2:] == ["--resume", str(FOLDER)]
    assert (FOLDER / "g-001.pt").read_text() == "epoch 1"
    assert (FOLDER / "g-002.pt").read_text() == "epoch 2"


def test_a_finished_training_is_not_done_again(commands):
    train_two_epochs()
    train_two_epochs()
    assert len(commands) == 2


def test_a_training_that_was_stopped_before_its_last_copy_makes_only_the_copy(commands):
    train_two_epochs()
    (FOLDER / "g-002.pt").unlink()
    train_two_epochs()
    assert len(commands) == 2
    assert (FOLDER / "g-002.pt").exists()


def test_an_earlier_epoch_without_a_copy_is_gone_for_good(commands):
    train_two_epochs()
    (FOLDER / "g-001.pt").unlink()
    with pytest.raises(common.UserError, match="gone past epoch 1"):
        train_two_epochs()
