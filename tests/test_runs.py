"""What a run says and leaves behind, from the commands that a user types."""

import contextlib
import importlib
import os
import pty
import sys
import termios
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import (
    FAMILIES,
    FILES,
    SCRIPTS,
    columns,
    load,
    read,
    same_bytes,
    small,
    start,
    tiny,
    tree,
)

import common

each_script = pytest.mark.parametrize("script", SCRIPTS)
each_family = pytest.mark.parametrize("family", FAMILIES, ids=" ".join)
# Of every step with these losses, none is suspect.
GOOD = [1.0, 1.0, 0.5, 0.5, 0.5]


# ---- the folder


@each_family
def test_every_network_trains_and_its_generator_draws(family, type_in):
    script, _, arch, *_ = family
    result = type_in(*tiny(family))
    assert result.code == 0
    assert result.err == ""
    assert "epoch 1/2" in result.out
    assert "epoch 2/2" in result.out

    saved = load(f"runs/{script}", "g.pt")
    assert saved["script"] == script
    assert saved["arch"] == arch
    assert saved["z_dim"] == 100
    assert saved["epoch"] == 2
    assert saved["args"]["dataset"] == "fashion-mnist"
    assert saved["args"]["epochs"] == 2
    G, _ = importlib.import_module(script).ARCHS[arch]
    assert saved["state_dict"].keys() == G().state_dict().keys()

    drawing = ["--ckpt", "g.pt", "--positions", "7", "--values", "3"]
    assert type_in("perturb", *drawing).code == 0
    unchanged, changed = read(f"runs/{script}", "perturb.csv")
    assert float(unchanged["change"]) == 0
    assert float(changed["change"]) > 0


def test_the_same_command_learns_the_same_in_a_folder_of_its_own(type_in):
    for _ in range(3):
        type_in(*small(["gan_mlp"]))
    folders = sorted(path.name for path in Path("runs").iterdir())
    assert folders == ["gan_mlp", "gan_mlp-2", "gan_mlp-3"]
    same_bytes("runs/gan_mlp", "runs/gan_mlp-2")
    same_bytes("runs/gan_mlp", "runs/gan_mlp-3")


def test_another_seed_learns_something_else(type_in):
    type_in(*small(["gan_mlp"]))
    type_in(*small(["gan_mlp"], "--seed", "1"))
    one = load("runs/gan_mlp", "g.pt")["state_dict"]
    other = load("runs/gan_mlp-2", "g.pt")["state_dict"]
    assert not torch.equal(one["fc1.weight"], other["fc1.weight"])


def test_out_is_the_folder_and_is_made(type_in):
    result = type_in(*small(["gan_mlp"], "--out", "my/first run"))
    assert "finished: my/first run" in result.out
    assert Path("my/first run/ckpt.pt").exists()
    assert not Path("runs").exists()


@each_script
def test_a_dry_run_is_two_steps_of_everything(script, type_in, drawn):
    line = [script, "--dry-run", "--dataset", "sample", "--batch-size", "4"]
    result = type_in(*line, "--epochs", "7", "--out", "run")
    assert result.code == 0
    assert result.err == ""
    folder = Path(f"runs/{script}-dry-run")
    assert {path.name for path in folder.iterdir()} == {*FILES, "samples"}
    assert [row["step"] for row in read(folder)] == ["1", "2"]
    # The folder that was named is free for the run that was tried.
    assert not Path("run").exists()


def test_a_dry_run_overwrites_no_other_and_is_not_taken_for_the_newest(type_in):
    line = small(["gan_mlp"], "--dry-run")
    type_in(*line)
    before = tree("runs")
    type_in(*line)
    assert tree("runs").items() > before.items()
    assert Path("runs/gan_mlp-dry-run-2/g.pt").exists()
    assert "nothing to resume" in type_in("gan_mlp", "--resume").err


# ---- what it says


@each_script
@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_before_training_it_shows_the_networks_and_what_it_uses(
    script, precision, type_in, replace_step
):
    replace_step(script, lambda _: GOOD)
    bf16 = "--bf16" if precision == "bfloat16" else "--no-bf16"
    out = type_in(*tiny([script], bf16, "--epochs", "1")).out
    module = importlib.import_module(script)
    args = load(f"runs/{script}")["args"]
    G, D = module.ARCHS[args["arch"]]
    names = [name for name in module.PLAIN if name not in ("bf16", "gp")]
    settings = ", ".join(f"{name} {args[name]}" for name in names)
    used = f"cpu, {precision}; {settings}\n"
    assert f"{G()}\n{D()}\n{used}" in out
    assert out.index(used) < out.index("epoch 1/1")


