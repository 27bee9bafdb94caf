"""What comes from outside: signals, kills, a full disk, two processes on one run."""

import contextlib
import os
import resource
import signal
import subprocess
from functools import partial
from pathlib import Path

import pytest
from conftest import HERE, load, read, same_bytes, small, start, tiny, tree

import common

GOOD = [1.0, 1.0, 0.5, 0.5, 0.5]  # losses of a step
SAMPLE = ["--dataset", "sample", "--batch-size", "500", "--device", "cpu"]


def begin(*line):
    """Start a script and wait until it has saved an epoch."""
    # A shell's background job ignores Ctrl-C, and so would what it starts.
    heed_ctrl_c = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = start(*line, preexec_fn=heed_ctrl_c)
    for text in process.stdout:
        if text.startswith("epoch 2/"):
            return process
    raise AssertionError(process.stderr.read())


def press_ctrl_c(process):
    # pickle can swallow one (a bare except in copyreg): then a user presses it again.
    for _ in range(5):
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
            return


# ---- signals


def test_a_second_process_is_refused_and_ctrl_c_leaves_the_last_epoch(home, type_in):
    first = begin("gan_mlp", *SAMPLE, "--epochs", "9999", "--out", "my run")
    try:
        first.send_signal(
            signal.SIGSTOP
        )  # so that only the second could change anything
        done = load("my run")["epoch"]
        before = tree("my run")
        resume = ["gan_mlp", "--resume", "my run", "--epochs", str(done + 1)]
        second = start(*resume)
        _, err = second.communicate(timeout=120)
        assert second.returncode == 2
        assert "my run is still being trained" in err
        assert tree("my run") == before
        first.send_signal(signal.SIGCONT)
        press_ctrl_c(first)
        out, err = first.communicate(timeout=60)
    finally:
        first.kill()
    assert first.returncode == 130
    assert err == ""
    script = HERE / "gan_mlp.py"
    assert f'stopped. To go on: python "{script}" --resume "my run"\n' in out
    assert not list(Path("my run").rglob("*.tmp"))

    done = load("my run")["epoch"]
    result = type_in("gan_mlp", "--resume", "my run", "--epochs", str(done + 1))
    assert result.code == 0
    assert len(read("my run")) == 20 * (done + 1)


@pytest.mark.parametrize(
    "last_step, said",
    [
        (3, "No epoch was finished: nothing to resume."),
        (9, '--resume "run"\n'),
    ],
)
def test_sigterm_says_how_to_go_on(last_step, said, type_in, replace_step):
    def losses(step):
        if step == last_step:
            signal.raise_signal(signal.SIGTERM)
        return GOOD

    replace_step("gan_mlp", losses)
    result = type_in(*small(["gan_mlp"], "--out", "run"))
    assert result.code == 143
    assert result.err == ""
    assert "stopped. " in result.out
    assert said in result.out


def test_after_a_run_sigterm_means_what_it_did_before(type_in, replace_step):
    """A notebook goes on after a run, whatever its end was."""

    def ours(*_):
        pass

    def stop(_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, ours)
    try:
        replace_step("gan_mlp", lambda _: GOOD)
        assert type_in(*tiny(["gan_mlp"])).code == 0
        assert signal.getsignal(signal.SIGTERM) is ours, "after its own end"
        assert type_in("gan_mlp", "--resume", "nowhere").code == 2
        assert signal.getsignal(signal.SIGTERM) is ours, "after a mistake"
        replace_step("gan_mlp", stop)
        assert type_in(*tiny(["gan_mlp"])).code == 130
        assert signal.getsignal(signal.SIGTERM) is ours, "after a stop"
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_mistake_is_not_called_a_stop(type_in, replace_step):
    replace_step("gan_mlp", lambda step: [float("nan")] * 4)
    result = type_in(*tiny(["gan_mlp"]))
    assert result.code == 2
    assert "stopped" not in result.out


# ---- between any two writes


@pytest.fixture
def writes(monkeypatch):
    """The names of the files that fsync and replace are called for, in order.

    At the last one that is asked for, a fault is raised instead.
    """

    class Writes(list):
        last = None
        fault = None

    done = Writes()
    fsync = os.fsync
    replace = os.replace

    def note(name):
        done.append(name)
        if len(done) == done.last:
            raise done.fault

    def noted_fsync(number):
        note(Path(os.readlink(f"/proc/self/fd/{number}")).name)
        fsync(number)

    def noted_replace(source, target):
        note(target.name)
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    return done


OF_AN_EPOCH = ["losses.csv", ".g.pt.tmp", "g.pt", ".ckpt.pt.tmp", "ckpt.pt"]


def test_rows_are_on_the_disk_before_the_checkpoint_that_counts_them(type_in, writes):
    type_in(*small(["gan_mlp"]))
    assert writes == OF_AN_EPOCH * 2


