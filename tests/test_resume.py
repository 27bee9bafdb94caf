"""A stopped run goes on as if it had never stopped; what does not fit is refused."""

import importlib
import os
from pathlib import Path

import pytest
import torch
from conftest import FAMILIES, idx, load, pictures, read, same_bytes, small, tiny

GOOD = [1.0, 1.0, 0.5, 0.5, 0.5]  # losses of a step


@pytest.mark.parametrize("family", FAMILIES, ids=" ".join)
def test_every_network_learns_what_it_would_have_without_a_stop(
    family, type_in, monkeypatch
):
    script = family[0]
    module = importlib.import_module(script)
    for name, (ours, source) in module.SETTINGS.items():
        # What changes with the epochs shall do so after the first.
        early = {key: 1 for key in ours if key.endswith("after")}
        monkeypatch.setitem(module.SETTINGS, name, (ours | early, source))
    type_in(*tiny(family))
    type_in(*tiny(family, "--epochs", "1"))
    result = type_in(script, "--resume", f"runs/{script}-2", "--epochs", "2")
    assert result.code == 0
    assert result.err == ""
    assert f"going on with runs/{script}-2 after epoch 1\n" in result.out
    assert "epoch 2/2" in result.out
    assert "epoch 1/2" not in result.out
    same_bytes(f"runs/{script}-2", f"runs/{script}")


# ---- which run


def test_without_a_name_it_is_the_script_s_newest_run(type_in, replace_step):
    """Whatever its folder is called. Dry runs and damaged ones do not count."""
    replace_step("gan_mlp", lambda _: GOOD)
    replace_step("gan_cnn", lambda _: GOOD)
    mine = tiny(["gan_mlp"], "--epochs", "1")
    type_in(*mine)
    type_in(*mine, "--out", "runs/zebra")
    type_in(*mine, "--out", "runs/apple")
    type_in(*mine, "--out", "runs/damaged")
    Path("runs/damaged/g.pt").write_bytes(b"")
    type_in(*tiny(["gan_cnn", "--arch", "tiny"], "--epochs", "1"))
    type_in(*mine, "--dry-run")
    oldest_first = ["zebra", "gan_mlp", "apple", "damaged", "gan_cnn"]
    for age, name in enumerate([*oldest_first, "gan_mlp-dry-run"]):
        os.utime(f"runs/{name}/ckpt.pt", (age, age))
    result = type_in("gan_mlp", "--resume", "--epochs", "2")
    assert "going on with runs/apple after" in result.out
    assert "passed over runs/damaged: " in result.out
    os.utime("runs/zebra/ckpt.pt", (99, 99))
    os.utime("runs/apple/ckpt.pt", (98, 98))
    result = type_in("gan_mlp", "--resume", "--epochs", "2")
    assert "going on with runs/zebra after" in result.out


def test_a_folder_or_its_checkpoint_can_be_named(type_in):
    type_in(*tiny(["gan_mlp"], "--out", "a run"))
    for name, epochs in ("a run", "3"), ("a run/ckpt.pt", "4"):
        result = type_in("gan_mlp", "--resume", name, "--epochs", epochs)
        assert f"epoch {epochs}/{epochs}" in result.out, name
        assert "finished: a run" in result.out, name


def test_there_is_nothing_to_resume(refused, type_in):
    refused("nothing to resume", "gan_mlp", "--resume")
    refused("there is no nowhere", "gan_mlp", "--resume", "nowhere")
    refused("there is no ../data/ckpt.pt", "gan_mlp", "--resume", "../data")
    images = "../data/train-images-idx3-ubyte.gz"
    refused("no checkpoint", "gan_mlp", "--resume", images)
    type_in(*tiny(["gan_mlp"], "--out", "run"))
    refused("its folder", "gan_mlp", "--resume", "run/g.pt")
    refused("is of gan_mlp.py", "gan_cnn", "--resume", "run")
    refused("is done up to epoch 2", "gan_mlp", "--resume", "run")
    refused("is done up to epoch 2", "gan_mlp", "--resume", "run", "--epochs", "1")


