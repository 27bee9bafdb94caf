"""What a user can get wrong ends in a message; a student's own errors keep their words.

A message says what to do. Its exit code is 2, and nothing has changed on the disk.
"""

import contextlib
import importlib
import os
from pathlib import Path

import pytest
import torch
from conftest import HERE, SCRIPTS, SMALL, load, read, small, tiny
from torch import nn

import common
import gan_mlp
import wgan

each_script = pytest.mark.parametrize("script", SCRIPTS)
each_gan = pytest.mark.parametrize("script", ["gan_mlp", "gan_cnn", "dcgan"])

# ---- options

# The message names the last option of a line.
MISTAKES = [
    "--epochs 0",
    "--epochs many",
    "--epochs 1.5",
    "--epochs \u00b2",  # a digit to Python, but no number
    "--batch-size 0",
    "--batch-size 1",
    "--batch-size 101",  # there are 100 images
    "--lr nan",
    "--lr inf",
    "--lr 1e400",
    "--lr 0",
    "--lr -0.0",
    "--z-dim 0",
    "--z-dim 1e3",
    "--seed -1",
    "--seed 429496",
    "--ema 1",
    "--ema -0.1",
    "--arch none",
    "--dataset cifar",
    "--device gpu",
    "--device cuda:99",
    "--sample-every 0",
    "--data-dir photos",
    "--colour blue",
]
MISTAKES_OF_ONE = {
    "gan_mlp": ["--r1 -1", "--beta1 1", "--beta2 1", "--optimizer none"],
    "gan_cnn": ["--r1 nan", "--beta1 1", "--optimizer none"],
    "dcgan": ["--r1 -1", "--beta1 1"],
    "wgan": [
        "--clip 0",
        "--n-critic 0",
        "--n-critic 101 --batch-size 2",
        "--gp -1",
        "--gp nan",
        "--gp 1 --clip 1",
    ],
}


@each_script
def test_a_wrong_option_is_named(script, refused):
    for line in MISTAKES + MISTAKES_OF_ONE[script]:
        words = line.split()
        refused(words[-2], script, *SMALL, *words)


# ---- folders and files


def test_a_folder_that_has_something_is_not_written_into(type_in, refused):
    refused("not empty", *small(["gan_mlp"], "--out", "../data"))
    type_in(*small(["gan_mlp"], "--out", "run"))
    refused('or --resume "run"', *small(["gan_mlp"], "--out", "run"))


def test_a_folder_that_cannot_be_made(type_in, refused):
    file = "../data/train-images-idx3-ubyte.gz"
    refused("is a file", *small(["gan_mlp"], "--out", file))
    refused("/proc", *small(["gan_mlp"], "--out", "/proc/nothing/here"))
    Path("runs").write_text("not a folder")
    refused("runs", *small(["gan_mlp"]))


