"""Helpers of the slower tests: small data sets, and scripts run as a user types them."""

import csv
import gzip
import importlib
import itertools
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
FILES = ["g.pt", "ckpt.pt", "losses.csv", "losses.png", "progress.png", "real_vs_fake.png"]
# Options under which an epoch has six steps and takes a blink.
SMALL = ["--epochs", "2", "--batch-size", "16", "--device", "cpu", "--data-dir", "../data"]
SCRIPTS = ["gan_mlp", "gan_cnn", "dcgan", "wgan"]
ARCHS = {script: list(importlib.import_module(script).ARCHS) for script in SCRIPTS}
FAMILIES = [[script, "--arch", arch] for script in ARCHS for arch in ARCHS[script]]
FAMILIES.append(["wgan", "--arch", "transpose", "--gp", "10"])


def small(family, *more):
    n_critic = ["--n-critic", "2", "--batch-size", "8"] if family[0] == "wgan" else []
    return [*family, *SMALL, *n_critic, *more]


def idx(images, count=None):
    """The bytes of an IDX file of images [N, H, W]; its header may lie about the count."""
    return struct.pack(">4I", 0x803, count or len(images), *images.shape[1:]) + images.tobytes()


def pictures(count=100, side=28):
    return np.random.default_rng(0).integers(256, size=(count, side, side), dtype=np.uint8)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty folder to work in, with a data set beside it; the network is out of reach."""
    for name in ("data", "home"):
        (tmp_path / name).mkdir()
    (tmp_path / "data" / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(pictures())))
    monkeypatch.chdir(tmp_path / "home")
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nobody listens


@pytest.fixture
def drawn():
    """For type_in: draw the pictures of a run, which take most of a short one's time."""


@pytest.fixture
def type_in(home, monkeypatch, capfd, request):
    """Run `python SCRIPT.py ARGUMENTS` in home, inside this process: quick, and the same code."""
    import common

    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(common.Log, "draw", lambda *_: None)

    def run(script, *arguments):
        # New strings, as a shell's are: pickle writes one that is torch's own "cpu" differently.
        words = [str(word).encode().decode() for word in arguments]
        monkeypatch.setattr(sys, "argv", [str(HERE / f"{script}.py"), *words])
        code, _ = 0, capfd.readouterr()
        with warnings.catch_warnings():  # pytest keeps warnings to itself: a user sees them
            warnings.showwarning = lambda *warning: sys.stderr.write(f"{warning[0]}\n")
            try:
                common.run(importlib.import_module(script).main)
            except SystemExit as exit:
                code = exit.code
        out, err = capfd.readouterr()
        return SimpleNamespace(code=code, out=out, err=err)

    return run


@pytest.fixture
def refused(type_in):
    """A command ends in a message that says so, and has changed nothing on the disk."""

    def check(text, *line):
        before = tree("..")
        result = type_in(*line)
        assert result.code == 2 and text.lower() in result.err.lower(), (line, result.err)
        assert "Traceback" not in result.err and tree("..") == before

    return check


@pytest.fixture
def watch(monkeypatch):
    """Give a script a training step that learns nothing and returns these losses."""

    def replace(script, losses):
        module, steps = importlib.import_module(script), itertools.count(1)
        count = sum(map(len, module.CURVES.values()))
        step = lambda *_: torch.tensor(losses(next(steps))[:count])
        monkeypatch.setattr(module, "train_step", step)

    return replace


def start(script, *arguments, **options):
    """Run a script in a process of its own, as from a shell."""
    command = [sys.executable, HERE / f"{script}.py", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **(pipes | options))


def tree(folder):
    """All below folder, files with their bytes: it must not change if a command is refused."""
    return {path: path.is_file() and path.read_bytes() for path in Path(folder).rglob("*")}


def read(folder, name="losses.csv"):
    return list(csv.DictReader(Path(folder, name).read_text().splitlines()))


def columns(folder):
    return np.array([[float(value) for value in row.values()] for row in read(folder)])


def load(folder, name="ckpt.pt"):
    return torch.load(Path(folder, name), weights_only=True)


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: many processes or many cases; not run by default")
    if not config.option.markexpr:
        config.option.markexpr = "not slow"
