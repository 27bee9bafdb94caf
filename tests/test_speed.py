"""benchmarks/speed.py: what it counts, and how it measures."""

import sys
from types import SimpleNamespace

import pytest
from conftest import HERE
from torchvision import datasets

sys.path.insert(0, str(HERE / "benchmarks"))
import speed

import common
import wgan


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A few images in the folder "many", for batches of two."""
    monkeypatch.setattr(speed, "BATCH", 2)
    with monkeypatch.context() as patch:
        patch.setattr(common, "find_images", lambda dataset: common.SAMPLE)
        speed.write_images(tmp_path / "many", 10)
    return tmp_path / "many"


# ---- counting


def test_cost_of_two_layers():
    parameters, multiply_adds = speed.cost("gan_mlp --arch basic")
    weights_of_G = 100 * 128 + 128 * 784
    weights_of_D = 784 * 128 + 128 * 1
    biases = (128 + 784) + (128 + 1)
    assert parameters == weights_of_G + weights_of_D + biases
    assert multiply_adds == weights_of_G + weights_of_D


def test_depthwise_convolutions_cost_less():
    assert speed.cost("gan_cnn --arch conv4") == (1_270_274, 23_097_344)
    assert speed.cost("gan_cnn --arch separable") == (507_330, 5_157_888)


# ---- the loops


@pytest.mark.parametrize("name", speed.CASES)
def test_loops_run_for_every_network(name, data, capsys):
    command, _ = speed.CASES[name]
    speed.run_usual(command, data, "cpu")
    assert capsys.readouterr().out == "epoch 0\nepoch 1\n"
    speed.run_floor(command, data, "cpu", bf16=False)
    lines = capsys.readouterr().out.splitlines()
    lines = [line for line in lines if line.startswith("epoch ")]
    assert len(lines) == 2


def test_the_bare_step_has_the_settings_of_the_script():
    assert speed.step_settings("gan_cnn --arch tiny") == {"r1": 0.1, "new_z": False}
    clipped = speed.step_settings("wgan")
    ours, _ = wgan.SETTINGS["clip"]
    for name in ("n_critic", "clip", "gp", "new_z"):
        assert clipped[name] == ours[name], name
    penalised = speed.step_settings("wgan --gp 10")
    assert penalised["gp"] == 10
    assert penalised["n_critic"] == 2


def test_an_epoch_of_steps(data, monkeypatch):
    """Five steps to warm up, then as many as the images are enough for: two."""
    batches = []

    def step(G, D, opt_G, opt_D, real, z, **settings):
        batches.append(len(real))
        assert len(z) == len(real)
        return real.mean()

    monkeypatch.setattr(wgan, "train_step", step)
    speed.run_floor("wgan --gp 10", data, "cpu", bf16=False)  # the critic's 2 batches
    assert batches == [2 * 2] * (5 + 2)


# ---- measuring


def test_images_are_written_for_all_to_read(data):
    pixels = common.read_idx(common.find_images("fashion-mnist", data))
    assert pixels.equal(common.read_idx(common.SAMPLE)[:10])
    assert len(datasets.FashionMNIST(data)) == 10


def test_seconds_from_line_to_line(monkeypatch):
    clock = iter([100.0, 103.0, 107.0])
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(clock))
    program = """
import time
for number in (1, 2, 3, 4):
    print("step", number)
    print("epoch", number)
    if number == 3:
        time.sleep(600)
"""
    seconds, memory = speed.watch(["-c", program], epochs=2)
    assert seconds == (107 - 100) / 2
    if sys.platform == "linux":
        assert 5 < memory < 100  # of an empty Python


def test_a_command_that_ends_says_why():
    program = "print('epoch 1'); print(6 * 7)"
    with pytest.raises(common.UserError, match="ended:\nepoch 1\n42"):
        speed.watch(["-c", program])


def test_a_script_is_measured_twice(tmp_path, monkeypatch):
    """0.5 seconds for an epoch's end, and 0.001 for each of its images."""
    taken = {"few": 0.5 + speed.FEW / 1000, "many": 0.5 + 4 * speed.FEW / 1000}
    commands = []

    def watch(command, epochs):
        commands.append(command)
        return taken[command[-1].name], 900

    monkeypatch.setattr(speed, "watch", watch)
    images = 4 * speed.FEW
    found = speed.measure_script(
        HERE, "gan_mlp --arch deep", images, tmp_path, "cpu", bf16=True
    )
    assert found == (pytest.approx(60.5), 900)
    line = commands[0]
    assert line[:4] == [HERE / "gan_mlp.py", "--arch", "deep", "--bf16"]
    assert line[line.index("--batch-size") + 1] == 128