def test_of_two_optimizers_and_two_bounds_only_what_is_used_is_shown(
    type_in, replace_step
):
    replace_step("gan_mlp", lambda _: GOOD)
    replace_step("wgan", lambda _: GOOD)
    sgd = type_in(*tiny(["gan_mlp"], "--optimizer", "sgd")).out
    assert "optimizer sgd" in sgd
    assert "beta1" not in sgd
    penalty = type_in(*tiny(["wgan"], "--gp", "10")).out
    assert "gp 10.0" in penalty
    assert "clip" not in penalty


def test_auto_is_bfloat16_on_a_cpu_with_the_instructions(
    type_in, replace_step, monkeypatch
):
    replace_step("gan_cnn", lambda _: GOOD)
    for precision, has in (("bfloat16", True), ("float32", False)):
        has_bf16 = {"avx512_bf16": has}
        monkeypatch.setattr(torch.cpu, "get_capabilities", has_bf16.copy)
        line = tiny(["gan_cnn", "--arch", "tiny"], "--out", precision)
        assert f"cpu, {precision}; " in type_in(*line).out
        assert load(precision)["args"]["bf16"] is has


@each_script
def test_its_last_lines_are_the_folder_and_the_next_command(
    script, type_in, replace_step
):
    replace_step(script, lambda _: GOOD)
    result = type_in(*tiny([script], "--out", "my run", "--epochs", "1"))
    *_, finished, next_command = result.out.splitlines()
    assert finished == "finished: my run"
    assert next_command == 'next: python perturb.py --ckpt "my run/g.pt"'


def test_help_gives_each_default(type_in):
    out = type_in("dcgan", "--help").out
    assert "entries of z (100)" in out
    assert "of random numbers (0)" in out
    assert "the network (transpose)" in out
    titles = [line for line in out.splitlines() if line.startswith("settings ")]
    rows = [line.split() for line in out.splitlines() if line.startswith("transpose ")]
    assert titles[0].split()[1:4] == ["epochs", "batch_size", "lr"]
    assert rows[0][1:5] == ["20", "64", "0.002", "5"]


# ---- the losses, with a training step that learns nothing


@each_script
def test_losses_csv_has_those_of_each_step(script, type_in, replace_step):
    names = ["loss_D", "loss_G", "D(x)", "D(G(z))"]
    if script == "wgan":
        names = ["distance", *names]
    replace_step(script, lambda step: [step, step / 8, step * 10, 1 - step, 1 / 3])
    type_in(*small([script]))
    text = Path("runs", script, "losses.csv").read_bytes()
    assert text.startswith(f"epoch,step,{','.join(names)}\n1,1,".encode())
    assert b"\r" not in text
    step = np.arange(1, 13)
    epoch = np.repeat([1, 2], 6)
    losses = [step, step / 8, step * 10, 1 - step, np.full(12, 1 / 3)]
    wanted = np.transpose([epoch, step, *losses[: len(names)]])
    np.testing.assert_allclose(columns(f"runs/{script}"), wanted, rtol=1e-5)


@each_script
def test_a_line_on_the_screen_has_the_means_of_an_epoch(script, type_in, replace_step):
    replace_step(script, lambda step: [step, step / 8, step * 10, 1 - step, 1 / 3])
    out = type_in(*small([script])).out
    means = [9.5, 9.5 / 8, 95.0, 1 - 9.5, 1 / 3]  # of steps 7 to 12
    names = importlib.import_module(script).LOSSES
    line = "  ".join(f"{name} {mean:.3f}" for name, mean in zip(names, means))
    assert f"epoch 2/2  {line}  " in out


@pytest.mark.parametrize("script", ["gan_mlp", "gan_cnn", "dcgan"])
@pytest.mark.parametrize(
    "D_real, D_fake, is_said",
    [(0.995, 0.005, True), (0.985, 0.005, False), (0.995, 0.015, False)],
)
def test_it_says_if_D_is_never_wrong(
    script, D_real, D_fake, is_said, type_in, replace_step
):
    replace_step(script, lambda _: [0.1, 9.0, D_real, D_fake])
    out = type_in(*tiny([script], "--epochs", "1")).out
    assert ("D is never wrong" in out) == is_said


