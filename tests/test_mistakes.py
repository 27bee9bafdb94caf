"""A mistake ends in a message that says what to do, exit code 2, and nothing changed on disk."""

import gzip
import io
import pickle
from pathlib import Path

import pytest
import torch
from conftest import ARCHS, SMALL, Evil, idx, load, pictures, small, tree

import common

IMAGES = idx(pictures(50))
# What the message names is the last option that is typed.
OF_ALL = """--epochs 0, --epochs many, --epochs 1.5, --epochs \u00b2, --batch-size 0, --batch-size 101,
    --lr nan, --lr inf, --lr 1e400, --lr 0, --lr -0.0, --z-dim 0, --z-dim 1e3, --seed -1,
    --seed 429496, --ema 1, --arch none, --dataset cifar, --device gpu, --device cuda:99,
    --sample-every 0, --data-dir photos, --colour blue"""
OF_ONE = {
    "gan_mlp": "--r1 -1, --beta1 1, --beta2 1, --optimizer none",
    "gan_cnn": "--r1 nan, --beta1 1, --optimizer none",
    "dcgan": "--r1 -1, --beta1 1",
    "wgan": "--clip 0, --n-critic 0, --gp -1, --gp nan, --gp 1 --clip 1",
}
FOLDERS = {
    "--out ../data": "not empty",
    "--out ../data/train-images-idx3-ubyte.gz": "exists",
    "--out /proc/nothing/here": "/proc",
    "--resume": "nothing to resume",
    "--resume nowhere": "no such file",
    "--resume ../data": "no such file",
    "--resume ../data/train-images-idx3-ubyte.gz": "no checkpoint",
}


@pytest.fixture
def refused(type_in):
    def check(text, *line):
        before = tree("..")
        result = type_in(*line)
        assert result.code == 2 and "Traceback" not in result.err, (line, result.err)
        assert text.lower() in result.err.lower(), (line, result.err)
        assert tree("..") == before

    return check


@pytest.mark.parametrize("script", ARCHS)
def test_options(script, refused):
    for option in f"{OF_ALL}, {OF_ONE[script]}".split(","):
        refused(option.split()[-2], script, *SMALL, *option.split())
    for option, text in FOLDERS.items():
        refused(text, script, *SMALL, *option.split())
    if not torch.cuda.is_available():
        refused("--device cuda", script, "--device", "cuda")


def test_mps_is_not_for_a_penalty(refused, monkeypatch):
    for line in (["dcgan"], ["wgan", "--gp", "1"]):  # refused on any machine
        refused("penalty: use the cpu", *line, *SMALL, "--device", "mps")
    found = torch.device("mps")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: found)
    assert common.prepare_device("auto", penalty=1.0).type == "cpu"
    if not torch.backends.mps.is_available():
        with pytest.raises(common.UserError, match="--device mps"):
            common.prepare_device("auto", penalty=0.0)


def test_data_files(refused):
    zipped = gzip.compress(IMAGES)
    for body, text in (
        (zipped[:-100], "is damaged"),
        (zipped[:60] + b"?" * 200, "is damaged"),
        (b"no images, whatever the name says", "not an IDX file"),
        (bytes([0, 0, 8, 1, 0, 0, 0, 9]) + bytes(9), "not an IDX file"),  # labels
        (idx(pictures(5, 32)), "28x28"),
        (idx(pictures(50), count=60), "the 60 images"),
        (idx(pictures(0)), "0 images"),
        (idx(pictures(5), count=2**31), "2147483648 images"),
    ):
        Path("../data/train-images-idx3-ubyte.gz").write_bytes(body)
        refused(text, "gan_mlp", "--data-dir", "../data")


def test_resume_of_what_does_not_fit(type_in, refused):
    assert type_in(*small(["gan_mlp"], "--out", "run")).code == 0
    Path("few").mkdir()
    Path("few/train-images-idx3-ubyte").write_bytes(IMAGES)
    # what was typed, or decides what is learned, cannot be given anew
    typed = ["--batch-size 8", "--seed 3", "--arch deep", "--lr 0.003", "--beta1 0.9", "--ema 0.5"]
    typed += ["--z-dim 50", "--r1 2.0", "--beta2 0.9", "--optimizer sgd", "--dataset sample"]
    wrong = {option: f"{option} does not fit" for option in [*typed, "--out new"]}
    wrong |= {f"--{name}": f"--{name} True does not fit" for name in ("bf16", "report", "dry-run")}
    wrong["--epochs 1"] = "has 2 epochs already: more --epochs train it further"
    wrong["--epochs 3 --data-dir few"] = "more or fewer"
    for line, text in wrong.items():
        refused(text, "gan_mlp", "--resume", "run", *line.split())
    refused("has 2 epochs already", "gan_mlp", "--resume", "run/ckpt.pt")
    refused("its folder", "gan_mlp", "--resume", "run/g.pt")
    refused("gan_mlp.py", "gan_cnn", "--resume", "run")


def test_resume_of_damaged_checkpoints(type_in, refused):
    assert type_in(*small(["gan_mlp"], "--out", "run")).code == 0
    path, saved = Path("run/ckpt.pt"), load("run")
    flipped = bytearray(whole := path.read_bytes())
    flipped[len(whole) // 2] ^= 0x40

    def file(content):
        torch.save(content, buffer := io.BytesIO())
        return buffer.getvalue()

    for body, text in (
        (whole[: len(whole) // 2], "damaged"),
        (bytes(flipped), "damaged"),
        (b"", "damaged"),
        (file(saved | {"G": {"fc1.weight": torch.zeros(3)}}), "does not fit"),
        (file([1, 2]), "no checkpoint"),
        (file(saved | {"extra": Evil()}), "no checkpoint"),
        (pickle.dumps(Evil()), "no checkpoint"),
    ):
        path.write_bytes(body)
        refused(text, "gan_mlp", "--resume", "run", "--epochs", "3")
    assert not Path("code-was-run").exists()
