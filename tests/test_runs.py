"""What a run leaves behind, for every architecture, from the commands that a user types."""

import csv
import math
import os
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
from conftest import FAMILIES, HERE, SMALL, start, tree

import gan_mlp
from perturb import load_generator

FILES = ["g.pt", "ckpt.pt", "losses.csv", "losses.png", "progress.png", "real_vs_fake.png"]


def names(family):
    return "-".join(word.strip("-") for word in family)


def small(family, *more):
    n_critic = ["--n-critic", "2", "--batch-size", "8"] if family[0] == "wgan" else []
    return [*family, *SMALL, *n_critic, "--data-dir", "../data", *more]


def read(folder):
    with open(Path(folder, "losses.csv")) as file:
        return list(csv.DictReader(file))


def columns(folder):
    return np.array([[float(value) for value in row.values()] for row in read(folder)])


@pytest.mark.parametrize("family", FAMILIES, ids=names)
def test_a_run_is_complete_repeatable_and_resumable(family, type_in):
    script = family[0]
    first = type_in(*small(family))
    assert first.code == 0 and first.err == ""
    whole = Path("runs", script)

    # everything is there, and can be read
    assert all((whole / name).stat().st_size > 0 for name in FILES)
    assert not list(whole.rglob("*.tmp"))
    for path in whole.rglob("*.png"):
        assert matplotlib.image.imread(path).std() > 0, path
    assert sorted(p.name for p in (whole / "samples").iterdir()) == [
        f"epoch_00{epoch}.png" for epoch in (0, 1, 2)
    ]
    saved = torch.load(whole / "g.pt", weights_only=True)
    assert (saved["script"], saved["arch"], saved["epoch"]) == (script, family[2], 2)
    assert saved["args"]["dataset"] == "fashion-mnist" and saved["args"]["epochs"] == 2

    # a row for each of the 2 * 6 steps, all of them finite numbers
    rows = read(whole)
    assert [(row["epoch"], row["step"]) for row in rows] == [
        (str(1 + step // 6), str(1 + step)) for step in range(12)
    ]
    assert all(math.isfinite(float(value)) for row in rows for value in row.values())

    # the networks, a line for each epoch, the way on
    for text in ("Generator(", "Discriminator(", "epoch 1/2", "epoch 2/2"):
        assert text in first.out
    (used,) = [line for line in first.out.splitlines() if line.startswith("cpu, ")]
    optimizer = "RMSprop" if family == ["wgan", "--arch", "transpose"] else "Adam with"
    for text in ("float", " lr ", "; average 0.99", optimizer):
        assert text in used
    assert f'next: python perturb.py --ckpt "runs/{script}/g.pt"' in first.out

    # the same command: a folder of its own, the same bytes
    assert type_in(*small(family)).code == 0
    again = Path("runs", f"{script}-2")
    for name in ("g.pt", "losses.csv", "progress.png"):
        assert (again / name).read_bytes() == (whole / name).read_bytes(), name

    # another seed: other bytes
    assert type_in(*small(family, "--seed", "1", "--epochs", "1", "--out", "other")).code == 0
    assert Path("other", "losses.csv").read_bytes() != (whole / "losses.csv").read_bytes()

    # stopped after one epoch and resumed: the same bytes as never stopped
    assert type_in(*small(family, "--epochs", "1")).code == 0
    resumed = type_in(script, "--resume", "--epochs", "2")
    assert resumed.code == 0 and "epoch 2/2" in resumed.out and "epoch 1/2" not in resumed.out
    for name in ("g.pt", "losses.csv", "progress.png"):
        halves = Path("runs", f"{script}-3", name)
        assert halves.read_bytes() == (whole / name).read_bytes(), name


def test_resume_finds_the_newest_run_and_shifts_the_milestones(type_in):
    type_in(*small(["gan_mlp"]))
    type_in(*small(["gan_mlp"], "--epochs", "4"))
    type_in(*small(["gan_cnn", "--arch", "tiny"], "--epochs", "1"))  # newer, but not this script's
    result = type_in("gan_mlp", "--resume", "--epochs", "8")
    assert result.code == 0 and "finished: runs/gan_mlp-2" in result.out
    drawn = {path.name for path in Path("runs/gan_mlp-2/samples").iterdir()}
    assert drawn == {f"epoch_00{epoch}.png" for epoch in (0, 1, 2, 3, 4, 6, 8)}
    assert len(read("runs/gan_mlp-2")) == 8 * 6


def test_resume_of_a_finished_run_says_so_and_stops(type_in):
    type_in(*small(["gan_mlp"]))
    before = tree("runs")
    for fewer in [], ["--epochs", "1"]:
        result = type_in("gan_mlp", "--resume", "runs/gan_mlp/ckpt.pt", *fewer)
        assert result.code == 2 and "has 2 epochs already" in result.err
    assert tree("runs") == before


def test_a_checkpoint_without_an_option_that_was_added_since(type_in):
    type_in(*small(["gan_mlp"], "--epochs", "1"))
    checkpoint = torch.load("runs/gan_mlp/ckpt.pt")
    del checkpoint["args"]["r1"]
    torch.save(checkpoint, "runs/gan_mlp/ckpt.pt")
    assert type_in("gan_mlp", "--resume", "--epochs", "2").code == 0
    assert torch.load("runs/gan_mlp/ckpt.pt")["args"]["r1"] == 1


def test_losses_that_were_lost_are_told(type_in):
    type_in(*small(["gan_mlp"], "--epochs", "2"))
    table = Path("runs/gan_mlp/losses.csv")
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:9]))
    result = type_in("gan_mlp", "--resume", "--epochs", "3")
    assert result.code == 0 and "losses.csv has lost lines: 8 of 12" in result.out


