"""Where the images come from, and what happens when they do not."""

import functools
import gzip
import hashlib
import http.server
import os
import shutil
import socket
import threading
import time
from pathlib import Path

import pytest
import torch
from conftest import idx, load, pictures, small, tiny
from torchvision.datasets import FashionMNIST

import common

GOOD = [1.0, 1.0, 0.5, 0.5]  # losses of a step
IMAGES = "train-images-idx3-ubyte"


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No data set on this machine: neither Debian's nor one that was downloaded."""
    monkeypatch.setattr(common, "DEBIAN", tmp_path / "no-debian")
    monkeypatch.setattr(common, "DATA", tmp_path / "no-data")


# ---- places


def put(folder, name=IMAGES):
    """A data set of 20 images in a folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(idx(pictures(20)))
    return folder / name


def test_a_data_dir_may_be_as_torchvision_keeps_it(home):
    path = put("theirs/FashionMNIST/raw")
    assert common.find_images("fashion-mnist", "theirs") == path
    assert common.find_images("mnist", "theirs") is None


def test_a_data_dir_may_have_the_file_itself(home):
    path = put("theirs")
    assert common.find_images("fashion-mnist", "theirs") == path
    assert common.find_images("kmnist", "theirs") == path  # as it was asked for
    packed = put("packed", name=f"{IMAGES}.gz")
    assert common.find_images("fashion-mnist", "packed") == packed


def test_a_data_dir_is_the_only_place(home, monkeypatch):
    put("debian")
    put("data")
    monkeypatch.setattr(common, "DEBIAN", Path("debian"))
    monkeypatch.setattr(common, "DATA", Path("data"))
    Path("empty").mkdir()
    assert common.find_images("fashion-mnist", "empty") is None


def test_without_a_data_dir_data_comes_first_then_debian_s_folder(home, monkeypatch):
    monkeypatch.setattr(common, "DEBIAN", Path("debian"))
    monkeypatch.setattr(common, "DATA", Path("data"))
    assert common.find_images("fashion-mnist") is None
    in_debian_s = put("debian")
    assert common.find_images("fashion-mnist") == in_debian_s
    in_data = put("data")
    assert common.find_images("fashion-mnist") == in_data
    downloaded = put("data/FashionMNIST/raw")
    assert common.find_images("fashion-mnist") == downloaded


def test_clothes_are_not_taken_for_digits(home, monkeypatch):
    """Their files have the same name."""
    monkeypatch.setattr(common, "DEBIAN", Path("debian"))
    monkeypatch.setattr(common, "DATA", Path("data"))
    put("debian")
    put("data")
    put("data/FashionMNIST/raw")
    assert common.find_images("mnist") is None
    digits = put("data/MNIST/raw")
    assert common.find_images("mnist") == digits
    assert common.find_images("kmnist") is None


def test_the_run_trains_on_the_images_of_its_data_dir(type_in, replace_step):
    replace_step("gan_mlp", lambda _: GOOD)
    path = put("theirs")
    out = type_in(*small(["gan_mlp"], "--data-dir", "theirs")).out
    assert f"20 images of fashion-mnist from {path.resolve()}\n" in out
    assert load("runs/gan_mlp")["args"]["data_dir"] == str(Path("theirs").resolve())


def test_a_resumed_run_finds_its_data_dir_from_another_folder(
    type_in, replace_step, monkeypatch
):
    replace_step("gan_mlp", lambda _: GOOD)
    type_in(*tiny(["gan_mlp"]))
    run = os.path.abspath("runs/gan_mlp")
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert type_in("gan_mlp", "--resume", run, "--epochs", "3").code == 0


# ---- files


def test_an_idx_file_is_read_as_it_is(home):
    images = pictures(20)
    Path("plain").write_bytes(idx(images))
    Path("packed").write_bytes(gzip.compress(idx(images)))
    for name in ("plain", "packed"):
        found = common.read_idx(Path(name))
        assert found.dtype == torch.uint8, name
        assert found.shape == (20, 1, 28, 28), name
        assert torch.equal(found[:, 0], torch.from_numpy(images)), name


PACKED = gzip.compress(idx(pictures(50)))
DAMAGED = {
    "cut off": (PACKED[:-100], "is damaged"),
    "overwritten": (PACKED[:60] + b"?" * 200, "is damaged"),
    "no packed data": (PACKED[:10] + b"?" * 200, "is damaged"),
    "other pixels": (PACKED[:-100] + b"?" + PACKED[-99:], "is damaged"),
    "a text": (b"no images, whatever the name", "not an IDX file"),
    "labels": (bytes([0, 0, 8, 1, 0, 0, 0, 9]) + bytes(9), "not an IDX file"),
    "32x32": (idx(pictures(5, 32)), "28x28"),
    "too few": (idx(pictures(50), count=60), "the 60 images"),
    "none": (idx(pictures(0)), "0 images"),
    "far too few": (idx(pictures(5), count=2**31), "2147483648 images"),
    "empty": (b"", "not an IDX file"),
}


@pytest.mark.parametrize("fault", DAMAGED)
def test_a_damaged_file_is_refused(fault, refused):
    body, text = DAMAGED[fault]
    Path("../data/train-images-idx3-ubyte.gz").write_bytes(body)
    refused(text, *small(["gan_mlp"]))


# ---- without any data set


def test_it_trains_on_the_sample_and_says_so(type_in, nowhere, replace_step):
    replace_step("gan_mlp", lambda _: GOOD)
    out = type_in("gan_mlp", "--epochs", "1", "--device", "cpu").out
    first_lines = "\n".join(out.splitlines()[:5])
    for text in (
        "ONLY A SAMPLE",
        "10,000",
        "no download",
        "--data-dir",
        "apt install",
    ):
        assert text in first_lines
    assert load("runs/gan_mlp", "g.pt")["args"]["dataset"] == "sample"
    assert load("runs/gan_mlp")["args"]["dataset"] == "sample"
    # The run goes on with it, although another data set might be found by now.
    resumed = type_in("gan_mlp", "--resume", "--epochs", "2").out
    assert "10,000 images of sample from " in resumed


@pytest.mark.parametrize("dataset", ["fashion-mnist", "mnist", "kmnist"])
def test_a_data_set_that_was_asked_for_is_never_replaced(dataset, refused, nowhere):
    refused("Connect to the internet", "gan_mlp", "--dataset", dataset)
    refused("--data-dir", "gan_mlp", "--dataset", dataset)
    refused("--dataset sample", "gan_mlp", "--dataset", dataset)


@pytest.mark.parametrize("folder", ["mine", "new", "new/deeper"])
def test_nor_one_in_a_folder_that_was_named(folder, refused, nowhere):
    Path("mine").mkdir()
    refused("no download", "gan_mlp", "--data-dir", folder)


def test_debian_s_package_is_a_remedy_for_fashion_mnist_only():
    assert "apt install" in common.download_advice("fashion-mnist")
    assert "apt install" not in common.download_advice("mnist")


# ---- the download, from a server on this machine


@pytest.fixture
def site(monkeypatch, tmp_path):
    """The folder of torchvision's download site, with 60 images."""
    site = tmp_path / "site"
    site.mkdir()
    for kind, count in (("train", 60), ("t10k", 10)):
        images = idx(pictures(count))
        labels = bytes([0, 0, 8, 1]) + count.to_bytes(4, "big") + bytes(count)
        for name, body in (("images-idx3", images), ("labels-idx1", labels)):
            path = site / f"{kind}-{name}-ubyte.gz"
            path.write_bytes(gzip.compress(body))
    sums = []
    for path in site.iterdir():
        md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False)
        sums.append((path.name, md5.hexdigest()))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=site)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(FashionMNIST, "mirrors", [address])
    monkeypatch.setattr(FashionMNIST, "resources", sums)
    yield site
    server.shutdown()
    server.server_close()