def test_a_loop_is_scaled_to_an_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "watch", lambda command: (1.5, 900))
    found = speed.measure_loop("usual", "wgan", 6000, tmp_path, "cpu")
    assert found == (15, 900)


def test_who_takes_turns(monkeypatch):
    monkeypatch.setattr(speed.torch.cpu, "get_capabilities", dict)
    assert list(speed.contenders(None, "cpu")) == ["usual", "own", "floor"]
    assert list(speed.contenders(HERE, "cpu")) == ["own", "other"]
    on_cuda = ["usual", "own", "own bf16"]
    assert list(speed.contenders(None, "cuda")) == on_cuda


def test_rounds_are_medians(monkeypatch):
    rounds = iter([(3, 70), (1, 90), (2, 80)])

    def contenders(against, device):
        return {"own": lambda *_: next(rounds)}

    monkeypatch.setattr(speed, "contenders", contenders)
    monkeypatch.setattr(speed, "write_images", lambda *_: None)
    args = SimpleNamespace(device="cpu", against=None, rounds=3)
    assert speed.measure("basic", args) == ({"own": 2}, {"own": 80})


# ---- the tables

SECONDS = {
    "usual": 30.0,
    "own": 12.0,
    "floor": 9.0,
    "own bf16": 10.0,
    "floor bf16": 5.0,
}
MEMORY = {"usual": 800.0, "own": 900.0, "own bf16": 950.0}


def test_row_beside_the_usual_loop():
    args = SimpleNamespace(against=None, device="cpu")
    row = speed.make_row(SECONDS, MEMORY, args)
    assert " | ".join(row) == (
        "usual s/epoch | own s/epoch | images/s | usual : own | floor : own | "
        "bf16 s/epoch | usual : bf16 | floor : bf16 | MB usual | MB own | MB bf16"
    )
    assert " | ".join(row.values()) == (
        "30.0 | 12.00 | 5,000 | 2.50 | 0.75 | 10.00 | 3.00 | 0.50 | 800 | 900 | 950"
    )


def test_row_without_bfloat16():
    args = SimpleNamespace(against=None, device="cpu")
    seconds = {"usual": 30.0, "own": 12.0, "floor": 9.0}
    row = speed.make_row(seconds, {"usual": 800, "own": 900}, args)
    cells = " | ".join(row.values())
    assert cells == "30.0 | 12.00 | 5,000 | 2.50 | 0.75 | - | - | - | 800 | 900 | -"


def test_row_on_cuda():
    args = SimpleNamespace(against=None, device="cuda")
    seconds = {"usual": 30.0, "own": 12.0, "own bf16": 10.0}
    row = speed.make_row(seconds, MEMORY, args)
    assert " | ".join(row) == (
        "usual s/epoch | own s/epoch | images/s | usual : own | "
        "bf16 s/epoch | usual : bf16"
    )


def test_row_beside_another_checkout():
    args = SimpleNamespace(against=HERE, device="cpu")
    seconds = {"own": 10.0, "other": 12.0, "own bf16": 8.0, "other bf16": 4.0}
    row = speed.make_row(seconds, {"own": 900, "other": 800}, args)
    cells = " | ".join(row.values())
    assert cells == "10.00 | 12.00 | 1.200 | 8.00 | 4.00 | 0.500 | 900 | 800"


def test_the_picture_is_drawn(tmp_path):
    without_bf16 = {"usual": 30.0, "own": 12.0, "floor": 9.0}
    measured = {"basic": SECONDS, "deep": without_bf16}
    speed.draw(measured, tmp_path / "speed.png")
    assert (tmp_path / "speed.png").stat().st_size > 1000