def test_a_discriminator_that_is_never_wrong(type_in):
    said = "G learns nothing any more"
    line = ["gan_mlp", "--dataset", "sample", "--epochs", "2"]
    assert said in type_in(*line, "--lr", "100").out
    assert said not in type_in(*line).out


def test_a_discriminator_that_is_stuck_ends_the_run(type_in):
    result = type_in(*small(["dcgan"], "--lr", "1", "--epochs", "9"))
    assert result.code == 2 and "D is stuck at 1, epoch" in result.err
    epoch = int(result.err.split("epoch ")[1].split()[0])
    assert torch.load("runs/dcgan/ckpt.pt")["epoch"] == epoch - 1


def test_precision_is_kept(type_in):
    for out, kept in (("bf16", True), ("no-bf16", False)):
        assert type_in(*small(["gan_cnn", "--arch", "tiny"], f"--{out}", "--out", out)).code == 0
        assert torch.load(Path(out, "ckpt.pt"))["args"]["bf16"] is kept
    assert not np.array_equal(columns("bf16"), columns("no-bf16"))
    refused = type_in("gan_cnn", "--resume", "bf16", "--no-bf16", "--epochs", "4")
    assert refused.code == 2 and "does not fit" in refused.err


def test_the_average_by_hand(type_in):
    """--ema 0 is the newest weights; else each step moves the mean by its share."""
    for ema, same in (("0", True), ("0.999", False)):
        assert type_in(*small(["dcgan"], "--ema", ema, "--out", ema)).code == 0
        drawn = torch.load(Path(ema, "g.pt"))["state_dict"]
        newest = torch.load(Path(ema, "ckpt.pt"))["G"]
        floats = [name for name in newest if newest[name].is_floating_point()]
        assert all(torch.equal(drawn[name], newest[name]) for name in floats) == same
    # epochs of one step: after the first the mean is the newest, then 10/11 of the way to it
    line = ["gan_mlp", "--data-dir", "../data", "--batch-size", "100", "--epochs"]
    assert type_in(*line, "1", "--out", "one").code == type_in(*line, "2", "--out", "two").code == 0
    first, second = (torch.load(f"{out}/ckpt.pt")["G"]["fc1.weight"] for out in ("one", "two"))
    mean = torch.load("two/g.pt")["state_dict"]["fc1.weight"]
    torch.testing.assert_close(mean, first.lerp(second, 10 / 11))