DRY = ["gan_mlp", "--dry-run", "--batch-size", "16", "--device", "cpu"]


def test_a_download_is_kept_and_nothing_else(type_in, nowhere, site):
    raw = common.DATA / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)  # as torchvision may leave it
    assert "32 images of fashion-mnist" in type_in(*DRY).out
    assert [path.name for path in common.DATA.iterdir()] == ["FashionMNIST"]
    assert len(common.read_idx(raw / IMAGES)) == 60
    shutil.rmtree(site)  # the next run needs no site
    again = type_in(*DRY).out
    assert "32 images of fashion-mnist" in again
    assert "downloading" not in again


def test_a_download_may_come_over_an_older_one(home, nowhere, site):
    for _ in range(2):
        path = common.download("fashion-mnist", common.DATA)
        assert len(common.read_idx(path)) == 60


def test_a_download_into_a_data_dir_of_one_s_own(type_in, nowhere, site):
    out = type_in(*DRY, "--data-dir", "mine").out
    assert "downloading fashion-mnist into " in out
    assert Path("mine/FashionMNIST/raw", IMAGES).exists()
    assert not common.DATA.exists()


def test_a_download_that_is_not_what_was_promised_leaves_nothing(
    refused, nowhere, site
):
    (site / "train-images-idx3-ubyte.gz").write_bytes(b"something else")
    refused("no download", "gan_mlp", "--dataset", "fashion-mnist")
    assert not common.DATA.exists()


def test_a_site_that_never_answers_is_given_up_in_seconds(
    refused, nowhere, monkeypatch
):
    before = socket.getdefaulttimeout()
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        refused("no download", "gan_mlp", "--dataset", "fashion-mnist")
    assert time.monotonic() - began < 40
    assert socket.getdefaulttimeout() == before
