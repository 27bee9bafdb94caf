"""What several tests need: small data sets, and scripts run as a user types them."""

import csv
import gzip
import importlib
import itertools
import runpy
import struct
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
import torch

HERE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE))
matplotlib.use("agg")  # no test opens a window

import common

SCRIPTS = ["gan_mlp", "gan_cnn", "dcgan", "wgan"]
ARCHS = {name: list(importlib.import_module(name).ARCHS) for name in SCRIPTS}
# Every network: a script and the options that choose it.
FAMILIES = [[name, "--arch", arch] for name in SCRIPTS for arch in ARCHS[name]]
FAMILIES.append(["wgan", "--arch", "transpose", "--gp", "10"])

FILES = [
    "g.pt",
    "ckpt.pt",
    "losses.csv",
    "losses.png",
    "progress.png",
    "real_vs_fake.png",
]
# With these options an epoch has six steps and takes a blink.
SMALL = ["--epochs", "2", "--batch-size", "16"]
SMALL += ["--device", "cpu", "--data-dir", "../data"]


def small(family, *more):
    """A short training of a network, with more options."""
    line = [*family, *SMALL]
    if family[0] == "wgan":
        line += ["--n-critic", "2", "--batch-size", "8"]
    return [*line, *more]


def tiny(family, *more):
    """The shortest training: two epochs of two steps of eight images."""
    line = [*family, *SMALL, "--data-dir", "../few", "--batch-size", "8"]
    if family[0] == "wgan":
        line += ["--n-critic", "2", "--batch-size", "4"]
    return [*line, *more]


# ---- small data sets


def pictures(count=100, side=28):
    random = np.random.default_rng(0)
    return random.integers(256, size=(count, side, side), dtype=np.uint8)


def idx(images, count=None):
    """An IDX file of images [N, H, W], as bytes. Its header may lie about the count."""
    if count is None:
        count = len(images)
    header = struct.pack(">4I", 0x803, count, *images.shape[1:])
    return header + images.tobytes()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty folder to work in, data beside it, and no way to the internet."""
    for name in ("home", "data", "few"):
        (tmp_path / name).mkdir()
    images = gzip.compress(idx(pictures()))
    (tmp_path / "data" / "train-images-idx3-ubyte.gz").write_bytes(images)
    few_images = idx(pictures(16))
    (tmp_path / "few" / "train-images-idx3-ubyte").write_bytes(few_images)
    monkeypatch.chdir(tmp_path / "home")
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nobody listens


# ---- commands


@pytest.fixture
def drawn():
    """For type_in: draw a run's pictures, which take most of a short one's time."""


@pytest.fixture
def type_in(home, monkeypatch, capfd, request):
    """Run `python SCRIPT.py ARGUMENTS` in home: quickly, in this process.

    SCRIPT is one of ours, or a copy that lies in home.
    """
    monkeypatch.setattr(common, "say_if_busy", lambda: None)
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(common, "save_samples", lambda *_: None)
        monkeypatch.setattr(common, "save_losses", lambda *_: None)

    def type_in(script, *arguments):
        path = Path(f"{script}.py")
        is_copy = path.exists()
        if not is_copy:
            path = HERE / path
        # As a shell does, make new strings: pickle notices if one is torch's own "cpu".
        words = [str(word).encode().decode() for word in arguments]
        monkeypatch.setattr(sys, "argv", [str(path), *words])
        code = 0
        capfd.readouterr()
        with warnings.catch_warnings():
            # pytest keeps warnings to itself. A user sees them.
            warnings.showwarning = lambda *warning: print(warning[0], file=sys.stderr)
            try:
                if is_copy:
                    runpy.run_path(str(path), run_name="__main__")
                else:
                    common.run(importlib.import_module(script).main)
            except SystemExit as stop:
                code = stop.code
        out, err = capfd.readouterr()
        return SimpleNamespace(code=code, out=out, err=err)

    return type_in


@pytest.fixture
def refused(type_in):
    """A command ends in a message that says so, and has changed nothing on the disk."""

    def refused(text, *line):
        before = tree("..")
        result = type_in(*line)
        assert result.code == 2, (line, result)
        assert text.lower() in result.err.lower(), line
        assert tree("..") == before, line

    return refused


@pytest.fixture
def replace_step(monkeypatch):
    """Have a script train by a step that learns nothing and returns these losses.

    losses is a function of the step's number, which starts at 1.
    """

    def replace_step(script, losses):
        module = importlib.import_module(script)
        numbers = itertools.count(1)

        def train_step(*_, **__):
            values = losses(next(numbers))
            return torch.tensor(values[: len(module.LOSSES)])

        monkeypatch.setattr(module, "train_step", train_step)

    return replace_step


def start(script, *arguments, **options):
    """Run a script of ours in a process of its own, as from a shell."""
    command = [sys.executable, HERE / f"{script}.py", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **(pipes | options))


# ---- what a run left


def tree(folder):
    """All that is in a folder, files with their bytes."""
    paths = Path(folder).rglob("*")
    return {path: path.is_file() and path.read_bytes() for path in paths}


def read(folder, name="losses.csv"):
    """The rows of a table, each a dict of texts."""
    lines = Path(folder, name).read_text().splitlines()
    return list(csv.DictReader(lines))


def columns(folder):
    """losses.csv as an array of numbers."""
    rows = [list(map(float, row.values())) for row in read(folder)]
    return np.array(rows)


def load(folder, name="ckpt.pt"):
    return torch.load(Path(folder, name), weights_only=True)


def same_bytes(folder, other):
    """That two runs have learned the same, and written the same down."""
    for name in ("g.pt", "losses.csv"):
        one = Path(folder, name).read_bytes()
        assert one == Path(other, name).read_bytes(), f"{name} of {folder} and {other}"


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes long; not run by default")
    if not config.option.markexpr:
        config.option.markexpr = "not slow"
