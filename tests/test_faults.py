"""What goes wrong: mistakes of the user's, then kills, signals, full disks, two runs at once.

A mistake ends in a message that says what to do, exit code 2, and nothing changed on disk.
"""

import contextlib
import os
import signal
import subprocess
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import ARCHS, HERE, SMALL, idx, load, pictures, read, small, start, tree

import common

# What the message names is the last option that is typed.
OF_ALL = """--epochs 0, --epochs many, --epochs 1.5, --epochs \u00b2, --batch-size 0, --batch-size 101,
    --lr nan, --lr inf, --lr 1e400, --lr 0, --lr -0.0, --z-dim 0, --z-dim 1e3, --seed -1,
    --seed 429496, --ema 1, --arch none, --dataset cifar, --device gpu, --device cuda:99,
    --sample-every 0, --data-dir photos, --colour blue"""
# fmt: off
OF_ONE = {
    "gan_mlp": "--r1 -1, --beta1 1, --beta2 1, --optimizer none", "dcgan": "--r1 -1, --beta1 1",
    "gan_cnn": "--r1 nan, --beta1 1, --optimizer none",
    "wgan": "--clip 0, --n-critic 0, --gp -1, --gp nan, --gp 1 --clip 1",
}
FOLDERS = {
    "--out ../data": "not empty", "--out ../data/train-images-idx3-ubyte.gz": "exists",
    "--out /proc/nothing/here": "/proc", "--resume": "nothing to resume",
    "--resume nowhere": "no such file", "--resume ../data": "no such file",
    "--resume ../data/train-images-idx3-ubyte.gz": "no checkpoint",
}
# fmt: on


@pytest.mark.parametrize("script", ARCHS)
def test_options(script, refused):
    for option in f"{OF_ALL}, {OF_ONE[script]}".split(","):
        refused(option.split()[-2], script, *SMALL, *option.split())
    for option, text in FOLDERS.items():
        refused(text, script, *SMALL, *option.split())


def test_mps_is_not_for_a_penalty(refused, monkeypatch):
    for line in (["dcgan"], ["wgan", "--gp", "1"]):  # refused on any machine
        refused("penalty: use the cpu", *line, *SMALL, "--device", "mps")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device("mps"))
    assert common.prepare_device("auto", penalty=1.0).type == "cpu"


def test_resume_of_what_does_not_fit(type_in, refused):
    assert type_in(*small(["gan_mlp"], "--out", "run")).code == 0
    Path("few").mkdir()
    Path("few/train-images-idx3-ubyte").write_bytes(idx(pictures(50)))
    # what was typed, or decides what is learned, cannot be given anew
    typed = "--batch-size 8,--seed 3,--arch deep,--lr 0.003,--beta1 0.9,--ema 0.5,--z-dim 50,"
    typed += "--r1 2.0,--beta2 0.9,--optimizer sgd,--dataset sample,--out new"
    wrong = {f"run {option}": f"{option} does not fit" for option in typed.split(",")}
    wrong |= {f"run --{it}": f"--{it} True does not fit" for it in ("bf16", "report", "dry-run")}
    wrong["run --epochs 1"] = "has 2 epochs already: more --epochs train it further"
    wrong |= {"run/ckpt.pt": "has 2 epochs already", "run/g.pt": "its folder"}
    wrong["run --epochs 3 --data-dir few"] = "more or fewer"
    for line, text in wrong.items():
        refused(text, "gan_mlp", "--resume", *line.split())
    refused("gan_mlp.py", "gan_cnn", "--resume", "run")


