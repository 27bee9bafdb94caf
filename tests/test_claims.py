"""benchmarks/claims.py: its rule, each of its measures by hand, all of it in a dry run, and the
pages' numbers against the program's."""

import json
import os
import re
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import HERE
from torch import nn

sys.path.insert(0, str(HERE / "benchmarks"))
import claims
import edits
import evidence
import figures
import measures
import quality

import gan_mlp


# ---- the rule
@pytest.mark.parametrize(
    ("yes", "no", "said"),
    [
        (8, 0, "holds"),
        (7, 1, "holds"),
        (6, 2, "no rule"),
        (2, 6, "no rule"),
        (1, 7, "does not hold"),
        (0, 8, "does not hold"),
        (3, 0, "holds"),
        (2, 1, "no rule"),
        (0, 3, "does not hold"),
        (6, 1, "no rule"),  # of seven, all
        (14, 2, "holds"),
        (13, 3, "no rule"),
        (2, 0, "points that way"),
        (1, 0, "points that way"),
        (0, 1, "points the other way"),
        (1, 1, "no rule"),
        (0, 0, "not trained yet"),
    ],
)
def test_verdict(yes, no, said):
    assert evidence.verdict([True] * yes + [False] * no) == said


def test_a_condition_is_met():
    numbers = {"FD of a": 10.0, "FD of b": 20.0, "brightness(-1)": 5.0, "D(G(z))": 0.1}
    met = [
        "FD of a < FD of b",
        "FD of a < 0.51 * FD of b",
        "FD of a < FD of b - 9",
        "FD of a > brightness(-1) + 4",
        "D(G(z)) < 0.2 and FD of b > 19",
        "D(G(z)) > -1",
    ]
    unmet = [
        "FD of a > FD of b",
        "FD of a < 0.5 * FD of b",
        "FD of a < FD of b - 10",
        "FD of a > brightness(-1) + 5",
        "D(G(z)) < 0.2 and FD of b > 20",
    ]
    assert all(evidence.is_met(condition, numbers) for condition in met)
    assert not any(evidence.is_met(condition, numbers) for condition in unmet)
    with pytest.raises(ValueError, match="FD of c"):
        evidence.is_met("FD of c > 1", numbers)


def test_which_epochs_are_compared(tmp_path):
    def has(name, *epochs):
        folder = tmp_path / f"{name}-seed0"
        folder.mkdir()
        for epoch in epochs:
            (folder / f"g-{epoch:03d}.pt").touch()

    def found(trained):
        return evidence.comparisons(SimpleNamespace(trained=trained), 0, tmp_path)

    has("deep", 2, 5, 20)
    has("upsample", 2, 5)
    assert found("deep") == [(2,), (5,), (20,)]
    assert found("deep@5") == [(5,)]
    assert found("deep@50") == []
    assert found("deep<=10") == [(2,), (5,)]
    assert found("deep upsample") == [(2, 2), (5, 5)]  # at the same age
    assert found("deep@20 upsample") == [(20, 2), (20, 5)]
    assert found("deep@5 deep") == [(5, 20)]  # not with itself, nor with a younger one
    assert found("deep nothing") == []