# ---- that it is alive


def test_in_a_file_each_line_is_there_at_once(home, tmp_path, monkeypatch):
    """Python would keep the lines back until there are some thousand letters."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    line = ["gan_mlp", "--dataset", "sample", "--batch-size", "500", "--epochs", "9999"]
    log = tmp_path / "log.txt"
    with log.open("w") as file:
        process = start(*line, stdout=file, stderr=file)
    try:
        deadline = time.monotonic() + 300
        while "epoch 1/9999" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    assert len(log.read_text()) < 4096


def test_without_a_terminal_a_line_comes_if_a_minute_had_none(
    type_in, monkeypatch, replace_step
):
    seconds = 0

    def take_25_seconds(_):
        nonlocal seconds
        seconds += 25
        return GOOD

    replace_step("gan_mlp", take_25_seconds)
    clock = SimpleNamespace(monotonic=lambda: seconds)
    monkeypatch.setattr(common, "time", clock)
    lines = type_in(*small(["gan_mlp"])).out.splitlines()
    signs = [line.split("  ")[0] for line in lines if line[:5] in ("step ", "epoch")]
    assert signs == [
        "step 3 of 12",
        "step 6 of 12",
        "epoch 1/2",
        "step 9 of 12",
        "step 12 of 12",
        "epoch 2/2",
    ]


def test_a_resumed_run_counts_its_steps_from_the_first(type_in, monkeypatch):
    type_in(*small(["gan_mlp"], "--epochs", "1"))
    monkeypatch.setattr(common.SignOfLife, "SECONDS", -1)
    out = type_in("gan_mlp", "--resume", "--epochs", "2").out
    assert "step 7 of 12\n" in out
    assert "step 6 of 12\n" not in out


def test_in_a_terminal_a_bar_goes_over_the_whole_run(home):
    screen, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    process = start(*small(["gan_mlp"]), stdout=terminal, stderr=terminal)
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # which a terminal ends with
        while more := os.read(screen, 4096):
            shown += more
    os.close(screen)
    assert process.wait() == 0, shown
    assert b"| 0/12 [00:00<?" in shown
    assert b"epoch 2/2" in shown
    assert b"| 12/12 [" in shown
    assert b"step 12 of 12" not in shown


# ---- the machine


def test_auto_is_cuda_or_else_the_cpu(monkeypatch):
    monkeypatch.setattr(common, "say_if_busy", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert common.prepare_device("auto") == torch.device("cpu")
    asked = []

    def empty(_, device):
        asked.append(device)
        return SimpleNamespace(device=torch.device("meta"))

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "empty", empty)
    common.prepare_device("auto")
    assert asked == ["cuda"]


def test_it_says_if_threads_do_not_get_their_cores(monkeypatch, capsys):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    for cores, is_said in (4.0, False), (3.5, False), (2.5, True):
        seconds = iter([0, 1, 1])
        cpu_seconds = iter([0, cores])
        clock = SimpleNamespace(
            perf_counter=seconds.__next__,
            process_time=cpu_seconds.__next__,
        )
        monkeypatch.setattr(common, "time", clock)
        common.say_if_busy()
        said = capsys.readouterr().out
        assert ("4 threads get the time of" in said) == is_said, (cores, said)
    assert "OMP_NUM_THREADS to 2" in said


# ---- TensorBoard


def test_tensorboard_has_every_loss_and_the_samples(type_in):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    type_in(*small(["gan_mlp"], "--tensorboard", "--epochs", "1"))
    type_in("gan_mlp", "--resume", "--epochs", "2")
    events = EventAccumulator("runs/gan_mlp/tensorboard").Reload()
    for name in ("loss_D", "loss_G", "D(x)", "D(G(z))"):
        found = [event.value for event in events.Scalars(name)]
        wanted = [float(row[name]) for row in read("runs/gan_mlp")]
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
        numbers = [event.step for event in events.Scalars(name)]
        assert numbers == list(range(1, 13))
    assert events.Tags()["images"] == ["samples"]


def test_tensorboard_is_imported_only_when_asked_for(type_in, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # as if missing
    assert type_in(*tiny(["gan_mlp"])).code == 0
    with pytest.raises(ModuleNotFoundError):
        type_in(*tiny(["gan_mlp"], "--tensorboard"))