def test_resume_of_damaged_checkpoints(type_in, refused):
    assert type_in(*small(["gan_mlp"], "--out", "run")).code == 0
    path, saved = Path("run/ckpt.pt"), load("run")
    flipped = bytearray(whole := path.read_bytes())
    flipped[len(whole) // 2] ^= 0x40
    for body in (whole[: len(whole) // 2], bytes(flipped), b""):
        path.write_bytes(body)
        refused("damaged", "gan_mlp", "--resume", "run", "--epochs", "3")
    other, code = saved | {"G": {"fc1.weight": torch.zeros(3)}}, saved | {"extra": print}
    for content, text in (other, "does not fit"), ([1], "no checkpoint"), (code, "no checkpoint"):
        torch.save(content, path)
        refused(text, "gan_mlp", "--resume", "run", "--epochs", "3")


# ---- faults from outside
def bytes_of(folder):
    return [Path(folder, name).read_bytes() for name in ("g.pt", "losses.csv")]


def begin(*line):
    """Start a script and wait until it has saved an epoch."""
    # A shell's background job ignores Ctrl-C, and so would what it starts.
    heed_ctrl_c = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = start(*line, preexec_fn=heed_ctrl_c)
    assert any(text.startswith("epoch 2/") for text in process.stdout), process.stderr.read()
    return process


def test_ctrl_c_and_a_run_that_still_trains_is_not_resumed(home, type_in):
    line = ["--epochs", "9999", "--batch-size", "500", "--dataset", "sample"]
    first = begin("gan_mlp", *line, "--out", "my run")
    resume = ["gan_mlp", "--resume", "my run"]
    first.send_signal(signal.SIGSTOP)  # so that only the second could change anything
    table = Path("my run/losses.csv")
    whole = table.read_bytes()
    table.write_bytes(whole + b"3,61,")  # which a resumed run would cut off
    before = tree("my run")
    second = type_in(*resume, "--epochs", str(load("my run")["epoch"] + 1))
    assert second.code == 2 and "my run is still being trained" in second.err
    assert tree("my run") == before
    table.write_bytes(whole)
    first.send_signal(signal.SIGCONT)
    for _ in range(5):  # pickle can swallow a Ctrl-C (copyreg's bare except): type it again
        first.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            first.wait(timeout=20)
            break
    out, err = first.communicate(timeout=60)
    assert (first.returncode, err) == (130, "") and not list(Path("my run").rglob("*.tmp"))
    assert f'stopped. To go on: python "{HERE / "gan_mlp.py"}" --resume "my run"' in out
    done = load("my run")["epoch"]
    assert type_in(*resume, "--epochs", str(done + 1)).code == 0
    assert len(read("my run")) == 20 * (done + 1)


def test_sigterm_and_what_it_was_before(type_in, watch):
    before = signal.signal(signal.SIGTERM, ours := lambda *_: None)
    for out, last, told in ("a", 3, "No epoch was finished: nothing"), ("b", 9, '--resume "b"'):
        watch("gan_mlp", lambda n: [1.0] * 4 if n < last else signal.raise_signal(15))  # noqa: B023
        result = type_in(*small(["gan_mlp"], "--out", out))
        assert (result.code, result.err) == (143, "") and told in result.out
        again = type_in(*small(["gan_mlp"], "--out", out))
        assert again.code == 2 and ("--resume" in again.err) == (out == "b")
        assert signal.getsignal(signal.SIGTERM) is ours  # after a stop and after a mistake
    signal.signal(signal.SIGTERM, before)


def test_losses_that_another_process_writes_are_kept(type_in, watch):
    """As on a disk that knows no locks."""
    table = Path("run/losses.csv")
    write = lambda: table.write_text(table.read_text() + "1,7,theirs\n")
    watch("gan_mlp", lambda step: [write() if step == 8 else 1.0, 1.0, 0.5, 0.5])
    result = type_in(*small(["gan_mlp"], "--out", "run"))
    assert result.code == 2 and "another process has written run/losses.csv" in result.err
    assert "epoch 2 is not saved" in result.err and load("run")["epoch"] == 1
    assert table.read_text().endswith("\n1,7,theirs\n")


STOPS = [(KeyboardInterrupt(), 130, "To go on"), (OSError(28, "No space left"), 2, "No space left")]


@pytest.mark.parametrize("fault, code, told", STOPS)
def test_stopped_between_any_two_writes(fault, code, told, type_in, monkeypatch):
    """Rows are on the disk before the checkpoint that counts them. Resumed: as never stopped."""
    done, last = [], None

    def note(write, source, *to):
        done.append(to[0].name if to else Path(os.readlink(f"/proc/self/fd/{source}")).name)
        if len(done) == last:
            raise fault
        write(source, *to)

    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, partial(note, getattr(os, name)))
    assert type_in(*small(["gan_mlp"])).code == 0
    assert done == ["losses.csv", ".g.pt.tmp", "g.pt", ".ckpt.pt.tmp", "ckpt.pt"] * 2
    for run, stop in enumerate(range(6, 11), start=2):  # in epoch 2
        done, last = [], stop
        result, last = type_in(*small(["gan_mlp"])), None
        assert result.code == code and told in result.out + result.err
        assert not list(Path().rglob("*.tmp"))
        assert type_in("gan_mlp", "--resume", f"runs/gan_mlp-{run}").code == 0
        assert bytes_of(f"runs/gan_mlp-{run}") == bytes_of("runs/gan_mlp")


def test_rows_after_the_checkpoint_are_forgotten_and_lost_ones_are_told(type_in):
    type_in(*small(["gan_mlp"]))
    type_in(*small(["gan_mlp"], "--epochs", "1"))
    table = Path("runs/gan_mlp-2/losses.csv")
    with table.open("a") as file:
        file.write("2,7,0.5,0.5,0.5,0.5\n" * 9 + "2,8,0.")  # longer than what replaces it
    type_in("gan_mlp", "--resume", table.parent, "--epochs", "2")
    assert bytes_of(table.parent) == bytes_of("runs/gan_mlp")
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:9]))
    result = type_in("gan_mlp", "--resume", table.parent, "--epochs", "3")
    assert result.code == 0 and "losses.csv has lost lines: 8 of 12" in result.out


def test_no_memory(type_in, watch):
    def fail(error):
        raise error

    out_of = [lambda _: torch.empty(2**50), lambda _: fail(MemoryError())]
    out_of.append(lambda _: fail(torch.OutOfMemoryError("CUDA out of memory")))
    for losses in out_of:
        watch("gan_mlp", losses)
        result = type_in(*small(["gan_mlp"]))
        assert result.code == 2 and "smaller --batch-size" in result.err
    # what is not the user's keeps its own words and its traceback
    watch("gan_mlp", lambda _: fail(RuntimeError("an illegal memory access")))
    with pytest.raises(RuntimeError, match="^an illegal memory access$"):
        type_in(*small(["gan_mlp"]))
