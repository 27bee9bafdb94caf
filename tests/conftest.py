"""Helpers of the slower tests: small data sets, and scripts run as a user types them."""

import gzip
import importlib
import signal
import struct
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest

HERE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE))

matplotlib.use("agg")  # no test opens a window
# Options under which an epoch has six steps and takes a blink.
SMALL = ["--epochs", "2", "--batch-size", "16", "--z-dim", "100", "--device", "cpu"]
ARCHS = {
    "gan_mlp": ["basic", "deep", "hidden"],
    "gan_cnn": ["conv7", "conv4", "separable", "tiny"],
    "dcgan": ["upsample", "transpose"],
    "wgan": ["transpose"],
}
# Every architecture once, and the Wasserstein GAN with its gradient penalty too.
FAMILIES = [[script, "--arch", arch] for script in ARCHS for arch in ARCHS[script]]
FAMILIES.append(["wgan", "--arch", "transpose", "--gp", "10"])


def idx(images, count=None):
    """The bytes of an IDX file of images [N, H, W]; its header may lie about the count."""
    return struct.pack(">4I", 0x803, count or len(images), *images.shape[1:]) + images.tobytes()


def pictures(count=100, side=28):
    """Grey squares of random sizes and places: something that a GAN can learn."""
    random, images = np.random.default_rng(0), np.zeros((count, side, side), np.uint8)
    for image in images:
        top, left = random.integers(2, 12, 2)
        height, width = random.integers(6, 16, 2)
        image[top : top + height, left : left + width] = random.integers(80, 255)
    return images


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty folder to work in, with a data set beside it; the network is out of reach."""
    data, folder = tmp_path / "data", tmp_path / "home"
    data.mkdir()
    folder.mkdir()
    (data / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(pictures())))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # where nobody listens
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    return folder


@pytest.fixture
def type_in(home, monkeypatch, capfd):
    """Run `python SCRIPT.py ARGUMENTS` in home, inside this process: quick, and the same code."""
    import common

    def run(script, *arguments):
        module = importlib.import_module(script)
        # New strings, as a shell's are: pickle writes one that is torch's own "cpu" differently.
        words = [str(word).encode().decode() for word in arguments]
        monkeypatch.setattr(sys, "argv", [str(HERE / f"{script}.py"), *words])
        before = signal.getsignal(signal.SIGTERM)
        code = 0
        capfd.readouterr()
        try:
            with warnings.catch_warnings():  # pytest keeps warnings to itself: a user sees them
                warnings.showwarning = lambda *warning: sys.stderr.write(f"{warning[0]}\n")
                common.run(module.main)
        except SystemExit as exit:
            code = exit.code
        finally:
            signal.signal(signal.SIGTERM, before)
        out, err = capfd.readouterr()
        return SimpleNamespace(code=code, out=out, err=err)

    return run


def start(script, *arguments, **options):
    """The same in a process of its own, as from a shell."""
    command = [sys.executable, HERE / f"{script}.py", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **(pipes | options))


def tree(folder):
    """All below folder, files with their bytes: it must not change if a command is refused."""
    return {path: path.is_file() and path.read_bytes() for path in Path(folder).rglob("*")}


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: many processes or many cases; not run by default")
    if not config.option.markexpr:
        config.option.markexpr = "not slow"
