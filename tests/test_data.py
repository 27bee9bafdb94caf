"""Where the images come from, and what happens when they do not."""

import functools
import gzip
import hashlib
import http.server
import shutil
import socket
import threading
import time
from pathlib import Path

import pytest
import torch
from conftest import idx, load, pictures
from torchvision.datasets import FashionMNIST

import common


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No data set on this machine: neither Debian's nor one that was downloaded."""
    monkeypatch.setattr(common, "DEBIAN", tmp_path / "no-debian")
    monkeypatch.setattr(common, "DATA", tmp_path / "no-data")


@pytest.fixture
def mirror(monkeypatch, tmp_path):
    """torchvision's Fashion-MNIST, its download site replaced by a server on this machine."""
    (site := tmp_path / "site").mkdir()
    for kind, count in (("train", 60), ("t10k", 10)):
        labels = bytes([0, 0, 8, 1]) + count.to_bytes(4, "big") + bytes(count)
        for name, body in ("images-idx3", idx(pictures(count))), ("labels-idx1", labels):
            (site / f"{kind}-{name}-ubyte.gz").write_bytes(gzip.compress(body))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=site)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(FashionMNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
    sums = [(path.name, hashlib.md5(path.read_bytes()).hexdigest()) for path in site.iterdir()]
    monkeypatch.setattr(FashionMNIST, "resources", sums)
    yield site
    server.shutdown()


def test_places(home, monkeypatch, tmp_path):
    """A --data-dir that is given is the only place. A file that only has the name of digits, as
    Debian's and those in data/ itself have, is not taken for digits."""
    data, images = tmp_path / "data", pictures(20)
    (raw := Path("theirs/FashionMNIST/raw")).mkdir(parents=True)  # as torchvision keeps it
    (raw / "train-images-idx3-ubyte").write_bytes(idx(images))
    found = common.read_idx(common.find_images("fashion-mnist", "theirs"))
    assert torch.equal(found[:, 0], torch.from_numpy(images)) and found.dtype == torch.uint8
    monkeypatch.setattr(common, "DEBIAN", data)
    assert common.find_images("fashion-mnist", data).parent == data
    assert common.find_images("fashion-mnist", tmp_path) is None
    monkeypatch.setattr(common, "DATA", tmp_path)
    assert common.find_images("fashion-mnist").parent == data
    shutil.copy(data / "train-images-idx3-ubyte.gz", tmp_path)
    assert common.find_images("fashion-mnist").parent == tmp_path
    assert common.find_images("mnist") is None


def test_without_any_data_set_it_trains_on_the_sample_and_says_so(type_in, nowhere, watch):
    watch("gan_mlp", lambda step: [1.0] * 4)
    first = "\n".join(type_in("gan_mlp", "--epochs", "1").out.splitlines()[:5])
    for text in ("ONLY A SAMPLE", "10,000", "no download", "--data-dir", "apt install"):
        assert text in first
    assert load("runs/gan_mlp", "g.pt")["args"]["dataset"] == "sample"
    assert "images of sample" in type_in("gan_mlp", "--resume", "--epochs", "2").out


def test_a_data_set_that_was_asked_for_is_never_replaced(type_in, nowhere):
    Path("mine").mkdir()
    for name in ("fashion-mnist", "mnist", "kmnist"):
        result = type_in("gan_mlp", "--dataset", name)
        assert result.code == 2 and "--data-dir" in result.err and "internet" in result.err
        assert ("apt install" in result.err) == (name == "fashion-mnist")
    for folder in ("mine", "new", "new/deeper"):
        assert type_in("gan_mlp", "--data-dir", folder).code == 2
    assert list(Path().rglob("*")) == [Path("mine")]


def test_data_files(refused):
    zipped, labels = gzip.compress(idx(pictures(50))), bytes([0, 0, 8, 1, 0, 0, 0, 9]) + bytes(9)
    bodies = {zipped[:-100]: "is damaged", zipped[:60] + b"?" * 200: "is damaged"}
    bodies |= {b"no images, whatever the name": "not an IDX file", labels: "not an IDX file"}
    bodies |= {idx(pictures(5, 32)): "28x28", idx(pictures(50), count=60): "the 60 images"}
    bodies |= {idx(pictures(0)): "0 images", idx(pictures(5), count=2**31): "2147483648 images"}
    for body, text in bodies.items():
        Path("../data/train-images-idx3-ubyte.gz").write_bytes(body)
        refused(text, "gan_mlp", "--data-dir", "../data")


def test_download(type_in, nowhere, mirror):
    line, images = ["gan_mlp", "--dry-run"], mirror / "train-images-idx3-ubyte.gz"
    whole = images.read_bytes()
    images.write_bytes(b"not what was promised")
    assert "no download" in type_in(*line, "--dataset", "fashion-mnist").err
    assert not common.DATA.exists()
    images.write_bytes(whole)
    (common.DATA / "FashionMNIST" / "raw").mkdir(parents=True)  # as torchvision may leave it
    assert "images of fashion-mnist" in type_in(*line, "--batch-size", "16").out
    assert [path.name for path in common.DATA.iterdir()] == ["FashionMNIST"]
    assert len(common.read_idx(common.download("fashion-mnist", common.DATA))) == 60  # once more
    shutil.rmtree(mirror)  # the second run needs no site
    assert "images of fashion-mnist" in type_in(*line, "--batch-size", "16").out


def test_a_site_that_never_answers_is_given_up_in_seconds(type_in, nowhere, monkeypatch):
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert "no download" in type_in("gan_mlp", "--dataset", "fashion-mnist").err
    assert time.monotonic() - began < 40