def test_resume_forgets_the_rows_of_an_epoch_that_was_cut_off(type_in):
    type_in(*small(["gan_mlp"]))
    type_in(*small(["gan_mlp"], "--epochs", "1", "--out", "cut"))
    with open("cut/losses.csv", "a") as file:
        file.write("2,7,0.5,0.5,0.5,0.5\n2,8,0.")
    type_in("gan_mlp", "--resume", "cut", "--epochs", "2")
    assert Path("cut/losses.csv").read_bytes() == Path("runs/gan_mlp/losses.csv").read_bytes()


def test_samples_more_often(type_in):
    type_in(*small(["gan_mlp"], "--epochs", "7", "--sample-every", "3"))
    drawn = [int(path.stem[6:]) for path in sorted(Path("runs/gan_mlp/samples").iterdir())]
    assert drawn == [0, 2, 3, 4, 5, 6, 7]  # 0, 25, 50, 75 and 100 %, and every third


def test_dry_run_is_two_steps_of_everything(type_in):
    for script in ("gan_mlp", "gan_cnn", "dcgan", "wgan"):
        line = ["--dry-run", "--dataset", "sample", "--batch-size", "4", "--out", "run"]
        result = type_in(script, *line)
        assert result.code == 0, result.err
        folder = Path("runs", f"{script}-dry-run")
        assert all((folder / name).exists() for name in FILES)
        assert [row["step"] for row in read(folder)] == ["1", "2"]
    assert "nothing to resume" in type_in("gan_mlp", "--resume").err  # a dry run is not meant
    assert not Path("run").exists()  # --out is free for the run that was tried


def test_samples_and_real_images_are_drawn_in_the_right_greys(type_in):
    """Black stays black and white white: the squares' background is 0, the frame 96."""
    type_in(*small(["gan_mlp"]))
    picture = matplotlib.image.imread("runs/gan_mlp/real_vs_fake.png")
    assert 0 in picture and np.isclose(picture, 96 / 255, atol=0.01).any()
    sheet = matplotlib.image.imread("runs/gan_mlp/samples/epoch_002.png")
    assert sheet.shape == ((8 * 29 + 1) * 3, (8 * 29 + 1) * 3)
    G, _ = load_generator(Path("runs/gan_mlp/g.pt"))
    torch.manual_seed(0)
    gan_mlp.BasicGenerator(), gan_mlp.BasicDiscriminator()  # drawn before the run's own z
    with torch.no_grad():
        grey = (G(torch.randn(64, 100))[9, 0] + 1) / 2  # the second of the second row
    tile = sheet[87:177, 87:177].reshape(30, 3, 30, 3).mean((1, 3))[1:-1, 1:-1]
    np.testing.assert_allclose(tile, grey, atol=1 / 255)


def test_tensorboard_only_when_asked_for(type_in):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    type_in(*small(["gan_mlp"], "--tensorboard", "--epochs", "1"))
    type_in("gan_mlp", "--resume", "--epochs", "2")
    events = EventAccumulator("runs/gan_mlp/tensorboard").Reload()
    assert set(events.Tags()["scalars"]) == set(read("runs/gan_mlp")[0]) - {"epoch", "step"}
    values = [event.value for event in events.Scalars("loss_D")]
    np.testing.assert_allclose(
        values, [float(r["loss_D"]) for r in read("runs/gan_mlp")], rtol=1e-5
    )
    assert events.Tags()["images"] == ["samples"]
    code = "import sys, gan_mlp; sys.exit('tensorboard' in sys.modules)"
    assert subprocess.call([sys.executable, "-c", code], cwd=HERE) == 0


def test_as_from_a_shell_without_a_terminal(home):
    """In its own process, in the plainest of environments: lines for a log file, no bar."""
    plain = {"PATH": os.environ["PATH"], "LC_ALL": "C", "TERM": "dumb", "HOME": str(home)}
    process = start("gan_mlp", "--dataset", "sample", "--epochs", "2", env=plain)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("10,000 images of sample from ")
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert [line.split("  ")[0] for line in epochs] == ["epoch 1/2", "epoch 2/2"]
    assert all(word in epochs[0] for word in ("loss_D", "loss_G", "D(x)", "D(G(z))", " s"))
    assert len(read("runs/gan_mlp")) == 2 * (10_000 // 128)
