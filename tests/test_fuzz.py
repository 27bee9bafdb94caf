"""Damaged files: each ends in a message and exit code 2, or in a correct result; never in a
traceback, and never in a hang."""

import gzip
import random
import struct
import time
from pathlib import Path

import pytest
import torch
from conftest import idx, pictures

pytestmark = pytest.mark.slow


def flipped(dice, body):
    """One to a hundred bits turned round."""
    body = bytearray(body)
    for _ in range(dice.choice([1, 1, 3, 100])):
        body[dice.randrange(len(body))] ^= 1 << dice.randrange(8)
    return bytes(body)


def shortened(dice, body):
    return body[: dice.randrange(len(body))]


def spliced(dice, body):
    """A piece cut out, doubled, or overwritten with noise."""
    start, length = dice.randrange(len(body)), dice.randrange(1, 200)
    piece = dice.choice([b"", body[start : start + length] * 2, dice.randbytes(length)])
    return body[:start] + piece + body[start + length :]


BYTES = [flipped, flipped, shortened, spliced]


@pytest.fixture
def judge(type_in):
    """Run a command and see that it ends well, and in time."""
    refused = []

    def run(*line):
        began = time.monotonic()
        result = type_in(*line)
        assert time.monotonic() - began < 30
        assert "Traceback" not in result.err
        assert result.code in (0, 2), result.err
        refused.append(result.code == 2)
        return result

    yield run
    assert any(refused)


@pytest.fixture
def trained(type_in):
    line = ["--epochs", "1", "--batch-size", "50", "--data-dir", "../data", "--out", "run"]
    assert type_in("gan_mlp", *line).code == 0


def test_generators(judge, trained):
    body, dice = Path("run/g.pt").read_bytes(), random.Random(1)
    short = ["--positions", "0", "--values", "1", "--samples", "2"]
    for _ in range(100):
        Path("run/g.pt").write_bytes(dice.choice(BYTES)(dice, body))
        result = judge("perturb", "--ckpt", "run/g.pt", *short)
        if result.code == 0:
            assert "nan" not in result.out.split("seed")[1]
        for path in Path("run").glob("perturb*"):
            path.unlink()


def test_checkpoints(judge, trained):
    whole = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    dice = random.Random(2)
    for _ in range(100):
        for path, body in whole.items():
            path.write_bytes(body)
        Path("run/ckpt.pt").write_bytes(dice.choice(BYTES)(dice, whole[Path("run/ckpt.pt")]))
        if judge("gan_mlp", "--resume", "run", "--epochs", "2").code == 0:
            assert torch.load("run/ckpt.pt", weights_only=True)["epoch"] == 2


def test_images(judge):
    plain = idx(pictures(60))
    zipped = gzip.compress(plain)
    dice, data = random.Random(3), Path("../data")
    for number in range(150):
        body = dice.choice(BYTES)(dice, dice.choice([plain, zipped]))
        if number % 5 == 0:  # a header of chance, and as many bytes as come
            sizes = [dice.choice([0, 1, 28, 60, 2**31, 2**32 - 1]) for _ in range(3)]
            body = struct.pack(">4I", 0x803, *sizes) + dice.randbytes(dice.choice([0, 784, 5000]))
        for path in data.iterdir():
            path.unlink()
        (data / "train-images-idx3-ubyte").write_bytes(body)
        judge("gan_mlp", "--data-dir", data, "--dry-run", "--batch-size", "4")
