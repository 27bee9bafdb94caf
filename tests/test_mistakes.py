"""A mistake ends in a message that says what to do, exit code 2, and nothing changed on disk."""

import gzip
import pickle
from pathlib import Path

import pytest
import torch
from conftest import SMALL, idx, pictures, tree

SCRIPTS = ["gan_mlp", "gan_cnn", "dcgan", "wgan"]
IMAGES = idx(pictures(50))

OPTIONS = {
    "--epochs 0": "from 1 ",
    "--epochs many": "a whole number from",
    "--batch-size 0": "from 2 ",
    "--batch-size 101": "--batch-size",
    "--lr nan": "a number from",
    "--lr 0": "a number from",
    "--z-dim 0": "from 1 ",
    "--seed -1": "from 0 ",
    "--ema 1": "a number from",
    "--arch none": "invalid choice",
    "--dataset cifar": "invalid choice",
    "--device gpu": "--device gpu",
    "--device cuda:99": "--device cuda:99",
    "--sample-every 0": "from 1 ",
    "--data-dir photos": "name a folder that has it with --data-dir",
    "--out ../data": "not empty",
    "--out ../data/train-images-idx3-ubyte.gz": "exists",
    "--out /proc/nothing/here": "/proc",
    "--resume": "nothing to resume",
    "--resume nowhere": "no such file",
    "--resume ../data": "no such file",
    "--resume ../data/train-images-idx3-ubyte.gz": "no checkpoint",
    "--colour blue": "unrecognized",
}


def check(result, text, before):
    assert result.code == 2, result.err
    assert text.lower() in result.err.lower() and "Traceback" not in result.err
    assert tree("..") == before and not Path("runs").exists()


@pytest.mark.parametrize("script", SCRIPTS)
def test_options(script, type_in):
    before = tree("..")
    for line, text in OPTIONS.items():
        check(type_in(script, *SMALL, "--data-dir", "../data", *line.split()), text, before)
    if not torch.cuda.is_available():
        check(type_in(script, "--device", "cuda"), "--device cuda", before)


@pytest.mark.parametrize(
    "option", ["--clip 0", "--clip nan", "--n-critic 0", "--gp -1", "--gp nan", "--gp 1 --clip 1"]
)
def test_options_of_wgan(option, type_in):
    check(type_in("wgan", *option.split()), option.split()[0], tree(".."))


FILES = {
    "truncated gzip": (gzip.compress(IMAGES)[:-100], "is damaged"),
    "damaged gzip": (gzip.compress(IMAGES)[:60] + b"?" * 200, "is damaged"),
    "empty": (b"", "not an IDX file"),
    "text": (b"these are no images, whatever the name says", "not an IDX file"),
    "labels": (bytes([0, 0, 8, 1, 0, 0, 0, 9]) + bytes(9), "not an IDX file"),
    "larger images": (idx(pictures(5, 32)), "28x28"),
    "too few": (idx(pictures(50), count=60), "the 60 images"),
    "too many": (idx(pictures(50), count=40), "the 40 images"),
    "none": (idx(pictures(0)), "0 images"),
    "endless": (idx(pictures(5), count=2**31), "2147483648 images"),
}


@pytest.mark.parametrize("kind", FILES)
def test_data_files(kind, type_in, tmp_path):
    body, text = FILES[kind]
    for path in (tmp_path / "data").iterdir():
        path.write_bytes(body)
    before = tree("..")
    check(type_in("gan_mlp", "--data-dir", "../data"), text, before)


class Evil:
    def __reduce__(self):
        return Path("code-was-run").touch, ()


@pytest.fixture
def finished(type_in):
    """A finished run of gan_mlp in `run`."""
    assert type_in("gan_mlp", *SMALL, "--data-dir", "../data", "--out", "run").code == 0
    return torch.load("run/ckpt.pt", weights_only=True)


CHANGES = {
    "--batch-size 8": "--batch-size 8 does not fit",
    "--seed 3": "--seed 3 does not fit",
    "--arch deep": "--arch deep does not fit",
    "--lr 3e-3": "--lr 0.003 does not fit",
    "--beta1 0.9": "--beta1 0.9 does not fit",
    "--z-dim 50": "--z-dim 50 does not fit",
    "--dataset sample": "--dataset sample does not fit",
    "--dry-run": "--dry-run True does not fit",
    "--out elsewhere": "--out elsewhere does not fit",
    "--epochs 1": "more --epochs train it further",
}


@pytest.mark.parametrize("line", CHANGES)
def test_resume_with_another_mathematics(line, type_in, finished):
    before = tree("..")
    check(type_in("gan_mlp", "--resume", "run", *line.split()), CHANGES[line], before)


def test_resume_with_fewer_images(type_in, finished, tmp_path):
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "train-images-idx3-ubyte").write_bytes(IMAGES)
    resume = "--resume", "run", "--epochs", "3"
    check(type_in("gan_mlp", *resume, "--data-dir", "../few"), "more or fewer", tree(".."))


def test_resume_of_another_script(type_in, finished):
    check(type_in("gan_cnn", "--resume", "run"), "gan_mlp.py", tree(".."))


def test_resume_of_a_generator(type_in, finished):
    check(type_in("gan_mlp", "--resume", "run/g.pt"), "its folder", tree(".."))


def test_resume_of_damaged_checkpoints(type_in, finished):
    path = Path("run/ckpt.pt")
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0x40
    wrong = dict(finished, G={"fc1.weight": torch.zeros(3)})
    torch.save(wrong, "wrong.pt")
    torch.save({"script": "gan_mlp"}, "little.pt")
    torch.save([1, 2], "list.pt")
    torch.save(dict(finished, extra=Evil()), "evil.pt")
    bodies = {
        "truncated": (whole[: len(whole) // 2], "damaged"),
        "flipped bit": (bytes(flipped), "damaged"),
        "empty": (b"", "damaged"),
        "other shapes": (Path("wrong.pt").read_bytes(), "does not fit"),
        "too little": (Path("little.pt").read_bytes(), "no checkpoint"),
        "a list": (Path("list.pt").read_bytes(), "no checkpoint"),
        "code": (Path("evil.pt").read_bytes(), "no checkpoint"),
        "bare pickle": (pickle.dumps(Evil()), "no checkpoint"),
    }
    for body, text in bodies.values():
        path.write_bytes(body)
        before = tree("..")
        check(type_in("gan_mlp", "--resume", "run", "--epochs", "3"), text, before)
    assert not Path("code-was-run").exists()


@pytest.mark.parametrize("script", SCRIPTS)
def test_nan_never_replaces_a_good_checkpoint(script, type_in):
    line = [script, "--data-dir", "../data", *SMALL, "--batch-size", "8", "--out", "run"]
    if script == "wgan":  # clipping keeps its weights finite whatever the learning rate
        line += ["--n-critic", "2", "--gp", "1"]
    result = type_in(*line, "--lr", "1e30")
    assert result.code == 2 and "Traceback" not in result.err
    assert "infinite numbers" in result.err and "smaller --lr" in result.err
    assert not Path("run/ckpt.pt").exists() and not Path("run/g.pt").exists()