def test_training_goes_on_where_it_stopped(tmp_path, monkeypatch):
    """The commands, with a stand-in for the script that only counts its epochs."""
    typed = []
    folder = tmp_path / "edit-seed1"

    def stand_in(command, *_):
        words = [str(word) for word in command]
        typed.append(
            " ".join(words[1:]).replace(str(HERE), "").replace(str(tmp_path), "")
        )
        folder.mkdir(exist_ok=True)
        epoch = int(words[words.index("--epochs") + 1])
        for name in ("g.pt", "ckpt.pt"):
            (folder / name).write_text(str(epoch))

    monkeypatch.setattr(evidence, "run_and_log", stand_in)
    monkeypatch.setattr(
        evidence.common, "load", lambda path: {"epoch": int(path.read_text())}
    )
    training = evidence.Training(
        "benchmarks/edits.py hidden-relu --report", (2, 5, 30), 60
    )
    args = SimpleNamespace(
        trainings={"edit": training},
        root=tmp_path,
        epochs=5,
        device="cpu",
        data_dir=None,
    )
    assert evidence.minutes_left("edit", 1, 30, args) == 5
    evidence.train("edit", 1, 30, args, None)
    edit = "/benchmarks/edits.py hidden-relu"
    start = "--report --dataset fashion-mnist --seed 1 --out /edit-seed1"
    assert typed == [
        f"{edit} --epochs 2 --device cpu {start}",
        f"{edit} --epochs 5 --device cpu --resume /edit-seed1",
    ]
    assert (folder / "g-002.pt").read_text() == "2"
    assert (folder / "g-005.pt").read_text() == "5"
    assert evidence.minutes_left("edit", 1, 30, args) == 0
    evidence.train("edit", 1, 30, args, None)
    assert len(typed) == 2  # nothing is trained again
    (folder / "g-005.pt").unlink()  # stopped before the copy
    evidence.train("edit", 1, 30, args, None)
    assert len(typed) == 2 and (folder / "g-005.pt").read_text() == "5"


def test_when_one_job_breaks_the_scripts_of_the_others_are_stopped(
    tmp_path, monkeypatch
):
    waits = [sys.executable, "-c", "import time; time.sleep(60)"]

    def train(name, seed, last, args, bar):
        if name == "waits":
            evidence.run_and_log(waits, tmp_path / "waits.log", bar, seconds=1)
        while not evidence.RUNNING:
            time.sleep(0.01)
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(evidence, "train", train)
    monkeypatch.setattr(evidence, "minutes_left", lambda *_: 1)
    args = SimpleNamespace(jobs=2, dry_run=False)
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        evidence.train_all({("breaks", 0): 1, ("waits", 0): 1}, args)
    assert time.monotonic() - began < 30
    assert not evidence.RUNNING


def test_a_training_of_which_nothing_can_be_measured_says_neither_yes_nor_no():
    part = evidence.Part("better", "deep", None, "FD < 100")
    measured = records("deep@5", 90.0, 95.0)
    measured.append({"of": "deep@5", "seed": 2, "numbers": {}})
    found = evidence.conclude(part, measured)
    assert (found.verdict, found.seeds) == ("points that way", [0, 1])


def test_no_training_goes_further_than_its_claims_ask():
    def found(*only):
        args = SimpleNamespace(seeds=[9])
        return claims.choose_trainings(claims.choose_claims(only), args)

    assert found("B2") == {("basic", 9): 3, ("conv7", 9): 3}
    assert found("C3") == {("basic", 9): 10}
    assert found("D18") == {("deep", 9): 5, ("deep-no-bn", 9): 5}
    assert found("D3") == {("deep", 9): 50}
    assert found("D3", "D18")["deep", 9] == 50
    assert found("D1")["deep", 9] == 200


def records(of, *numbers):
    return [
        {"of": of, "seed": n, "numbers": {"FD": each}} for n, each in enumerate(numbers)
    ]


def test_a_conclusion_takes_what_most_seeds_have_and_then_the_oldest():
    part = evidence.Part("better", "deep", None, "FD < 100")
    three = records("deep@5", 90.0, 95.0, 120.0)
    one = records("deep@20", 50.0)
    found = evidence.conclude(part, three + one)
    assert (found.verdict, found.of, found.seeds) == ("no rule", "deep@5", [0, 1, 2])
    found = evidence.conclude(part, three + records("deep@20", 50.0, 60.0, 70.0))
    assert (found.verdict, found.of) == ("holds", "deep@20")
    found = evidence.conclude(part, three, seeds=[0, 2])
    assert (found.answers, found.numbers) == ([True, False], {"FD": [90.0, 120.0]})
    assert evidence.conclude(part, []).verdict == "not trained yet"


