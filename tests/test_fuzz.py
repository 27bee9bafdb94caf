"""Mutated files: each ends in one line and exit code 2, or in a correct result; never in a
traceback, in a hang, in gigabytes, or in code that came with a file."""

import gzip
import pickle
import random
import struct
import time
import zipfile
from pathlib import Path

import pytest
import torch
from conftest import idx, pictures

pytestmark = pytest.mark.slow


class Evil:
    def __reduce__(self):
        return Path("code-was-run").touch, ()


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

WRONG = [
    None,
    True,
    -1,
    10**18,
    float("nan"),
    "text",
    "\n\nerror\n",
    [],
    {},
    {"a": 1},
    torch.zeros(0),
    torch.zeros(3, 3),
    torch.full((100, 100), float("nan")),
    torch.zeros(2, dtype=torch.complex64),
    torch.zeros(10_000, 1).expand(10_000, 10_000_000),  # 400 GB, stored in 40 kB
]


def places(content, path=()):
    """The path of every entry in nested dicts and lists."""
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in items:
        yield (*path, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*path, key))


def changed(content, path, value):
    """A copy with the entry at path replaced."""
    copy = list(content) if isinstance(content, list) else dict(content)
    if len(path) > 1:
        copy[path[0]] = changed(copy[path[0]], path[1:], value)
    else:
        copy[path[0]] = value
    return copy


def mutants(dice, body, content, count):
    """Mutated files: bytes changed, or a well-formed file with something wrong inside."""
    entries = list(places(content))
    for number in range(count):
        if number % 2:
            yield dice.choice(BYTES)(dice, body)
            continue
        path = entries[number // 2 % len(entries)]
        value = dice.choice([*WRONG, Evil()])
        old = content
        for key in path:
            old = old[key]
        if isinstance(old, torch.Tensor) and dice.random() < 0.5:
            value = dice.choice(
                [old * float("nan"), old[..., :-1] if old.dim() else old, old.double()]
            )
        torch.save(changed(content, path, value), "mutant")
        yield Path("mutant").read_bytes()


@pytest.fixture
def judge(type_in):
    """Run a command and see that it ends well, in time and without much memory."""
    refused = []

    def run(*line):
        Path("/proc/self/clear_refs").write_text("5")  # the peak of memory counts from here
        began = time.monotonic()
        result = type_in(*line)
        status = Path("/proc/self/status").read_text()
        peak = int(status.split("VmHWM:")[1].split()[0])
        assert time.monotonic() - began < 20
        assert peak < 2_000_000, f"{peak} kB"
        assert "Traceback" not in result.err
        assert result.code in (0, 2), result.err
        if result.code == 2:
            assert result.err.count("\n") == 1, result.err
        assert not Path("code-was-run").exists()
        refused.append(result.code == 2)
        return result

    yield run
    assert any(refused)
    print(f"{len(refused)} files, {sum(refused)} refused")


@pytest.fixture
def trained(type_in):
    line = ["--epochs", "1", "--batch-size", "50", "--data-dir", "../data", "--out", "run"]
    assert type_in("gan_mlp", *line).code == 0


def test_generators(judge, trained):
    body = Path("run/g.pt").read_bytes()
    content = torch.load("run/g.pt", weights_only=True)
    short = ["--positions", "0", "--values", "1", "--samples", "2"]
    dice = random.Random(1)
    for mutant in mutants(dice, body, content, 200):
        Path("run/g.pt").write_bytes(mutant)
        result = judge("perturb", "--ckpt", "run/g.pt", *short)
        if result.code == 0:
            assert "nan" not in result.out.split("seed")[1]
        for path in Path("run").glob("perturb*"):
            path.unlink()


def test_checkpoints(judge, trained):
    whole = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    content = torch.load("run/ckpt.pt", weights_only=True)
    dice = random.Random(2)
    for mutant in mutants(dice, whole[Path("run/ckpt.pt")], content, 250):
        for path, body in whole.items():
            path.write_bytes(body)
        Path("run/ckpt.pt").write_bytes(mutant)
        result = judge("gan_mlp", "--resume", "run", "--epochs", "2")
        if result.code == 0:
            saved = torch.load("run/ckpt.pt", weights_only=True)
            assert saved["epoch"] == 2
            assert all(weight.isfinite().all() for weight in saved["G"].values())


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
        judge("gan_mlp", "--data-dir", data, "--dry-run", "--batch-size", "4", "--out", f"{number}")


def test_bombs(judge, trained):
    """Small files that unpack to gigabytes."""
    zeros = gzip.compress(bytes(50_000_000), 9) * 80  # 4 GB
    data = Path("../data/train-images-idx3-ubyte.gz")
    for count in (60_000, 200_000, 2**32 - 1):
        data.write_bytes(gzip.compress(struct.pack(">4I", 0x803, count, 28, 28)) + zeros)
        judge("gan_mlp", "--data-dir", "../data", "--batch-size", "4", "--dry-run")
    with zipfile.ZipFile("run/g.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        for member in ("archive/data.pkl", "archive/data/0", "archive/version"):
            archive.writestr(member, bytes(1_000_000_000))
    assert judge("perturb", "--ckpt", "run/g.pt").code == 2


def test_pickles(judge, trained):
    for body in (
        pickle.dumps(Evil()),
        pickle.dumps({"script": Evil()}),
        b"cos\nsystem\n(S'x'\ntR.",
    ):
        for name, line in (("g.pt", ["perturb", "--ckpt"]), ("ckpt.pt", ["gan_mlp", "--resume"])):
            Path("run", name).write_bytes(body)
            assert judge(*line, f"run/{name}").code == 2