# ---- with which options


def test_what_was_typed_at_first_still_counts(type_in):
    typed = ["--report", "--lr", "0.01", "--no-bf16", "--seed", "7", "--z-dim", "9"]
    type_in(*tiny(["gan_mlp", "--arch", "hidden"], *typed, "--epochs", "1"))
    type_in("gan_mlp", "--resume", "--epochs", "2")
    args = load("runs/gan_mlp")["args"]
    wanted = {
        "arch": "hidden",
        "report": True,
        "lr": 0.01,
        "bf16": False,
        "seed": 7,
        "z_dim": 9,
        "batch_size": 8,
        "r1": 0.0,  # the report's
        "new_z": True,
        "epochs": 2,
    }
    assert args.items() >= wanted.items()


@pytest.mark.parametrize(
    "option",
    [
        "--epochs 9",
        "--device auto",
        "--no-graph",
        "--data-dir ../moved",
        "--sample-every 1",
        "--tensorboard",
    ],
)
def test_what_changes_no_epoch_may_be_given_anew(option, type_in, replace_step):
    replace_step("gan_mlp", lambda _: GOOD)
    type_in(*tiny(["gan_mlp"], "--epochs", "1"))
    name, *value = option.split()
    if option == "--data-dir ../moved":
        Path("../few").rename("../moved")
        value = [os.path.abspath("../moved")]
    result = type_in("gan_mlp", "--resume", "--epochs", "3", name, *value)
    assert result.code == 0, result.err
    saved = load("runs/gan_mlp")["args"]
    saved = {key: str(value) for key, value in saved.items()}
    wanted = {
        "--epochs": ("epochs", "9"),
        "--device": ("device", "auto"),
        "--no-graph": ("graph", "False"),
        "--data-dir": ("data_dir", os.path.abspath("../moved")),
        "--sample-every": ("sample_every", "1"),
        "--tensorboard": ("tensorboard", "True"),
    }
    key, value = wanted[name]
    assert saved[key] == value


def test_what_changes_an_epoch_is_refused(type_in, refused):
    type_in(*small(["gan_mlp"], "--out", "run"))
    options = [
        "--batch-size 8",
        "--seed 3",
        "--arch deep",
        "--lr 0.003",
        "--beta1 0.9",
        "--beta2 0.9",
        "--ema 0.5",
        "--z-dim 50",
        "--r1 2.0",
        "--optimizer sgd",
        "--dataset sample",
        "--out new",
    ]
    for option in options:
        line = ["gan_mlp", "--resume", "run", "--epochs", "3", *option.split()]
        refused(f"{option} does not fit", *line)
    for option in ("--bf16", "--report", "--dry-run"):
        line = ["gan_mlp", "--resume", "run", option]
        refused(f"{option} does not fit", *line)


def test_the_same_value_may_be_typed_again(type_in):
    line = tiny(["gan_mlp"], "--seed", "3")
    type_in(*line)
    result = type_in(*line, "--resume", "--epochs", "3")
    assert result.code == 0, result.err


def test_more_or_fewer_images_are_refused(type_in, refused):
    type_in(*small(["gan_mlp"], "--out", "run"))
    for count in (50, 200):
        folder = Path(f"{count} images")
        folder.mkdir()
        (folder / "train-images-idx3-ubyte").write_bytes(idx(pictures(count)))
        line = ["gan_mlp", "--resume", "run", "--epochs", "3"]
        line += ["--data-dir", str(folder)]
        if count == 50:
            refused("more or fewer images", *line)
        else:  # as when rows had been lost: it cannot be told apart
            assert "has lost lines" in type_in(*line).out


# ---- from which files