def test_images_that_cannot_be_read(refused, monkeypatch):
    folder = Path("photos/train-images-idx3-ubyte")
    folder.mkdir(parents=True)  # a folder where a file should be
    refused("is a directory", *small(["gan_mlp"], "--data-dir", "photos"))

    def read_bytes(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    with pytest.raises(common.UserError, match="Permission denied"):
        common.read_idx(Path("../data/train-images-idx3-ubyte.gz"))


@contextlib.contextmanager
def as_another_user():
    """root may read everything."""
    if os.geteuid() > 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_that_may_not_be_looked_into(home):
    locked = Path("locked")
    locked.mkdir(mode=0o700)
    locked.chmod(0)
    for look in (
        lambda: common.find_images("fashion-mnist", "locked"),
        lambda: common.load(common.find_checkpoint("locked/run", "gan_mlp")),
    ):
        with (
            as_another_user(),
            pytest.raises(common.UserError, match="Permission denied"),
        ):
            look()


# ---- networks that do not fit


class Generator(nn.Module):
    def __init__(self, z_dim=100, side=28):
        super().__init__()
        self.fc = nn.Linear(z_dim, side * side)
        self.side = side

    def forward(self, z):
        return torch.tanh(self.fc(z)).view(-1, 1, self.side, self.side)


class LargeGenerator(Generator):
    def __init__(self, z_dim=100):
        super().__init__(z_dim, side=32)


class Discriminator(nn.Module):
    def __init__(self, outputs=1):
        super().__init__()
        self.fc = nn.Linear(784, outputs)

    def forward(self, x):
        return torch.sigmoid(self.fc(x.flatten(1))).squeeze(1)


class TenOutputs(Discriminator):
    def __init__(self):
        super().__init__(outputs=10)


class ColumnOfOutputs(Discriminator):
    def forward(self, x):
        return super().forward(x)[:, None]


class NoSigmoid(Discriminator):
    def forward(self, x):
        return self.fc(x.flatten(1)).squeeze(1)


class BatchNormDiscriminator(Discriminator):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(1)

    def forward(self, x):
        return super().forward(self.norm(x))


MISFITS = {
    "size": (LargeGenerator, Discriminator, "G makes images of [1, 32, 32]"),
    "ten": (Generator, TenOutputs, "D gives [64, 10] for 64 images"),
    "column": (Generator, ColumnOfOutputs, "D gives [64, 1] for 64 images"),
}


@each_script
@pytest.mark.parametrize("arch", MISFITS)
def test_networks_that_do_not_fit_are_refused(script, arch, refused, monkeypatch):
    *networks, text = MISFITS[arch]
    archs = importlib.import_module(script).ARCHS
    monkeypatch.setitem(archs, arch, tuple(networks))
    refused(text, *small([script, "--arch", arch]))


@each_gan
def test_a_discriminator_without_a_sigmoid_is_refused(script, refused, monkeypatch):
    archs = importlib.import_module(script).ARCHS
    monkeypatch.setitem(archs, "open", (Generator, NoSigmoid))
    refused("D gives no probabilities", *small([script, "--arch", "open"]))


def test_a_critic_needs_no_sigmoid(type_in, monkeypatch):
    monkeypatch.setitem(wgan.ARCHS, "open", (Generator, NoSigmoid))
    assert type_in(*tiny(["wgan", "--arch", "open"])).code == 0


@each_script
def test_the_look_at_the_networks_changes_nothing(script):
    """Neither a statistic of BatchNorm, nor a random number, nor what D does next."""
    D = BatchNormDiscriminator()
    G = Generator().eval().requires_grad_(False)
    before = {name: weight.clone() for name, weight in D.state_dict().items()}
    numbers = torch.get_rng_state()
    images = torch.zeros(8, 1, 28, 28, dtype=torch.uint8)
    z = torch.zeros(64, 100)
    importlib.import_module(script).check_networks(G, D, z, images)
    assert D.training
    assert torch.equal(torch.get_rng_state(), numbers)
    for name, weight in D.state_dict().items():
        assert torch.equal(weight, before[name]), name


# ---- a training that breaks


@each_script
def test_infinite_weights_are_never_saved(script, type_in):
    # Clipping keeps weights finite at any rate.
    more = ["--gp", "1"] if script == "wgan" else []
    result = type_in(*small([script], *more, "--lr", "1e30", "--out", "wild"))
    assert result.code == 2
    assert "infinite numbers" in result.err
    assert "smaller --lr" in result.err
    assert not list(Path("wild").glob("*.pt"))
    assert read("wild") == []


@each_script
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_infinite_losses_never_replace_a_good_checkpoint(
    script, value, type_in, replace_step
):
    replace_step(script, lambda step: [1.0, 1.0, 0.5, value if step == 8 else 0.5, 0.5])
    result = type_in(*small([script], "--epochs", "3", "--out", "run"))
    assert result.code == 2
    assert "epoch 2 ended in infinite numbers and is not saved" in result.err
    assert load("run")["epoch"] == 1
    assert load("run", "g.pt")["epoch"] == 1
    assert len(read("run")) == 6  # no row of the broken epoch


@each_script
def test_infinite_weights_of_either_network_are_noticed(script):
    module = importlib.import_module(script)
    losses = torch.tensor([[1.0, 1.0, 0.5, 0.5, 0.5]])
    for broken in "GD":
        networks = {"G": Generator(), "D": Discriminator()}
        module.check_training(losses, networks["G"], networks["D"], 3)
        networks[broken].fc.weight.data[0, 0] = float("inf")
        with pytest.raises(common.UserError, match="epoch 3 ended in infinite"):
            module.check_training(losses, networks["G"], networks["D"], 3)


STUCK = {
    "at 1": ([13.0, 0.009, 0.5, 0.5], [13.0, 0.011, 0.5, 0.5]),
    "at 0": ([13.0, 27.6, 1e-13, 0.5], [13.0, 27.6, 1e-11, 0.5]),
}


@each_gan
@pytest.mark.parametrize("where", STUCK)
def test_a_stuck_discriminator_stops_the_run(script, where, type_in, replace_step):
    """Stuck is one in the last step of an epoch: before it, all may have been well."""
    stuck, free = STUCK[where]
    replace_step(script, lambda step: stuck if step in (7, 12) else free)
    result = type_in(*small([script], "--epochs", "3", "--out", "run"))
    assert result.code == 2
    assert (
        "D is stuck, all images are the same to it. Epoch 2 is not saved" in result.err
    )
    assert load("run")["epoch"] == 1
    assert len(read("run")) == 6
    replace_step(script, lambda step: free if step % 6 == 0 else stuck)
    assert type_in(script, "--resume", "run", "--epochs", "2").code == 0


# ---- a student's own errors, in a copy


def copy(script, old, new):
    """A copy of a script, mine.py, with one change."""
    text = (HERE / f"{script}.py").read_text()
    assert old in text
    Path("mine.py").write_text(text.replace(old, new, 1))


IN_MAIN = "    steps_per_epoch = len(images) // args.batch_size\n"
IN_THE_LOOP = "                steps_done += 1\n"


@pytest.mark.parametrize("line", [IN_MAIN, IN_THE_LOOP])
def test_a_file_of_his_that_is_missing_keeps_its_traceback(line, type_in):
    indent = line[: len(line) - len(line.lstrip())]
    copy("gan_mlp", line, f'{line}{indent}open("labels.txt")\n')
    with pytest.raises(FileNotFoundError) as raised:
        type_in(*small(["mine"]))
    assert raised.value.filename == "labels.txt"
    last = raised.traceback[-1]
    assert Path(last.path).name == "mine.py"
    assert 'open("labels.txt")' in str(last.statement)


def test_a_view_of_channels_last_keeps_torch_s_words(type_in):
    """Every tutorial has it. torch says what to write instead."""
    copy("dcgan", "self.fc1(x.flatten(1))", "self.fc1(x.view(x.shape[0], -1))")
    with pytest.raises(RuntimeError, match=r"Use \.reshape"):
        type_in(*small(["mine"]))


def test_an_error_of_the_machine_keeps_its_words(type_in, monkeypatch):
    def train_step(*_, **__):
        raise RuntimeError("an illegal memory access")

    monkeypatch.setattr(gan_mlp, "train_step", train_step)
    with pytest.raises(RuntimeError, match="^an illegal memory access$"):
        type_in(*small(["gan_mlp"]))


def python_s_memory(_):
    raise MemoryError


def cuda_s_memory(_):
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("fill", [python_s_memory, cuda_s_memory])
def test_out_of_memory_says_what_helps(fill, type_in, replace_step):
    replace_step("gan_mlp", fill)
    with pytest.raises((MemoryError, torch.OutOfMemoryError)) as raised:
        type_in(*small(["gan_mlp"]))
    assert raised.value.__notes__ == ["Out of memory: try a smaller --batch-size."]
