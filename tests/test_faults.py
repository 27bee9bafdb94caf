"""Faults from outside: kills, signals, full disks, closed pipes, two runs at once.

The slow ones run the scripts in processes of their own, again and again: `pytest -m slow`.
"""

import os
import random
import resource
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
import torch
from conftest import HERE, SMALL, start

SCRIPTS = ["gan_mlp", "gan_cnn", "dcgan", "wgan"]
# Runs a script whose every os.replace is slow, so that a kill can hit the writing of a file.
SLOW_WRITES = """
import os, runpy, sys, time
replace = os.replace
def slow(source, target):
    time.sleep(0.1)
    replace(source, target)
os.replace = slow
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def command(script, *more):
    few = ["--n-critic", "2", "--batch-size", "8"] if script == "wgan" else []
    return [script, *SMALL, *few, "--epochs", "40", "--data-dir", "../data", *more]


def begin(*line, **options):
    """Start a script and wait until it trains."""
    process = start(*line, **options)
    for text in process.stdout:
        if text.startswith("training on"):
            return process
    raise AssertionError(process.stderr.read())


def finish(*line):
    out, err = (process := start(*line)).communicate(timeout=300)
    assert process.returncode == 0, err
    return out


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_killed_again_and_again(script, home):
    """Eight kill -9, half of them while a file is being written; then the same bytes as unhurt."""
    finish(*command(script, "--out", "unhurt"))
    line, dice, done = command(script, "--out", "run"), random.Random(script), 0
    for kill in range(8):
        if kill % 2:
            words = [sys.executable, "-c", SLOW_WRITES, HERE / f"{line[0]}.py", *line[1:]]
            process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            target = random.Random(kill).choice(["ckpt.pt", "g.pt", "losses.csv"])
            temporary, deadline = Path("run", f".{target}.tmp"), time.monotonic() + 60
            while not temporary.exists() and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.001)
        else:
            process = begin(*line)
            time.sleep(dice.uniform(0, 0.7))
        assert process.poll() is None, "it ended before it could be killed"
        process.kill()
        process.wait()
        for name in ("ckpt.pt", "g.pt"):
            assert torch.load(Path("run", name), weights_only=True)["epoch"] >= done
        done = torch.load("run/ckpt.pt", weights_only=True)["epoch"]
        line = [script, "--resume", "run"]
    finish(*line)
    for name in ("g.pt", "losses.csv", "progress.png"):
        assert Path("run", name).read_bytes() == Path("unhurt", name).read_bytes(), name
    assert not list(Path("run").rglob("*.tmp"))


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_in_the_middle_of_an_epoch(number, code, home):
    line = ["gan_mlp", "--dataset", "sample", "--epochs", "1000", "--out", "my run"]
    process = begin(*line)
    for text in process.stdout:
        if text.startswith("epoch 2/"):
            break
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (code, "")
    epoch = torch.load("my run/ckpt.pt", weights_only=True)["epoch"]
    assert epoch >= 2
    assert f"epoch {epoch} is safe. To go on: python {HERE / 'gan_mlp.py'} --resume 'my run'" in out
    assert not list(Path("my run").rglob("*.tmp"))
    assert "finished" in finish("gan_mlp", "--resume", "my run", "--epochs", str(epoch + 1))


def test_a_full_disk(home):
    """Files may not grow beyond what the first checkpoint, without Adam's averages, needs."""
    line = command("gan_mlp", "--out", "run")

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000))

    out, err = (process := start(*line, preexec_fn=limit)).communicate(timeout=60)
    assert process.returncode == 2 and err.count("\n") == 1, err
    assert "File too large" in err and "epoch 0 is safe. To go on: " in out
    assert torch.load("run/ckpt.pt", weights_only=True)["epoch"] == 0
    assert not list(Path("run").rglob("*.tmp"))
    finish("gan_mlp", "--resume", "run")
    finish(*command("gan_mlp", "--out", "unhurt"))
    for name in ("g.pt", "losses.csv"):
        assert Path("run", name).read_bytes() == Path("unhurt", name).read_bytes(), name


def test_a_folder_in_which_another_run_has_just_begun(type_in, monkeypatch):
    """Both found it empty; the second to write must see that it is taken."""
    Path("run").mkdir()
    Path("run/losses.csv").write_text("theirs")
    monkeypatch.setattr("common.new_folder", lambda out, name: out)
    result = type_in(*command("gan_mlp", "--out", "run"))
    assert result.code == 2 and "File exists" in result.err
    assert [path.read_text() for path in Path("run").iterdir()] == ["theirs"]


def test_no_memory(type_in, monkeypatch):
    def allocate(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 PB")

    monkeypatch.setattr("gan_mlp.train_step", allocate)
    result = type_in(*command("gan_mlp"))
    assert result.code == 2 and result.err == "gan_mlp.py: error: out of memory: try a smaller " + (
        "--batch-size\n"
    )


def test_a_terminal_sees_a_bar(home):
    """Steps, time left and losses on stderr, and above them the same lines as a log file gets."""
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (40, 140))
    with os.fdopen(theirs, "w") as terminal:
        out, _ = start(*command("gan_mlp", "--epochs", "2"), stderr=terminal).communicate()
    bar = os.read(ours, 100_000).decode()
    assert "12/12" in bar and "step/s" in bar and "loss_D" in bar and "loss_G" in bar
    assert "epoch 2/2" in out and "step/s" not in out


def test_runs_is_a_file(type_in):
    Path("runs").write_text("mine")
    result = type_in(*command("gan_mlp"))
    assert result.code == 2 and result.err.count("\n") == 1 and "runs" in result.err
    assert Path("runs").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into any folder")
def test_a_folder_that_may_not_be_written(type_in):
    Path("shut").mkdir(mode=0o500)
    for out in ("shut", "shut/run"):
        result = type_in(*command("gan_mlp", "--out", out))
        assert result.code == 2 and result.err.count("\n") == 1 and "ermission" in result.err
    assert not list(Path("shut").iterdir())


def test_two_runs_at_the_same_moment(home):
    line = command("gan_mlp", "--epochs", "3")
    both = [start(*line) for _ in range(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    first, second = sorted(Path("runs").iterdir())
    assert (first.name, second.name) == ("gan_mlp", "gan_mlp-2")
    for name in ("g.pt", "losses.csv", "progress.png"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_a_reader_that_leaves_does_not_end_the_training(home):
    process = start(*command("gan_mlp"))
    process.stdout.readline()
    process.stdout.close()  # as `| head -1` does
    assert process.wait(timeout=120) == 0 and process.stderr.read() == ""
    assert torch.load("runs/gan_mlp/ckpt.pt", weights_only=True)["epoch"] == 40


def test_names_that_ascii_cannot_write(home):
    plain = {"PATH": os.environ["PATH"], "LC_ALL": "C", "TERM": "dumb", "HOME": str(home)}
    for encoding in ("utf-8", "ascii"):
        name = f"vérité-{encoding}"
        line = command("gan_mlp", "--epochs", "1", "--out", name)
        process = start(*line, env=plain | {"PYTHONIOENCODING": encoding}, encoding="utf-8")
        err = process.communicate(timeout=60)[1]
        assert (process.returncode, err) == (0, "")
        assert Path(name, "g.pt").exists()