def test_a_damaged_checkpoint_is_refused(type_in, refused):
    type_in(*small(["gan_mlp"], "--out", "run"))
    path = Path("run/ckpt.pt")
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = bytearray(whole)
    flipped[middle] ^= 0x40
    for body in (whole[:middle], bytes(flipped), b""):
        path.write_bytes(body)
        refused("damaged", "gan_mlp", "--resume", "run", "--epochs", "3")


def test_a_checkpoint_of_other_networks_is_refused(type_in, refused):
    type_in(*small(["gan_mlp"], "--out", "run"))
    saved = load("run")
    parts = ["G", "D", "average", "opt_G", "opt_D"]
    for part in parts:
        torch.save(saved | {part: {"fc1.weight": torch.zeros(3)}}, "run/ckpt.pt")
        refused("does not fit", "gan_mlp", "--resume", "run", "--epochs", "3")


def test_a_checkpoint_cannot_bring_code(type_in, refused):
    type_in(*small(["gan_mlp"], "--out", "run"))
    torch.save(load("run") | {"extra": print}, "run/ckpt.pt")
    refused("no checkpoint", "gan_mlp", "--resume", "run", "--epochs", "3")
    torch.save([1], "run/ckpt.pt")
    refused("no checkpoint", "gan_mlp", "--resume", "run", "--epochs", "3")


def test_a_run_of_an_older_version_goes_on(type_in):
    """It may lack options that came since, and have others that are no more."""
    family = ["gan_cnn", "--arch", "tiny"]
    type_in(*tiny(family))
    type_in(*tiny(family, "--epochs", "1"))
    older = load("runs/gan_cnn-2")
    for name in ("graph", "sample_every", "ema", "new_z"):
        del older["args"][name]
    older["args"] |= {"lr_falls_after": 40, "r1_grows_after": 20, "gone": "since"}
    torch.save(older, "runs/gan_cnn-2/ckpt.pt")
    result = type_in("gan_cnn", "--resume", "runs/gan_cnn-2", "--epochs", "2")
    assert result.code == 0, result.err
    one = load("runs/gan_cnn", "g.pt")["state_dict"]
    other = load("runs/gan_cnn-2", "g.pt")["state_dict"]
    for name, weight in one.items():
        assert torch.equal(weight, other[name]), name


# ---- and losses.csv


def add_lines(table, text):
    with table.open("a") as file:
        file.write(text)


def test_rows_after_the_checkpoint_are_forgotten(type_in):
    type_in(*small(["gan_mlp"]))
    type_in(*small(["gan_mlp"], "--epochs", "1"))
    table = Path("runs/gan_mlp-2/losses.csv")
    # They are longer than what will stand in their place, and the last was cut off.
    add_lines(table, "2,7,0.5000000001,0.5,0.5,0.5\n" * 9 + "2,8,0.")
    type_in("gan_mlp", "--resume", table.parent, "--epochs", "2")
    same_bytes("runs/gan_mlp-2", "runs/gan_mlp")


@pytest.mark.parametrize("left, lost", [(9, 8), (1, 0), (0, 0)])
def test_lost_rows_are_told(left, lost, type_in, replace_step):
    replace_step("gan_mlp", lambda _: GOOD)
    type_in(*small(["gan_mlp"], "--out", "run"))
    table = Path("run/losses.csv")
    lines = table.read_text().splitlines(keepends=True)
    half_a_line = "1,9,0."
    table.write_text("".join(lines[:left]) + half_a_line)
    result = type_in("gan_mlp", "--resume", "run", "--epochs", "3")
    assert result.code == 0
    assert f"losses.csv has lost lines: {lost} of 12" in result.out
    rows = read("run")
    assert [row["step"] for row in rows[-6:]] == [str(n) for n in range(13, 19)]
    assert len(rows) == lost + 6


def test_a_new_table_has_lost_nothing(type_in, replace_step):
    replace_step("gan_mlp", lambda _: GOOD)
    out = type_in(*small(["gan_mlp"])).out
    out += type_in("gan_mlp", "--resume", "--epochs", "3").out
    assert "has lost lines" not in out