@pytest.mark.parametrize("last", range(6, 11))  # in epoch 2
@pytest.mark.parametrize("fault", [KeyboardInterrupt(), OSError(28, "No space left")])
def test_stopped_between_any_two_writes_it_goes_on_as_never_stopped(
    fault, last, type_in, writes
):
    type_in(*tiny(["gan_mlp"]))
    writes.clear()
    writes.fault = fault
    writes.last = last
    result = type_in(*tiny(["gan_mlp"]))
    writes.last = None
    if isinstance(fault, OSError):
        assert result.code == 2
        assert "No space left" in result.err
    else:
        assert result.code == 130
        assert 'To go on: python "' in result.out
    assert not list(Path("runs").rglob("*.tmp"))
    assert type_in("gan_mlp", "--resume", "runs/gan_mlp-2").code == 0
    same_bytes("runs/gan_mlp-2", "runs/gan_mlp")


def test_a_file_is_never_half_written(tmp_path, monkeypatch):
    """Another process never sees it so, and neither does anybody after a power cut."""
    path = tmp_path / "g.pt"
    common.write(path, b"old")
    fsync = os.fsync
    seen = []

    def look(number):
        (other,) = tmp_path.glob(".*")
        seen.append((path.read_bytes(), other.read_bytes()))
        fsync(number)

    monkeypatch.setattr(os, "fsync", look)
    common.write(path, b"new")
    assert seen == [(b"old", b"new")]
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


# ---- a full disk


@pytest.mark.parametrize(
    "name", ["losses.csv", "g.pt", "ckpt.pt", "epoch_001.png", "losses.png"]
)
def test_a_full_disk_ends_in_a_message(name, type_in, drawn, monkeypatch):
    full = OSError(28, "No space left on device")
    fsync = os.fsync

    def is_full(number):
        if Path(os.readlink(f"/proc/self/fd/{number}")).name in (name, f".{name}.tmp"):
            raise full
        fsync(number)

    monkeypatch.setattr(os, "fsync", is_full)
    result = type_in(*small(["gan_mlp"], "--epochs", "1", "--out", "run"))
    assert result.code == 2
    assert "No space left on device" in result.err
    assert "Traceback" not in result.err
    assert not list(Path("run").rglob("*.tmp"))


def test_a_disk_that_takes_only_so_much_ends_in_a_message(type_in):
    """Without a stand-in: no file may be larger than 100 kB, and g.pt is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        result = type_in(*small(["gan_mlp"], "--out", "run"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert result.code == 2
    assert "File too large" in result.err
    assert [path.name for path in Path("run").iterdir()] == ["losses.csv"]


def test_a_run_whose_folder_is_taken_away_ends_in_a_message(type_in, replace_step):
    def losses(step):
        if step == 8:
            Path("run/losses.csv").unlink()
        return GOOD

    replace_step("gan_mlp", losses)
    result = type_in(*small(["gan_mlp"], "--out", "run"))
    assert result.code == 2
    assert "losses.csv" in result.err


# ---- two at once


@contextlib.contextmanager
def trained_elsewhere(folder):
    """As if another process trained this run."""
    with Path(folder, "losses.csv").open("a") as table:
        common.lock(table)
        yield table


def test_a_run_that_is_being_trained_is_refused_and_untouched(type_in, refused):
    """Also one that logs for TensorBoard, and has written rows of its next epoch."""
    type_in(*small(["gan_mlp"], "--tensorboard", "--out", "run"))
    with trained_elsewhere("run") as table:
        table.write("3,13,0.5,")
        table.flush()
        refused(
            "run is still being trained", "gan_mlp", "--resume", "run", "--epochs", "3"
        )
    assert type_in("gan_mlp", "--resume", "run", "--epochs", "3").code == 0


def test_losses_that_another_process_writes_are_kept(type_in, replace_step):
    """As on a disk that knows no locks."""
    table = Path("run/losses.csv")

    def losses(step):
        if step == 8:
            text = table.read_text()
            table.write_text(text + "1,7,theirs\n")
        return GOOD

    replace_step("gan_mlp", losses)
    result = type_in(*small(["gan_mlp"], "--out", "run"))
    assert result.code == 2
    assert "another process has written run/losses.csv" in result.err
    assert "epoch 2 is not saved" in result.err
    assert load("run")["epoch"] == 1
    assert table.read_text().endswith("\n1,7,theirs\n")


def test_two_runs_that_start_together_get_two_folders(home):
    line = ["gan_mlp", *SAMPLE, "--epochs", "1"]
    both = [start(*line), start(*line)]
    folders = set()
    for process in both:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        (finished,) = [text for text in out.splitlines() if text[:8] == "finished"]
        folders.add(finished)
    assert folders == {"finished: runs/gan_mlp", "finished: runs/gan_mlp-2"}
    for name in ("gan_mlp", "gan_mlp-2"):
        assert load(f"runs/{name}")["epoch"] == 1
    same_bytes("runs/gan_mlp", "runs/gan_mlp-2")


def test_a_folder_that_another_run_has_just_taken_is_left_to_it(home, monkeypatch):
    """The other one is quicker by a moment: between any look and the making."""
    mkdir = Path.mkdir
    taken = Path("runs/gan_mlp")

    def too_late(path, *arguments, **options):
        if path == taken and not taken.exists():
            os.makedirs(taken)
        mkdir(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", too_late)
    assert common.free_folder("gan_mlp") == Path("runs/gan_mlp-2")