def test_new_numbers_replace_their_own_and_leave_the_others():
    old = records("deep@5", 1.0, 2.0)
    new = [{"of": "deep@5", "seed": 1, "numbers": {"FD": 3.0}}]
    new += records("deep@20", 4.0)
    merged = evidence.merge(old, new)
    numbers = [(each["of"], each["seed"], each["numbers"]["FD"]) for each in merged]
    assert numbers == [("deep@20", 0, 4.0), ("deep@5", 0, 1.0), ("deep@5", 1, 3.0)]


def test_words():
    assert evidence.span([585.14, 703.7]) == "585 to 704"
    assert evidence.span([0.031, 0.031]) == "0.031"
    assert evidence.rounded(-0.0001) == "0.000"
    assert evidence.seeds_text([0, 1, 2]) == "seeds 0 to 2"
    assert evidence.seeds_text([0, 2]) == "seeds 0, 2"
    claim = evidence.Claim(
        "D1", "", [evidence.Part("better", "deep", None, "FD < 100")]
    )
    old = {"what": "of before", "measured": records("deep@5", 1.0)}
    new = {"what": "better", "measured": records("deep@5", 90.0, 95.0, 12.34)}
    measured = {"D1": [old, new]}
    said = evidence.verdict_text(claim, measured)
    assert said == "better: **holds** (3 of 3): FD 12.3 to 95.0"
    assert evidence.rests_on(claim, measured) == "deep (5 epochs): seeds 0 to 2"


