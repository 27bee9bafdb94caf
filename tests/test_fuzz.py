"""Damaged files: each ends in a message and exit code 2, or in a correct result; never in a
traceback, and never in a hang."""

import gzip
import random
import struct
import time
from pathlib import Path

import pytest
from conftest import idx, load, pictures, small

pytestmark = pytest.mark.slow


def damaged(dice, body):
    """Some bits turned round, the end cut off, or a piece left out, doubled, or replaced."""
    start, length = dice.randrange(len(body)), dice.randrange(1, 200)
    piece = dice.choice([b"", body[start : start + length] * 2, dice.randbytes(length)])
    flipped = bytearray(body)
    for _ in range(dice.choice([1, 3, 100])):
        flipped[dice.randrange(len(body))] ^= 1 << dice.randrange(8)
    spliced = body[:start] + piece + body[start + length :]
    return dice.choice([bytes(flipped), bytes(flipped), body[:start], spliced])


@pytest.fixture
def judge(type_in):
    """Run a command and see that it ends well, and in time."""
    codes = set()

    def run(*line):
        began, result = time.monotonic(), type_in(*line)
        assert time.monotonic() - began < 30
        assert result.code in (0, 2) and "Traceback" not in result.err, (line, result.err)
        codes.add(result.code)
        return result

    yield run
    assert 2 in codes  # some were refused; of the checkpoints, most often all


def test_checkpoints_and_generators(judge, type_in):
    type_in(*small(["gan_mlp"], "--epochs", "1", "--out", "run"))
    whole, dice = {path: path.read_bytes() for path in Path("run").iterdir()}, random.Random(1)
    short = ["--positions", "0", "--values", "1", "--samples", "2"]
    for _ in range(100):
        for path, body in whole.items():
            path.write_bytes(damaged(dice, body) if path.suffix == ".pt" else body)
        if judge("perturb", "--ckpt", "run/g.pt", *short).code == 0:
            assert "nan" not in Path("run/perturb.csv").read_text()
        for path in Path("run").glob("perturb*"):
            path.unlink()
        if judge("gan_mlp", "--resume", "run", "--epochs", "2").code == 0:
            assert load("run")["epoch"] == 2


def test_images(judge):
    (path,), dice = Path("../data").iterdir(), random.Random(3)
    plain = idx(pictures(60))
    for number in range(150):
        body = damaged(dice, dice.choice([plain, gzip.compress(plain)]))
        if number % 5 == 0:  # a header of chance, and as many bytes as come
            sizes = [dice.choice([0, 1, 28, 60, 2**31, 2**32 - 1]) for _ in range(3)]
            body = struct.pack(">4I", 0x803, *sizes) + dice.randbytes(dice.choice([0, 784, 5000]))
        path.write_bytes(body)
        judge("gan_mlp", "--data-dir", "../data", "--dry-run", "--batch-size", "4")
