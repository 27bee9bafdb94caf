"""What a run leaves behind, for every architecture, from the commands that a user types."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
from conftest import ARCHS, FAMILIES, FILES, HERE, SMALL, columns, load, read, small

import common
import gan_mlp


@pytest.mark.parametrize("family", FAMILIES, ids=" ".join)
def test_dry_run_is_two_steps_of_everything(family, type_in, drawn):
    few, folder = "--dataset sample --batch-size 4 --out run", f"runs/{family[0]}-dry-run"
    result, folder = type_in(*family, "--dry-run", *few.split()), Path(folder)
    assert (result.code, result.err) == (0, "")
    assert set(FILES) <= {path.name for path in folder.iterdir()}
    assert all(matplotlib.image.imread(path).std() > 0 for path in folder.rglob("*.png"))
    assert [row["step"] for row in read(folder)] == ["1", "2"] and not list(folder.rglob("*.tmp"))
    assert not Path("run").exists()  # --out is free for the run that was tried
    assert "nothing to resume" in type_in(family[0], "--resume").err  # a dry run is not meant


@pytest.mark.parametrize("family", FAMILIES, ids=" ".join)
def test_a_run_is_complete_repeatable_and_resumable(family, type_in, monkeypatch):
    script, _, arch, *_ = family
    module, whole = importlib.import_module(script), Path("runs", script)
    for name, (ours, source) in module.SETTINGS.items():  # what changes does so after epoch 1
        ours = [1 if "after" in key else x for key, x in zip(module.COLUMNS, ours)]
        monkeypatch.setitem(module.SETTINGS, name, (ours, source))
    first = type_in(*small(family))
    assert (first.code, first.err) == (0, "")
    saved = load(whole, "g.pt")
    args = saved["args"]
    assert (saved["script"], saved["arch"], saved["epoch"]) == (script, arch, 2)
    assert (args["dataset"], args["epochs"], args["lr_falls_after"]) == ("fashion-mnist", 2, 1)

    # the networks, all settings in a line, a line for each epoch, the way on
    settings = [name for name in module.COLUMNS if name != "bf16"]
    settings += ["gp" if args["gp"] else "clip"] if script == "wgan" else []
    used = ", ".join(f"{name} {args[name]}" for name in settings)
    used = f"cpu, {'bfloat16' if args['bf16'] else 'float32'}; {used}\n"
    for text in ("Generator(", "Discriminator(", used, "epoch 1/2", "epoch 2/2"):
        assert text in first.out
    assert f'next: python perturb.py --ckpt "runs/{script}/g.pt"' in first.out

    assert type_in("perturb", "--ckpt", "g.pt", "--positions", "7", "--values", "3").code == 0
    before, after = (float(row["change"]) for row in read(whole, "perturb.csv"))
    assert before == 0 < after

    # stopped after one epoch and resumed: a folder of its own, the same bytes as never stopped
    assert type_in(*small(family, "--epochs", "1")).code == 0
    resumed = type_in(script, "--resume", "--epochs", "2")
    assert resumed.code == 0 and "epoch 2/2" in resumed.out and "epoch 1/2" not in resumed.out
    for name in ("g.pt", "losses.csv"):
        assert Path("runs", f"{script}-2", name).read_bytes() == (whole / name).read_bytes(), name


def test_resume_finds_the_newest_run_and_what_was_typed_counts(type_in):
    type_in(*small(["gan_mlp"]))
    typed = ["--report", "--lr", "0.01", "--no-bf16", "--seed", "7", "--epochs", "1"]
    type_in(*small(["gan_mlp"], *typed))
    type_in(*small(["gan_cnn", "--arch", "tiny"], "--epochs", "1"))  # newer, but not this script's
    for name in ("gan_mlp", "gan_mlp-2"):
        os.utime(f"runs/{name}/ckpt.pt", (1e9, 1e9 + len(name)))
    Path("../data").rename("../moved")
    anew = "--epochs 3 --device cpu --data-dir ../moved --sample-every 1 --tensorboard"
    assert "finished: runs/gan_mlp-2" in type_in("gan_mlp", "--resume", *anew.split()).out
    kept = {"report": True, "optimizer": "sgd", "lr": 0.01, "beta1": 0.9, "seed": 7, "r1": 0.0}
    kept |= {"batch_size": 16, "new_z": True, "epochs": 3, "sample_every": 1, "tensorboard": True}
    assert load("runs/gan_mlp-2")["args"].items() >= kept.items()


def test_pictures_show_what_they_say(type_in, drawn, monkeypatch):
    seen, save_png = {}, common.save_png
    note_sheet = lambda path, picture, **labels: seen.update({path.name: (picture, labels)})
    note_png = lambda path, picture: (seen.update({path.name: picture}), save_png(path, picture))
    monkeypatch.setattr(common, "save_sheet", note_sheet)
    monkeypatch.setattr(common, "save_png", note_png)
    type_in(*small(["gan_mlp"], "--batch-size", "4", "--sample-every", "3", "--epochs", "3"))
    type_in("gan_mlp", "--resume", "--epochs", "7")
    at = {int(path.stem[6:]): path for path in Path("runs/gan_mlp/samples").iterdir()}
    assert sorted(at) == [0, 1, 2, 3, 4, 5, 6, 7]  # the quarters of 3 and of 7, and every third

    strip, labels = seen["progress.png"]
    assert labels["columns"] == [f"epoch {n}" for n in (0, 2, 4, 5, 7)]
    for epoch, shown in zip((0, 2, 4, 5, 7), np.split(strip, 5, axis=1)):
        sample = (matplotlib.image.imread(at[epoch]) * 255).round()
        np.testing.assert_array_equal(shown[9:-9, 9:-9], sample)

    compared, labels = seen["real_vs_fake.png"]
    assert labels["rows"] == ["real", "generated"] and compared[0, 0] == 96  # the frame
    rows = [np.split(row, 8, axis=1) for row in np.split(compared[3:, 3:], 2)]
    real, fake = ([tile[:84:3, :84:3] for tile in row] for row in rows)
    data = common.read_idx(common.find_images("fashion-mnist", "../data"))
    np.testing.assert_array_equal(real, data[:8, 0])
    torch.manual_seed(0)
    G, _ = gan_mlp.BasicGenerator(), gan_mlp.BasicDiscriminator()  # then the run draws its z
    z = torch.randn(64, 100)
    G.load_state_dict(load("runs/gan_mlp", "g.pt")["state_dict"])
    np.testing.assert_allclose(fake, (G(z[:8])[:, 0].detach() + 1) * 127.5, atol=0.6)

    # losses and their moving mean; of 7 * 25 steps the window is 4
    lines = [axes.lines[n : n + 2] for axes in seen["losses.png"].axes for n in (0, 2)]
    assert [mean.get_label() for _, mean in lines] == ["loss_D", "loss_G", "D(x)", "D(G(z))"]
    for values, (raw, mean) in zip(columns("runs/gan_mlp")[:, 2:].T, lines):
        np.testing.assert_array_equal(raw.get_ydata(), values)
        assert raw.get_xdata()[[24, 174]].tolist() == [1, 7]  # the ends of epochs 1 and 7
        wanted = [values[n : n + 4].mean() for n in range(172)]
        np.testing.assert_allclose(mean.get_ydata(), wanted)
        np.testing.assert_allclose(mean.get_xdata(), raw.get_xdata()[2:174])


def test_tensorboard_only_when_asked_for(type_in, drawn):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    type_in(*small(["gan_mlp"], "--tensorboard", "--epochs", "1"))
    type_in("gan_mlp", "--resume", "--epochs", "2")
    events = EventAccumulator("runs/gan_mlp/tensorboard").Reload()
    for name in ("loss_D", "loss_G", "D(x)", "D(G(z))"):
        values = [float(row[name]) for row in read("runs/gan_mlp")]
        np.testing.assert_allclose([e.value for e in events.Scalars(name)], values, rtol=1e-5)
    assert events.Tags()["images"] == ["samples"]
    code = "import sys, gan_mlp; sys.exit('tensorboard' in sys.modules)"
    assert subprocess.call([sys.executable, "-c", code], cwd=HERE) == 0


# ---- the losses, with a training step that learns nothing
@pytest.mark.parametrize("script", ARCHS)
def test_losses_and_what_is_said_of_them(script, type_in, watch):
    """losses.csv has those of each step, a line of the screen the means of an epoch."""
    names = ["distance"] * (script == "wgan") + ["loss_D", "loss_G", "D(x)", "D(G(z))"]
    watch(script, lambda step: [step, step / 8, step * 10, -step, 1 / 3])
    out = type_in(*small([script])).out
    steps = np.arange(1, 13)
    losses = [steps, steps / 8, steps * 10, -steps, steps * 0 + 1 / 3][: len(names)]
    table = np.transpose([1 + (steps > 6), steps, *losses])
    np.testing.assert_allclose(columns(f"runs/{script}"), table, rtol=1e-5)
    text = Path("runs", script, "losses.csv").read_bytes()
    assert b"\r" not in text and text.startswith(f"epoch,step,{','.join(names)}\n1,1,".encode())
    means = [f"{name} {values[6:].mean():.3f}" for name, values in zip(names, losses)]
    assert f"epoch 2/2  {'  '.join(means)}  " in out


@pytest.mark.parametrize("script", ["gan_mlp", "gan_cnn", "dcgan"])
def test_a_discriminator_that_is_stuck_or_never_wrong(script, type_in, watch):
    """Stuck is one whose last step of an epoch says so: before it all may have been well."""
    for stuck, free in (([0.009, 0.5], [0.011, 0.5]), ([27.6, 1e-13], [27.6, 1e-11])):
        watch(script, lambda step: [13.0, *(stuck if step in (7, 12) else free), 0.5])  # noqa: B023
        result = type_in(*small([script], "--epochs", "3", "--out", f"stuck-{stuck[1]}"))
        assert result.code == 2 and "D is stuck, epoch 2 unsaved" in result.err
        assert load(f"stuck-{stuck[1]}")["epoch"] == 1 and len(read(f"stuck-{stuck[1]}")) == 12
        watch(script, lambda step: [13.0, *(stuck if step % 6 else free), 0.5])  # noqa: B023
        assert type_in(script, "--resume", f"stuck-{stuck[1]}", "--epochs", "2").code == 0

    said = "D is never wrong, so G learns nothing any more"
    for verdicts, told in (([0.995, 0.005], 1), ([0.985, 0.005], 0), ([0.995, 0.015], 0)):
        watch(script, lambda step: [0.1, 9.0, *verdicts])  # noqa: B023
        assert type_in(*small([script], "--epochs", "1")).out.count(said) == told


@pytest.mark.parametrize("script", ARCHS)
def test_infinite_numbers_never_replace_a_good_checkpoint(script, type_in, watch):
    options = ["--gp", "1"] * (script == "wgan")  # clipping keeps weights finite at any rate
    result = type_in(*small([script], *options, "--lr", "1e30", "--out", "wild"))
    assert result.code == 2 and "infinite numbers" in result.err and "smaller --lr" in result.err
    assert not list(Path("wild").glob("*.pt"))
    watch(script, lambda step: [1.0, 1.0, 0.5, 0.5 if step != 8 else float("nan")])
    result = type_in(*small([script], "--epochs", "3", "--out", "run"))
    assert result.code == 2 and "epoch 2 ended in infinite numbers, unsaved" in result.err
    assert load("run")["epoch"] == load("run", "g.pt")["epoch"] == 1 and len(read("run")) == 6


# ---- two processes that share each batch, over the CPU's gloo
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("gan_cnn", "dcgan", "wgan")]


def torchrun(*command):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    own = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(Path.cwd().parent)}
    kept = {"capture_output": True, "text": True, "timeout": 600, "env": own}
    done = subprocess.run([*launch, *map(str, command)], check=False, **kept)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("script", ["gan_mlp", *SLOW])
def test_one_folder_and_one_voice_and_either_resumes_the_other(script, home, type_in):
    out = torchrun(HERE / f"{script}.py", *SMALL)
    assert out.count("epoch 2/2") == out.count("finished: ") == out.count("Discriminator(") == 1
    assert [folder.name for folder in Path("runs").iterdir()] == [script]
    assert not list(Path("..").glob("tmp*"))  # neither left anything in the temporary folder
    assert all(Path("runs", script, name).exists() for name in FILES)
    assert type_in(script, "--resume", "--epochs", "3").code == 0
    assert "epoch 4/4" in torchrun(HERE / f"{script}.py", "--resume", "--epochs", "4")


def test_a_batch_that_cannot_be_shared(type_in, monkeypatch):
    monkeypatch.setattr(common, "WORLD", 2)
    for size in ("9", "2"):
        result = type_in("gan_mlp", *SMALL, "--batch-size", size)
        assert result.code == 2 and "multiple of 2, 4 or more" in result.err
    assert not Path("runs").exists()
