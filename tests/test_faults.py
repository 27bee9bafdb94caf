"""Faults from outside: kills, signals, full disks, two runs at once.

The slow ones run the scripts in processes of their own, again and again: `pytest -m slow`.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import HERE, SMALL, start

resource, termios = map(pytest.importorskip, ("resource", "termios"))  # not on Windows

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
    """Start a script and wait until it has a first checkpoint, or one epoch more."""
    process = start(*line, **options)
    for text in process.stdout:
        if text.startswith("epoch "):
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
    finish(*command(script, "--out", "run"))
    Path("run").rename("unhurt")
    line, dice, done = command(script, "--out", "run"), random.Random(script), 0
    for kill in range(8):
        if kill % 2:
            words = [sys.executable, "-c", SLOW_WRITES, HERE / f"{line[0]}.py", *line[1:]]
            process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            target = random.Random(kill).choice(["ckpt.pt", "g.pt"])
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
        if Path("run/ckpt.pt").exists():
            for name in ("ckpt.pt", "g.pt"):
                assert torch.load(Path("run", name), weights_only=True)["epoch"] >= done
            done = torch.load("run/ckpt.pt", weights_only=True)["epoch"]
            line = [script, "--resume", "run"]
        else:
            shutil.rmtree("run")  # killed before its first checkpoint: it has to start again
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
    assert epoch >= 1
    assert f'stopped. To go on: python "{HERE / "gan_mlp.py"}" --resume "my run"' in out
    assert not list(Path("my run").rglob("*.tmp"))
    assert "finished" in finish("gan_mlp", "--resume", "my run", "--epochs", str(epoch + 1))


def test_stopped_before_there_is_anything_to_resume(home, type_in):
    line = ["gan_mlp", "--dataset", "sample", "--batch-size", "2", "--out", "run"]
    process = start(*line)
    while not Path("run/progress.png").exists():  # drawn before the first epoch
        assert process.poll() is None, "it ended before it could be stopped"
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "") and "nothing to resume" in out
    again = type_in(*line)
    assert again.code == 2 and "is not empty" in again.err and "--resume" not in again.err


def test_a_full_disk(home):
    """Files may not grow any more: a message, and what was there is whole."""
    finish(*command("gan_mlp", "--epochs", "2", "--out", "run"))
    before = Path("run/ckpt.pt").read_bytes()

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000))

    line = ["gan_mlp", "--resume", "run", "--epochs", "4"]
    out, err = (process := start(*line, preexec_fn=limit)).communicate(timeout=60)
    assert process.returncode == 2 and "Traceback" not in err
    assert "File too large" in err and "To go on: " in out
    assert Path("run/ckpt.pt").read_bytes() == before and not list(Path("run").rglob("*.tmp"))
    finish(*line)
    finish(*command("gan_mlp", "--epochs", "4", "--out", "unhurt"))
    assert Path("run/losses.csv").read_bytes() == Path("unhurt/losses.csv").read_bytes()


def test_a_folder_in_which_another_run_has_just_begun(type_in, monkeypatch):
    """Both found it empty; the second to write must see that it is taken."""
    Path("run").mkdir()
    Path("run/losses.csv").write_text("theirs")
    monkeypatch.setattr("common.run_folder", lambda args, checkpoint, script: Path("run"))
    result = type_in(*command("gan_mlp", "--out", "run"))
    assert result.code == 2 and "File exists" in result.err
    assert [path.read_text() for path in Path("run").iterdir()] == ["theirs"]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_no_memory(error, type_in, monkeypatch):
    def allocate(*_):
        raise error

    monkeypatch.setattr("gan_mlp.train_step", allocate)
    result = type_in(*command("gan_mlp"))
    assert result.code == 2 and "smaller --batch-size" in result.err


def test_what_is_not_the_users_keeps_its_words(type_in, monkeypatch):
    def fail(*_):
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr("gan_mlp.train_step", fail)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        type_in(*command("gan_mlp"))


def test_a_terminal_sees_a_bar(home):
    """Steps and time left on stderr; on stdout the same lines as a log file gets."""
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (40, 140))
    with os.fdopen(theirs, "w") as terminal:
        process = start(*command("gan_mlp", "--epochs", "2"), stderr=terminal)
    bar = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while part := os.read(ours, 1000):
            bar += part
    out, _ = process.communicate()
    assert b"12/12" in bar and b"step/s" in bar
    assert "epoch 2/2" in out and "step/s" not in out


def test_runs_is_a_file(type_in):
    Path("runs").write_text("mine")
    result = type_in(*command("gan_mlp"))
    assert result.code == 2 and "File exists: 'runs'" in result.err
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
