"""Where the images come from, and what happens when they do not."""

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
from conftest import idx, pictures

import common


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No data set on this machine: neither Debian's nor one that was downloaded."""
    monkeypatch.setattr(common, "DEBIAN", tmp_path / "no-debian")
    monkeypatch.setattr(common, "DATA", tmp_path / "no-data")


@pytest.fixture
def mirror(monkeypatch):
    """torchvision's Fashion-MNIST, its download site replaced by a server on this machine."""
    from torchvision.datasets import FashionMNIST

    files = {}
    for kind, count in (("train", 60), ("t10k", 10)):
        labels = bytes([0, 0, 8, 1]) + count.to_bytes(4, "big") + bytes(count)
        files[f"{kind}-images-idx3-ubyte.gz"] = gzip.compress(idx(pictures(count)))
        files[f"{kind}-labels-idx1-ubyte.gz"] = gzip.compress(labels)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = files.get(self.path.strip("/"), b"")
            self.send_response(200 if body else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(FashionMNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
    sums = [(name, hashlib.md5(body).hexdigest()) for name, body in files.items()]
    monkeypatch.setattr(FashionMNIST, "resources", sums)
    yield files
    server.shutdown()


QUICK = ["--epochs", "1", "--batch-size", "16"]


@pytest.mark.parametrize("place", ["", "FashionMNIST/raw"])
@pytest.mark.parametrize("zipped", [True, False])
def test_data_dir_as_torchvision_keeps_it(home, place, zipped):
    folder = home / "mine"
    (folder / place).mkdir(parents=True)
    images = pictures(20)
    body = gzip.compress(idx(images)) if zipped else idx(images)
    (folder / place / f"train-images-idx3-ubyte{'.gz' * zipped}").write_bytes(body)
    found = common.read_idx(common.find_images("fashion-mnist", folder))
    assert torch.equal(found[:, 0], torch.from_numpy(images)) and found.dtype == torch.uint8


def test_a_data_dir_that_is_given_is_the_only_place(home, monkeypatch, tmp_path):
    monkeypatch.setattr(common, "DEBIAN", tmp_path / "data")
    assert common.find_images("fashion-mnist", tmp_path / "data").parent == tmp_path / "data"
    assert common.find_images("fashion-mnist", tmp_path) is None
    monkeypatch.setattr(common, "DATA", tmp_path)
    assert common.find_images("fashion-mnist").parent == tmp_path / "data"
    assert common.find_images("mnist") is None  # Debian's folder holds no digits
    shutil.copy(tmp_path / "data" / "train-images-idx3-ubyte.gz", tmp_path)
    assert common.find_images("fashion-mnist").parent == tmp_path
    assert common.find_images("mnist") is None  # nor is a file that only has the name of digits


def test_the_bundled_sample_is_real_and_small():
    images = common.read_idx(common.SAMPLE)
    assert images.shape == (10_000, 1, 28, 28) and 60 < images.float().mean() < 85
    assert common.SAMPLE.stat().st_size < 5e6
    assert "Zalando SE" in (common.SAMPLE.parent / "LICENSE-fashion-mnist.txt").read_text()


def test_without_any_data_set_it_trains_on_the_sample_and_says_so(type_in, nowhere):
    result = type_in("gan_mlp", "--epochs", "1")
    assert result.code == 0
    first = "\n".join(result.out.splitlines()[:5])
    for text in ("ONLY A SAMPLE", "10,000", "no download", "--data-dir", "apt install"):
        assert text in first
    for name in ("g.pt", "ckpt.pt"):
        saved = torch.load(Path("runs/gan_mlp", name), weights_only=True)
        assert saved["args"]["dataset"] == "sample"
    again = type_in("gan_mlp", "--resume", "--epochs", "2")
    assert again.code == 0 and "images of sample" in again.out


def test_a_data_set_that_was_asked_for_is_never_replaced(type_in, nowhere):
    for name in ("fashion-mnist", "mnist", "kmnist"):
        result = type_in("gan_mlp", "--dataset", name)
        assert result.code == 2 and "--data-dir" in result.err and "internet" in result.err
        assert ("apt install" in result.err) == (name == "fashion-mnist")
    assert not list(Path().iterdir())


@pytest.mark.parametrize("folder", ["mine", "new", "new/deeper"])
def test_a_failed_download_changes_nothing(folder, type_in, nowhere):
    Path("mine").mkdir()
    assert type_in("gan_mlp", "--data-dir", folder).code == 2
    assert list(Path().rglob("*")) == [Path("mine")]


def test_download(type_in, nowhere, mirror):
    result = type_in("gan_mlp", *QUICK)
    assert result.code == 0
    assert "60 images of fashion-mnist" in result.out
    assert [path.name for path in common.DATA.iterdir()] == ["FashionMNIST"]
    mirror.clear()  # the second run needs no site
    assert "60 images" in type_in("gan_mlp", *QUICK).out


def test_download_into_folders_that_torchvision_left_empty(nowhere, mirror):
    (common.DATA / "FashionMNIST" / "raw").mkdir(parents=True)
    assert len(common.read_idx(common.download("fashion-mnist", common.DATA))) == 60


def test_download_that_arrives_damaged_leaves_nothing(type_in, nowhere, mirror):
    mirror["train-images-idx3-ubyte.gz"] = b"not what was promised"
    result = type_in("gan_mlp", *QUICK, "--dataset", "fashion-mnist")
    assert result.code == 2 and "no download" in result.err
    assert not common.DATA.exists()


def test_two_processes_that_download_at_once(nowhere, mirror, monkeypatch):
    fashion = common.datasets.FashionMNIST

    def slower(folder, download):
        fashion(folder, download=download)
        shutil.copytree(Path(folder, "FashionMNIST"), common.DATA / "FashionMNIST")

    monkeypatch.setattr(common.datasets, "FashionMNIST", slower)
    assert len(common.read_idx(common.download("fashion-mnist", common.DATA))) == 60
    assert [path.name for path in common.DATA.iterdir()] == ["FashionMNIST"]


def test_a_site_that_accepts_and_never_answers_is_given_up_in_seconds(
    type_in, nowhere, monkeypatch
):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        result = type_in("gan_mlp", "--dataset", "fashion-mnist")
    assert result.code == 2 and "no download" in result.err
    assert time.monotonic() - began < 40


def test_batches_are_every_image_once_scaled_to_g_s_range():
    images = torch.arange(50, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 28, 28) * 5
    got = list(common.batches(images.contiguous(), 16))
    assert [len(batch) for batch in got] == [16, 16, 16]  # the last two images are dropped
    values = torch.cat(got)[:, 0, 0, 0]
    assert len(values.unique()) == 48 and values.min() >= -1 and values.max() <= 1
    white = next(common.batches(torch.full((1, 1, 28, 28), 255, dtype=torch.uint8), 1))
    black = next(common.batches(torch.zeros(1, 1, 28, 28, dtype=torch.uint8), 1))
    assert (white == 1).all() and (black == -1).all()


@pytest.mark.parametrize("script", ["gan_mlp", "gan_cnn", "dcgan", "wgan"])
def test_every_epoch_has_an_order_of_its_own(script, type_in, monkeypatch):
    orders, batches = [], common.batches

    def noted(images, size):
        found = list(batches(images, size))
        orders.append(tuple(torch.cat(found).sum((1, 2, 3)).tolist()))
        return found

    monkeypatch.setattr(common, "batches", noted)
    line = [script, "--epochs", "3", "--batch-size", "50", "--data-dir", "../data"]
    line += ["--n-critic", "1"] if script == "wgan" else []
    for seed in ("0", "1"):
        assert type_in(*line, "--seed", seed).code == 0
    assert len(orders) == len(set(orders)) == 6