# ---- measures of losses
@pytest.fixture
def run(tmp_path):
    """A run of 3 epochs of 6 steps, whose G paints every pixel with a 20th of z[0]."""

    class G(nn.Module):
        def forward(self, z):
            return (z[:, 0] / 20).view(-1, 1, 1, 1).expand(-1, 1, 28, 28)

    class Net(nn.Module):
        """A classifier: bright is 1 (trousers), dark is 0."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def features(self, x):
            return x.mean((1, 2, 3))[:, None]

        def last(self, features):
            return torch.cat([-features, features], dim=1)

    loss_D = [1, 1, 2, 2, 3, 3] + [4] * 6 + [5, 6, 5, 6, 5, 6]  # means 2, 4, 5.5
    loss_G = [0, 0, 9, 9, 3, 3] + [5] * 6 + [4] * 6  # means 4, 5, 4
    lines = ["epoch,step,loss_D,loss_G,distance"]
    for step, (d, g) in enumerate(zip(loss_D, loss_G)):
        lines.append(f"{step // 6 + 1},{step + 1},{d},{g},{d}")
    (tmp_path / "losses.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "g-003.pt").touch()
    judge = SimpleNamespace(net=Net(), count=1000)
    run = measures.Run("basic", tmp_path, 3, judge)
    run.__dict__["G"] = G()
    return run


def test_measures_of_losses(run):
    found = measures.losses("loss_D", epochs=(1, "last"))(run)
    assert found == {"loss_D in epoch 1": 2, "loss_D in the last epoch": 5.5}
    found = measures.swing("loss_D", epochs=(2, 3))(run)
    assert found == {"swing of loss_D in epoch 2": 0, "swing of loss_D in epoch 3": 0.5}
    found = measures.thirds("loss_G")(run)
    assert found == {"first third": 0, "second third": 9, "last third": 3}
    assert measures.falls("loss_G")(run) == {
        "share of epochs in which loss_G falls": 0.5
    }
    assert list(measures.same_way(run).values()) == [0.5]  # up and up, then up and down
    found = measures.settles("loss_D")(run)
    assert found == {"change of loss_D at first": 2, "change of loss_D at last": 1.5}
    assert measures.half_of_loss_D(run) == {"half of loss_D": 2.75, "loss_G": 4}
    assert measures.jumps(run) == {"jump": pytest.approx(1 / 5.5)}


def test_losses_end_at_the_epoch_that_is_looked_at(run):
    young = measures.Run("basic", run.folder, 2, None)
    assert measures.losses("loss_D", epochs=("last",))(young) == {
        "loss_D in the last epoch": 4
    }
    assert young.means("loss_D") == [2, 4]
    assert list(measures.same_way(young).values()) == [1]  # up and up


def test_names_of_numbers_of_several_runs():
    def run_with(name, epoch, number):
        return SimpleNamespace(name=name, epoch=epoch, number=lambda _: number)

    old = run_with("basic", 9, 1.0)
    other = run_with("tiny", 3, 2.0)
    young = run_with("basic", 3, 3.0)
    measure = measures.images("FD")
    assert measure(old) == {"FD": 1}
    assert measure(other, old) == {"FD of tiny": 2, "FD of basic": 1}
    assert measure(young, old) == {"FD, earlier": 3, "FD, later": 1}


def test_seconds_are_those_of_the_fastest_epoch(run, tmp_path):
    log = tmp_path.with_name(f"{tmp_path.name}.log")
    log.write_text(
        "epoch 1/2  loss_D 1.0  12.50 s\nepoch 2/2  loss_D 9.0  11.25 s\nother 1 s\n"
    )
    assert measures.seconds(run) == {"seconds for an epoch": 11.25}


# ---- measures of images
def test_grain_is_noise_and_no_edge():
    dot = torch.full((1, 1, 5, 5), -1.0)
    edge = dot.clone()
    dot[0, 0, 2, 2] = 1  # 2 away from its surroundings, 1 pixel of 25
    edge[:, :, :, 2:] = 1
    assert quality.grain(torch.cat([dot, edge])).tolist() == pytest.approx([2 / 25, 0])


def test_outlines_are_blurred_by_blur_and_not_by_noise():
    edge = torch.full((1, 1, 9, 9), -1.0)
    edge[:, :, :, 4:] = 1
    noisy = edge.clone()
    noisy[0, 0, 2, 1] = 1
    thin = torch.full((1, 1, 9, 9), -1.0)
    thin[:, :, :, 4] = 0.0
    assert quality.outlines(noisy) == pytest.approx(quality.outlines(edge))
    assert quality.sharpness(noisy) > 1.1 * quality.sharpness(edge)
    assert quality.outlines(thin) == 0  # a line of one pixel is as grain


def test_squares_without_texture():
    checks = torch.tensor([[0.2, -0.2], [-0.2, 0.2]]).repeat(2, 2)
    flat = torch.zeros(4, 4)
    black = torch.full((4, 4), -1.0)  # black squares do not count
    image = torch.cat([torch.cat([checks, flat], 1), torch.cat([black, black], 1)], 0)
    assert quality.smooth_share(image[None, None]) == 0.5
    squares = quality.patches(image[None, None], 4)
    assert torch.equal(squares[0], checks.flatten()) and torch.equal(
        squares[1], flat.flatten()
    )


def test_how_far_images_lie_apart():
    images = torch.cat([torch.full((3, 1, 2, 2), -1.0), torch.ones(3, 1, 2, 2)])
    assert measures.diversity(images) == 255
    assert (
        measures.nearest(torch.tensor([[0.0], [1], [3], [6]])) == 1
    )  # 1, 1, 2, 3: the lower
    pictures = [torch.full((1, 1, 2, 2), value) for value in (0.0, 1, 2, 6)]
    assert measures.unevenness(pictures) == 2  # 1, 1, 4: the mean is 2


def test_single_entries(run):
    # Only z[0] does anything: set to 10 it paints 0.5, before about 0, a mean change of 0.5.
    strongest = measures.change(10, over=max)(run)["change with 10"]
    mean = measures.change(10, over=np.mean)(run)["change with 10"]
    assert strongest == pytest.approx(127.5 / 2, abs=1)
    assert mean == pytest.approx(strongest / 5)
    found = measures.bright_at(0)(run)
    assert [found[f"brightness({value})"] for value in (-1, 5, 10)] == pytest.approx(
        [121.125, 159.375, 191.25]
    )
    assert measures.loop(run) == pytest.approx(found)
    found = measures.bright(10)(run)  # one position of five
    before = found["brightness(unchanged)"]
    assert found["brightness(10)"] == pytest.approx(before + (191.25 - before) / 5)
    found = measures.middle_at(0)(run)
    assert found["middle(10)"] == pytest.approx(191.25)
    assert measures.nearly_black(-20)(run) == {
        "nearly black(unchanged)": 0,
        "nearly black(-20)": pytest.approx(0.2),
    }
    assert measures.strength(run)["weakest entry"] == 0


def test_kinds_and_trousers(run):
    # z[0] = 10 makes all bright, -1 all dark; the other four of five positions do nothing.
    bright = (quality.noise(100, 300)[:, 0] > 0).float().mean().item()
    assert measures.stays(10, 0)(run)["stay of their kind with 10"] == pytest.approx(
        bright
    )
    assert measures.stays(10, 20)(run) == {"stay of their kind with 10": 1}
    bright = (quality.noise(100, 1000)[:, 0] > 0).float().mean().item()
    found = measures.stays(10)(run)["stay of their kind with 10"]
    assert found == pytest.approx((4 + bright) / 5)
    assert measures.trousers(-1)(run) == {"stay trousers with -1": pytest.approx(0.8)}
    assert measures.trousers(10)(run) == {"stay trousers with 10": 1}
    found = measures.position_or_value(run)
    assert found["kind between positions"] > 0.2  # of position 0 against the others
    # position 0 goes to 121.125, 159.375, 191.25, the others stand still
    deviation = np.std([121.125, 159.375, 191.25], ddof=1) / 5
    assert found["brightness between values"] == pytest.approx(deviation, abs=0.01)


def test_what_was_measured_is_kept_until_the_generator_changes(run):
    counted = []
    assert run.remember("a", lambda: counted.append(1) or 5) == 5
    assert run.remember("a", lambda: counted.append(1) or 6) == 5
    assert len(counted) == 1
    newer = run.notes.stat().st_mtime + 10
    os.utime(run.path, (newer, newer))
    assert run.remember("a", lambda: 7) == 7


def test_a_new_number_is_measured_beside_old_notes(run, monkeypatch):
    def pixels(_):
        return {"grain": 2, "outlines": 3}

    monkeypatch.setattr(measures, "IMAGE_NUMBERS", {pixels: ("grain", "outlines")})
    run.remember("pixels", lambda: {"grain": 1})
    assert run.number("grain") == 1
    assert run.number("outlines") == 3
    assert run.number("grain") == 2


def test_scaled_noise(run):
    run.judge.real = torch.rand(100, 1, 28, 28)
    run.judge.grain = quality.grain(run.judge.real)
    run.judge.outlines = quality.outlines(run.judge.real)
    found = measures.scaled(3, "diversity")(run)
    assert set(found) == {"diversity with 1", "diversity with 3"}
    assert found["diversity with 3"] == pytest.approx(
        3 * found["diversity with 1"], rel=0.01
    )


# ---- measures of D
def test_scores(run):
    run.judge.training = torch.ones(10, 1, 28, 28)
    run.judge.real = torch.full((10, 1, 28, 28), 0.5)
    run.__dict__["images"] = torch.full((10, 1, 28, 28), -1.0)
    run.__dict__["saved"] = {"script": "wgan"}
    run.networks = lambda: (None, lambda x: x.mean((1, 2, 3)))
    found = measures.judged_by_D(run)
    assert found["score of training images"] == 1
    assert found["score of G's images"] == -1
    assert found["kept of the lead"] == 0.75  # from -1 to 0.5 of the way from -1 to 1
    assert found["ranked right"] == 1
    # The same of a D that gives probabilities.
    run.saved["script"] = "dcgan"
    run.networks = lambda: (None, lambda x: x.mean((1, 2, 3)).sigmoid())
    assert measures.judged_by_D(run) == pytest.approx(found)
    run.__dict__["images"] = torch.full((10, 1, 28, 28), 2.0)  # there is no lead
    assert np.isnan(measures.judged_by_D(run)["kept of the lead"])


def test_gradients_of_the_two_losses():
    class G(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(0.01))

        def forward(self, z):
            return self.weight.expand(len(z))

    # D says what it sees, 0.01: the slope of -log is 1 / 0.01, of log(1 - x) it is 1 / 0.99.
    identity = nn.Identity()
    assert measures.gradient_norm(G(), identity, measures.minus_log) == pytest.approx(
        100
    )
    assert measures.gradient_norm(G(), identity, measures.saturating) == pytest.approx(
        1 / 0.99
    )


# ---- edits
def has(network, kind):
    return any(isinstance(layer, kind) for layer in network.modules())


def test_edits_change_one_thing():
    batch_norm = (nn.BatchNorm1d, nn.BatchNorm2d)
    G, D = edits.networks("dcgan", "transpose-no-bn")
    assert not has(G(), batch_norm) and not has(D(), batch_norm)
    G, D = edits.networks("dcgan", "transpose-bn-in-d")
    assert has(G(), batch_norm) and has(D(), batch_norm)
    assert not has(edits.networks("gan_mlp", "deep-no-bn")[0](), batch_norm)
    assert not has(edits.networks("gan_mlp", "hidden-relu")[1](), nn.LeakyReLU)
    z = torch.randn(4, 100)
    usual = edits.networks("dcgan", "upsample")[0]().eval()
    for name, factor in (("upsample-noise-0.3", 0.3), ("upsample-noise-3", 3)):
        edited = edits.networks("dcgan", name)[0]().eval()
        edited.load_state_dict(usual.state_dict())
        assert torch.equal(edited(z), usual(factor * z))


def test_edits_draw_the_same_first_weights():
    torch.manual_seed(0)
    usual = [make() for make in edits.networks("dcgan", "transpose")]
    torch.manual_seed(0)
    edited = [make() for make in edits.networks("dcgan", "transpose-bn-in-d")]
    assert torch.equal(usual[1].fc2[0].weight, edited[1].fc2[0].weight)


def test_generator_first():
    torch.manual_seed(0)
    G, D = gan_mlp.BasicGenerator(), gan_mlp.BasicDiscriminator()
    opt_G = torch.optim.SGD(G.parameters(), lr=0.1)
    opt_D = torch.optim.SGD(D.parameters(), lr=0.1)
    real, z = torch.rand(8, 1, 28, 28), torch.randn(8, 100)
    with torch.no_grad():
        fake = G(z)  # of the old G: D learns from the same images
        on_fake, on_real = D(fake), D(real)
    loss_G, loss_D = (
        -on_fake.log().mean(),
        -(on_real.log() + (1 - on_fake).log()).mean(),
    )
    weight = D.fc2.bias.item()
    found = edits.generator_first(G, D, opt_G, opt_D, real, z)
    assert found.tolist() == pytest.approx(
        [loss_D.item(), loss_G.item(), on_real.mean().item(), on_fake.mean().item()]
    )
    # the slope of half the loss with the last bias, by hand: ((D(x) - 1) + D(G(z))) / 2
    slope = ((on_real - 1).mean() + on_fake.mean()) / 2
    assert D.fc2.bias.item() == pytest.approx(weight - 0.1 * slope.item(), abs=1e-6)
    assert not torch.equal(G(z), fake)


# ---- the table, and all of it
KINDS = ("losses", "progress", "perturb", "real")
ALL = [claim for each in claims.REPORTS.values() for claim in each]


def test_the_table():
    names = [claim.name for claim in ALL]
    assert len(set(names)) == len(names)
    for claim in ALL:
        assert claim.parts or claim.unmeasured
        whats = [part.what for part in claim.parts]
        assert len(set(whats)) == len(whats)
        for part in claim.parts:
            for name, _, highest in evidence.parse(part.trained):
                training = claims.TRAININGS[name]
                assert highest == 9999 or highest in training.looks, (
                    claim.name,
                    part.trained,
                )
    used = {
        name
        for claim in ALL
        for part in claim.parts
        for name, _, _ in evidence.parse(part.trained)
    }
    assert used == set(claims.TRAININGS)


RESULTS = (
    json.loads(claims.RESULTS.read_text("utf-8")) if claims.RESULTS.exists() else {}
)


@pytest.mark.parametrize("claim", ALL, ids=lambda claim: claim.name)
def test_verdicts_in_the_file_follow_from_its_numbers(claim):
    for part, record in zip(claim.parts, RESULTS.get(claim.name, [])):
        assert (part.what, part.holds) == (record["what"], record["holds if"])
        assert evidence.conclude(part, record["measured"]).verdict == record["verdict"]


def numbers_of(text):
    return set(re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w.]*\d)", text))


def known_numbers(report):
    """Of a report: each measured number as it is printed, the means, and what the table says."""
    known = set()
    for claim in claims.REPORTS[report]:
        known |= numbers_of(claim.said)
        for part, found in evidence.conclusions(claim, RESULTS):
            known |= numbers_of(f"{part.what} {part.holds} {found.of}")
            known |= {str(len(found.answers)), str(sum(found.answers))}
            for name, values in found.numbers.items():
                known |= numbers_of(name)
                known |= {
                    evidence.rounded(value) for value in [*values, np.mean(values)]
                }
    return known


@pytest.mark.parametrize("report", claims.REPORTS)
def test_numbers_on_the_page_are_in_the_file(report):
    page = (HERE / "docs" / f"report-{report.lower()}.md").read_text("utf-8")
    rows = re.findall(r"^\|(.+)\|$", page.split("## What it claims")[1], re.MULTILINE)
    rows = [[cell.strip() for cell in row.split("|")] for row in rows]
    verdict = rows[0].index("verdict")
    known = known_numbers(report)
    for row in rows[2:]:
        unknown = numbers_of(row[verdict]) - known
        assert not unknown, f"{unknown} in: {row[verdict]}"


def test_a_wrong_number_on_a_page_is_found():
    if "B2" not in RESULTS:
        pytest.skip("nothing was measured yet")
    assert numbers_of("holds (8 of 8): 3.44 to 4.5, epoch 3") == {
        "8",
        "3.44",
        "4.5",
        "3",
    }
    assert "777.7" not in known_numbers("B")


def test_figures_are_small():
    drawn = [
        HERE / "docs" / f"{name}-{kind}.png"
        for name in figures.NETWORKS
        for kind in KINDS
    ]
    drawn += [HERE / "docs" / "c-loop.png", HERE / "docs" / "a-noise.png"]
    large = [
        path.name for path in drawn if path.exists() and path.stat().st_size > 150_000
    ]
    assert not large


def test_help_and_errors(tmp_path):
    def answer(*words):
        command = [sys.executable, HERE / "benchmarks" / "claims.py", *words]
        return subprocess.run(
            command, cwd=tmp_path, check=False, capture_output=True, text=True
        )

    found = answer("--only", "F")
    assert found.returncode == 2 and "there is no claim F" in found.stderr
    found = answer("--list", "--only", "B2")
    assert found.returncode == 0 and "holds if change with 0.3 < 10" in found.stdout
    assert "basic" in found.stdout and "0: 0" in found.stdout


@pytest.mark.slow
def test_dry_run_of_everything(tmp_path):
    command = [
        sys.executable,
        HERE / "benchmarks" / "claims.py",
        "--dry-run",
        "--device",
        "cpu",
    ]
    before = claims.RESULTS.read_bytes() if claims.RESULTS.exists() else b""
    found = subprocess.run(
        command, cwd=tmp_path, check=False, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    after = claims.RESULTS.read_bytes() if claims.RESULTS.exists() else b""
    assert before == after
    rows = [line for line in found.stdout.splitlines() if re.match(r"\| [A-E]\d", line)]
    assert len(rows) == len(ALL)
    for row in rows:
        # an untrained G may draw no trousers, an untrained D may have no lead
        may_lack = "stay trousers" in row or "of its lead on training images" in row
        assert "not trained yet" not in row or may_lack, row
