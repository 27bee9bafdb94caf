"""Faults from outside: kills, signals, full disks, too little memory, two runs at once."""

import contextlib
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import HERE, load, read, small, start, tree

resource = pytest.importorskip("resource")  # no Windows

# Lets a script have 300 MB more than it has after its imports: less than its first z takes.
LITTLE_MEMORY = r"""
import re, resource, sys
sys.path.insert(0, sys.argv.pop(1))
import common, gan_mlp
size = 1024 * int(re.search(r"VmSize:\s+(\d+)", open("/proc/self/status").read())[1])
resource.setrlimit(resource.RLIMIT_AS, (size + 300_000_000,) * 2)
common.run(gan_mlp.main)
"""


def begin(*line):
    """Start a script and wait until it has saved an epoch."""
    # A shell's background job ignores Ctrl-C, and so would what it starts.
    heed_ctrl_c = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = start(*line, preexec_fn=heed_ctrl_c)
    ends = (text for text in process.stdout if text.startswith("epoch "))
    assert next(ends, None) and next(ends, None), process.stderr.read()  # saved before the second
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
    second = type_in(*resume)
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

    third = begin(*resume)  # and once more, by a kill that leaves it no time for anything
    third.kill()
    third.communicate()
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
    """As on a disk that knows no locks. And who only reads losses.csv disturbs nobody."""

    def losses(step):
        if step == 8:
            with open("run/losses.csv", "a") as file:
                file.write("1,7,theirs\n")
        return [1.0, 1.0, 0.5, 0.5]

    watch("gan_mlp", losses)
    result = type_in(*small(["gan_mlp"], "--out", "run"))
    assert result.code == 2 and "another process has written run/losses.csv" in result.err
    assert "epoch 2 is not saved" in result.err and load("run")["epoch"] == 1
    with open("run/losses.csv") as reader:
        assert reader.read().endswith("\n1,7,theirs\n")
        assert type_in("gan_mlp", "--resume", "run", "--epochs", "3").code == 0
        reader.seek(0)
        assert len(reader.readlines()) == 1 + 3 * 6


def test_stopped_between_any_two_writes(type_in, monkeypatch):
    """Rows are on the disk before the checkpoint that counts them. Resumed: as never stopped."""
    done, last, fsync, replace = [], None, os.fsync, os.replace

    def note(name, call, *arguments):
        done.append(name)
        if len(done) == last:
            raise KeyboardInterrupt
        call(*arguments)

    def name_of(number):
        return Path(os.readlink(f"/proc/self/fd/{number}")).name

    monkeypatch.setattr(os, "fsync", lambda number: note(name_of(number), fsync, number))
    monkeypatch.setattr(os, "replace", lambda old, new: note(new.name, replace, old, new))
    assert type_in(*small(["gan_mlp"])).code == 0
    assert done == ["losses.csv", ".g.pt.tmp", "g.pt", ".ckpt.pt.tmp", "ckpt.pt"] * 2
    for run, stop in enumerate(range(6, 11), start=2):  # in epoch 2
        done, last = [], stop
        assert type_in(*small(["gan_mlp"])).code == 130
        last = None
        assert type_in("gan_mlp", "--resume", f"runs/gan_mlp-{run}").code == 0
        for name in ("g.pt", "losses.csv"):
            halves, whole = (Path(f"runs/gan_mlp{end}", name) for end in (f"-{run}", ""))
            assert halves.read_bytes() == whole.read_bytes()


def test_rows_after_the_checkpoint_are_forgotten_and_lost_ones_are_told(type_in):
    type_in(*small(["gan_mlp"]))
    type_in(*small(["gan_mlp"], "--epochs", "1", "--out", "cut"))
    table = Path("cut/losses.csv")
    with table.open("a") as file:
        file.write("2,7,0.5,0.5,0.5,0.5\n" * 9 + "2,8,0.")  # longer than what replaces it
    type_in("gan_mlp", "--resume", "cut", "--epochs", "2")
    assert table.read_bytes() == Path("runs/gan_mlp/losses.csv").read_bytes()
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:9]))
    result = type_in("gan_mlp", "--resume", "cut", "--epochs", "3")
    assert result.code == 0 and "losses.csv has lost lines: 8 of 12" in result.out


def test_a_full_disk(type_in):
    """Files may not grow any more: a message, and what was there is whole."""
    type_in(*small(["gan_mlp"], "--out", "run"))
    before, line = tree("run"), ["gan_mlp", "--resume", "run", "--epochs", "4"]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, hard))
    result = type_in(*line)
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert result.code == 2 and "File too large" in result.err and "To go on: " in result.out
    whole = Path("run/ckpt.pt")
    assert whole.read_bytes() == before[whole] and tree("run").keys() == before.keys()
    assert type_in(*line).code == type_in(*small(["gan_mlp"], "--epochs", "4")).code == 0
    assert Path("run/losses.csv").read_bytes() == Path("runs/gan_mlp/losses.csv").read_bytes()


def test_no_memory(home, type_in, watch):
    large = ["--dataset", "sample", "--z-dim", "10000", "--batch-size", "10000", "--device", "cpu"]
    words = [sys.executable, "-c", LITTLE_MEMORY, HERE, *large]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "can't allocate memory" in done.stderr and "smaller --batch-size" in done.stderr

    def fail(error):
        raise error

    for error in (torch.OutOfMemoryError("CUDA out of memory"), MemoryError()):
        watch("gan_mlp", lambda step: fail(error))  # noqa: B023
        result = type_in(*small(["gan_mlp"]))
        assert result.code == 2 and "smaller --batch-size" in result.err
    # what is not the user's keeps its own words and its traceback
    watch("gan_mlp", lambda step: fail(RuntimeError("an illegal memory access")))
    with pytest.raises(RuntimeError, match="^an illegal memory access$"):
        type_in(*small(["gan_mlp"]))


def test_folders_that_are_taken(type_in, monkeypatch):
    Path("runs").write_text("mine")
    result = type_in(*small(["gan_mlp"]))
    assert result.code == 2 and "File exists: 'runs'" in result.err
    assert Path("runs").read_text() == "mine"
    # two found it empty; the second to write must see that it is taken
    Path("run").mkdir()
    Path("run/losses.csv").write_text("theirs")
    monkeypatch.setattr("common.run_folder", lambda *_: Path("run"))
    result = type_in(*small(["gan_mlp"]))
    assert result.code == 2 and "File exists" in result.err
    assert [path.read_text() for path in Path("run").iterdir()] == ["theirs"]
