"""What claims.py measures of a training: each function below gives names and numbers.

A Run is one training, up to an epoch at which it was looked at. A measure takes one or more of them
and gives a dict from the name of a number to the number. Pictures are counted in grey levels from 0
to 255, and drawn from z that are the same for all generators.
"""

import json
import re
import sys
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
import edits
import quality

import common
import dcgan
import perturb

NEARLY_BLACK = 13  # the mean grey of an image; of the real ones, 1 of 500 is below
TROUSERS = 1  # their class in Fashion-MNIST


# ---- a training, and what is kept of it
class Run:
    def __init__(self, name, folder, epoch, judge):
        self.name = name
        self.folder = Path(folder)
        self.epoch = epoch
        self.judge = judge
        self.path = self.folder / f"g-{epoch:03d}.pt"
        self.notes = self.path.with_suffix(".json")  # what was measured of it before

    def remember(self, name, compute, needs=None):
        """Measure once: what takes long is kept in a file beside the generator. Measure again if
        what was kept lacks a number that is needed."""
        known = self.read_notes()
        if name not in known or (needs and needs not in known[name]):
            known[name] = compute()
            common.write(self.notes, json.dumps(known, indent=1).encode())
        return known[name]

    def read_notes(self):
        if not self.notes.exists():
            return {}
        if self.notes.stat().st_mtime < self.path.stat().st_mtime:
            return {}  # they are of another generator
        return json.loads(self.notes.read_text())

    @cached_property
    def losses(self):
        """losses.csv, up to this epoch."""
        path = self.folder / "losses.csv"
        table = np.genfromtxt(path, delimiter=",", names=True, deletechars="")
        return table[table["epoch"] <= self.epoch]

    def column(self, name, epoch):
        return self.losses[name][self.losses["epoch"] == epoch]

    def means(self, name):
        """The mean of each epoch."""
        return [self.column(name, n).mean() for n in range(1, self.epoch + 1)]

    @cached_property
    def G(self):
        """The generator that draws the samples."""
        saved = common.load(self.path)
        make_G, _ = edits.networks(saved["script"], saved["arch"])
        G = make_G(saved["z_dim"])
        G.load_state_dict(saved["state_dict"])
        return G.eval()

    def draw(self, z):
        return quality.draw(self.G, z)

    @cached_property
    def saved(self):
        """What is kept of the checkpoint of this epoch."""
        return common.load(self.folder / f"ckpt-{self.epoch:03d}.pt")

    def new_networks(self):
        """G and D with their first weights: G as in training, D without Dropout."""
        make_G, make_D = edits.networks(self.saved["script"], self.saved["arch"])
        torch.manual_seed(10_000 * self.saved["args"]["seed"])
        G = make_G(self.saved["z_dim"])
        D = make_D()
        if self.saved["args"].get("init") == "dcgan":
            G.apply(dcgan.init_weights)
            D.apply(dcgan.init_weights)
        return G, D.eval()

    def networks(self):
        """The same with the weights that were trained, and not with an average of them."""
        G, D = self.new_networks()
        G.load_state_dict(self.saved["G"])
        D.load_state_dict(self.saved["D"])
        return G, D

    @cached_property
    def images(self):
        return self.draw(quality.noise(100, self.judge.count))

    @cached_property
    def features_and_classes(self):
        """The features of the images, and the classes that are seen in them."""
        return quality.describe(self.judge.net, self.images)

    def number(self, name):
        """One of the numbers of the images; those of one function are measured together."""
        for measure, names in IMAGE_NUMBERS.items():
            if name in names:
                compute = partial(measure, self)
                return self.remember(measure.__name__, compute, needs=name)[name]
        raise KeyError(name)


class Judge:
    """The real images and the classifier, with which the images of a run are compared."""

    def __init__(self, net, real, training, count=quality.COUNT):
        self.net = net
        self.real = real
        self.training = training[: len(real)]
        self.count = count

    @cached_property
    def features(self):
        return quality.describe(self.net, self.real)[0]

    @cached_property
    def grain(self):
        return quality.grain(self.real)

    @cached_property
    def sharpness(self):
        return quality.sharpness(self.real)

    @cached_property
    def outlines(self):
        return quality.outlines(self.real)


def features(run):
    """FD, kinds, and how far an image is from the one that is most like it, a share of that of
    real images."""
    found, classes = run.features_and_classes
    real = run.judge.features
    return {
        "FD": quality.frechet(found, real),
        "classes": quality.effective_classes(classes),
        "distance": nearest(found[:2000]) / nearest(real[:2000]),
    }


def neighbours(run):
    found, _ = run.features_and_classes
    real = run.judge.features
    return {
        "precision": quality.coverage(found, real),
        "recall": quality.coverage(real, found),
    }


def pixels(run):
    """Sharpness, outlines and grain are shares of those of real images. An image is clean if it has
    less grain than the median real one."""
    real = run.judge.real
    grain = quality.grain(run.images)
    squares = quality.patches(run.images, size=7)
    return {
        "brightness": brightness(run.images),
        "saturated": (run.images.abs() > 0.99).float().mean().item(),
        "sharpness": quality.sharpness(run.images) / run.judge.sharpness,
        "outlines": quality.outlines(run.images) / run.judge.outlines,
        "grain": (grain.mean() / run.judge.grain.mean()).item(),
        "clean images": (grain < run.judge.grain.median()).float().mean().item(),
        "local FD": quality.frechet(squares, quality.patches(real, size=7)),
        "without texture": quality.smooth_share(run.images),
        "without texture, real": quality.smooth_share(real),
        "diversity": diversity(run.images),
    }


IMAGE_NUMBERS = {
    features: ("FD", "classes", "distance"),
    neighbours: ("precision", "recall"),  # apart from features: it takes minutes
    pixels: (
        "brightness",
        "saturated",
        "sharpness",
        "outlines",
        "grain",
        "clean images",
        "local FD",
        "without texture",
        "without texture, real",
        "diversity",
    ),
}


def nearest(features):
    """How far an image is from the one that is most like it, in features: the median."""
    distances = torch.cdist(features, features)
    return distances.kthvalue(2).values.median().item()  # the first is itself


def diversity(images):
    """How far two images of different z lie apart: grey levels of a pixel."""
    first, second = images.chunk(2)
    return grey(first - second)


def grey(difference):
    """A difference of images in [-1, 1] as grey levels, the mean over all pixels."""
    return (difference.abs().mean() * 127.5).item()


def brightness(images):
    return ((images.mean() + 1) * 127.5).item()


def label(name, runs, run):
    """The name of a number; if it is measured of several runs, with the run's. Two of one training
    are its earlier and its later state."""
    if len(runs) == 1:
        return name
    if len({each.name for each in runs}) == 1:
        return f"{name}, {'later' if run is runs[-1] else 'earlier'}"
    return f"{name} of {run.name}"


# ---- measures of losses
def losses(*names, epochs):
    """The mean of a column of losses.csv in some epochs; "last" is the last one."""
    return in_epochs(names, epochs, "", np.mean)


def swing(*names, epochs):
    """How far a column swings from step to step: its deviation within an epoch."""
    return in_epochs(names, epochs, "swing of ", np.std)


def in_epochs(names, epochs, prefix, statistic):
    def measure(*runs):
        numbers = {}
        for run in runs:
            for name in names:
                for epoch in epochs:
                    at = run.epoch if epoch == "last" else epoch
                    when = "the last epoch" if epoch == "last" else f"epoch {epoch}"
                    key = label(f"{prefix}{name} in {when}", runs, run)
                    numbers[key] = statistic(run.column(name, at))
        return numbers

    return measure


def thirds(name):
    """The means of the three thirds of epoch 1."""

    def measure(run):
        parts = np.array_split(run.column(name, 1), 3)
        words = ("first", "second", "last")
        return {f"{word} third": part.mean() for word, part in zip(words, parts)}

    return measure


def falls(name):
    """In how many of all epochs but the first the mean is lower than in the one before."""

    def measure(run):
        steps = np.diff(run.means(name))
        return {f"share of epochs in which {name} falls": (steps < 0).mean()}

    return measure


def same_way(run):
    """In how many epochs the means of both losses go the same way."""
    steps_D = np.diff(run.means("loss_D"))
    steps_G = np.diff(run.means("loss_G"))
    return {
        "share of epochs in which both go the same way": (steps_D * steps_G > 0).mean()
    }


def settles(*names):
    """By how much the mean changes from epoch 1 to 2, and from the last but one to the last."""

    def measure(run):
        numbers = {}
        for name in names:
            steps = np.abs(np.diff(run.means(name)))
            numbers[f"change of {name} at first"] = steps[0]
            numbers[f"change of {name} at last"] = steps[-1]
        return numbers

    return measure


def half_of_loss_D(run):
    """Both losses as PyTorch-GAN counts them: its loss_D is half of the sum."""
    return {
        "half of loss_D": run.means("loss_D")[-1] / 2,
        "loss_G": run.means("loss_G")[-1],
    }


def jumps(*runs):
    """How far the distance jumps from a step to the next in the last epoch, against its mean."""
    numbers = {}
    for run in runs:
        distance = run.column("distance", run.epoch)
        jump = np.abs(np.diff(distance)).mean() / np.abs(distance).mean()
        numbers[label("jump", runs, run)] = jump
    return numbers


def seconds(*runs):
    """The fastest epoch, as the run's log has it."""
    numbers = {}
    for run in runs:
        log = run.folder.with_name(f"{run.folder.name}.log").read_text()
        took = re.findall(r"^epoch .* ([\d.]+) s$", log, flags=re.MULTILINE)
        numbers[label("seconds for an epoch", runs, run)] = min(map(float, took))
    return numbers


# ---- measures of images
def images(*names):
    """What is measured of the images of a generator: see IMAGE_NUMBERS."""

    def measure(*runs):
        return {
            label(name, runs, run): run.number(name) for run in runs for name in names
        }

    return measure


def stretched(*runs):
    """The brightness of report C's eight images, each figure from its own black to its white."""
    numbers = {}
    for run in runs:
        z = torch.randn(8, 100, generator=torch.manual_seed(23231))
        with torch.inference_mode():
            eight = run.G(z)  # as it is: tiny's G has no tanh, and can go above 1
        eight = (eight - eight.min()) / (eight.max() - eight.min())
        numbers[label("brightness", runs, run)] = 255 * eight.mean().item()
    return numbers


# ---- measures of single entries of z
COUNT = 200  # images for each entry and value
POSITIONS = perturb.spread(100)


def changed(z, position, value):
    z = z.clone()
    z[:, position] = value
    return z


def effect_of_entries(run, value):
    """For each position: brightness, and change against the unchanged images."""

    def compute():
        z = quality.noise(100, COUNT)
        before = run.draw(z)
        found = {"brightness": [], "change": []}
        for position in POSITIONS:
            after = run.draw(changed(z, position, value))
            found["brightness"].append(brightness(after))
            found["change"].append(grey(after - before))
        return found | {"unchanged": brightness(before)}

    return run.remember(f"entries set to {value}", compute)


def change(value, over):
    """By how many grey levels a pixel changes; over: max or mean of five positions."""

    def measure(*runs):
        name = f"change with {value}"
        return {
            label(name, runs, run): float(over(effect_of_entries(run, value)["change"]))
            for run in runs
        }

    return measure


def bright(*values):
    """The mean brightness with an entry set to each of the values, and unchanged."""

    def measure(run):
        before = effect_of_entries(run, values[0])["unchanged"]
        numbers = {"brightness(unchanged)": before}
        for value in values:
            found = effect_of_entries(run, value)["brightness"]
            numbers[f"brightness({value})"] = np.mean(found)
        return numbers

    return measure


def bright_at(position):
    """The brightness with this one entry set to -1, 5 and 10."""

    def measure(run):
        index = POSITIONS.index(position)
        return {
            f"brightness({value})": effect_of_entries(run, value)["brightness"][index]
            for value in (-1, 5, 10)
        }

    return measure


def loop(run):
    """Report C's loop, which sets all five entries to -1, 5 and 10 and never sets them back."""
    numbers = {}
    z = torch.randn(8, 100, generator=torch.manual_seed(23231))
    for value in (-1, 5, 10):
        z[:, POSITIONS] = value
        numbers[f"brightness({value})"] = brightness(run.draw(z))
    return numbers


def middle_at(position):
    """The brightness in the middle of the garment."""

    def measure(run):
        z = quality.noise(100, COUNT)
        numbers = {}
        for value in (-1, 10):
            pictures = run.draw(changed(z, position, value))
            numbers[f"middle({value})"] = brightness(pictures[:, :, 9:19, 11:17])
        return numbers

    return measure


def kept(run, value, positions):
    """The share of images that stay of their kind, the mean over some positions."""
    wanted = 300 if len(positions) == 1 else 1000  # one position at a time is slow
    count = min(wanted, run.judge.count)

    def compute():
        net = run.judge.net
        return quality.kept(net, run.G, 100, value, count=count, positions=positions)

    return run.remember(f"kept with {value} at {positions}", compute)


def stays(value, position=None):
    """The share of images that stay of their kind with an entry, or this entry, set."""

    def measure(*runs):
        positions = POSITIONS if position is None else [position]
        name = f"stay of their kind with {value}"
        return {label(name, runs, run): kept(run, value, positions) for run in runs}

    return measure


def position_or_value(run):
    """How far kind and brightness differ between positions, and between values."""
    bright = np.array(
        [effect_of_entries(run, value)["brightness"] for value in (-1, 5, 10)]
    )
    kinds = [
        [kept(run, value, [position]) for position in POSITIONS]
        for value in (-1, 5, 10)
    ]
    kinds = np.array(kinds)

    def deviation(numbers, axis):  # not the range: of five that is larger than of three
        return numbers.std(axis=axis, ddof=1).mean()

    return {
        "kind between positions": deviation(kinds, axis=1),
        "kind between values": deviation(kinds, axis=0),
        "brightness between positions": deviation(bright, axis=1),
        "brightness between values": deviation(bright, axis=0),
    }


def nearly_black(value):
    """The share of images that are nearly black: unchanged, and with an entry set."""

    def share(pictures):
        greys = (pictures.mean((1, 2, 3)) + 1) * 127.5
        return (greys < NEARLY_BLACK).float().mean().item()

    def measure(run):
        z = quality.noise(100, COUNT)
        after = [share(run.draw(changed(z, n, value))) for n in POSITIONS]
        return {
            "nearly black(unchanged)": share(run.draw(z)),
            f"nearly black({value})": np.mean(after),
        }

    return measure


def trousers(value):
    """Of the images that are trousers, the share that stays so with an entry set."""

    def share_that_stays(run):
        z = quality.noise(100, min(1000, run.judge.count))
        net = run.judge.net
        _, classes = quality.describe(net, run.draw(z))
        z = z[classes == TROUSERS]
        if len(z) == 0:
            return float("nan")  # it draws none
        stay = []
        for position in POSITIONS:
            _, classes = quality.describe(net, run.draw(changed(z, position, value)))
            stay.append((classes == TROUSERS).float().mean().item())
        return float(np.mean(stay))

    def measure(run):
        share = run.remember(f"trousers with {value}", partial(share_that_stays, run))
        return {f"stay trousers with {value}": share}

    return measure


def values_compared(*values):
    """FD of the images with an entry set to each of the values. Each of five positions has a fifth
    of the images."""

    def distance(run, value):
        z = quality.noise(100, run.judge.count)
        pictures = []
        for part, position in zip(z.chunk(len(POSITIONS)), POSITIONS):
            pictures.append(run.draw(changed(part, position, value)))
        features, _ = quality.describe(run.judge.net, torch.cat(pictures))
        return quality.frechet(features, run.judge.features)

    def measure(run):
        numbers = {}
        for value in values:
            name = f"FD with {value}"
            found = run.remember(name, partial(distance, run, value))
            numbers[f"FD({value})"] = found
        return numbers

    return measure


def largest_step(*runs):
    """An entry goes from -3 to 3 in 6 steps: the largest change of the picture in one step, as a
    multiple of the mean one. 1 is even; one jump in a picture that stands still is 6."""

    def compute(run):
        z = quality.noise(100, COUNT)
        ratios = []
        for position in POSITIONS:
            pictures = [run.draw(changed(z, position, value)) for value in range(-3, 4)]
            ratios.append(unevenness(pictures))
        return float(np.mean(ratios))

    name = "largest step"
    numbers = {}
    for run in runs:
        numbers[label(name, runs, run)] = run.remember(name, partial(compute, run))
    return numbers


def walk(*runs):
    """The same for eight steps from one z to another, along the sphere."""

    def compute(run):
        starts, ends = quality.noise(100, COUNT).chunk(2)
        angle = torch.arccos(torch.cosine_similarity(starts, ends))[:, None]
        pictures = []
        for share in torch.linspace(0, 1, 9):
            z = (
                torch.sin((1 - share) * angle) * starts
                + torch.sin(share * angle) * ends
            )
            pictures.append(run.draw(z / torch.sin(angle)))
        return unevenness(pictures)

    name = "largest step between two z"
    numbers = {}
    for run in runs:
        numbers[label(name, runs, run)] = run.remember(name, partial(compute, run))
    return numbers


def unevenness(pictures):
    """The largest change from one picture to the next, as a multiple of the mean change."""
    steps = torch.stack(pictures).diff(dim=0).abs().mean((2, 3, 4))
    return (steps.amax(0) / steps.mean(0).clamp(min=1e-9)).mean().item()


def strength(run):
    """How much the entry that moves the picture most, and least, of all 100 changes it."""

    def compute():
        z = quality.noise(100, COUNT // 4)
        before = run.draw(z)
        moved = [grey(run.draw(changed(z, n, 5)) - before) for n in range(100)]
        return {"strongest entry": max(moved), "weakest entry": min(moved)}

    return run.remember("strength", compute)


def scaled(factor, *names):
    """The images of z times a factor, and of z as it is. Grain and outlines are shares of those of
    real images, at the same contrast."""

    def numbers_of(pictures, judge):
        contrast = (pictures.std() / judge.real.std()).item()
        grain = (quality.grain(pictures).mean() / judge.grain.mean()).item()
        return {
            "grain": grain / contrast,
            "outlines": quality.outlines(pictures) / judge.outlines / contrast,
            "without texture": quality.smooth_share(pictures),
            "saturated": (pictures.abs() > 0.99).float().mean().item(),
            "diversity": diversity(pictures),
        }

    def compute(run):
        z = quality.noise(100, min(2000, run.judge.count))
        usual = numbers_of(run.draw(z), run.judge)
        other = numbers_of(run.draw(factor * z), run.judge)
        found = {f"{name} with 1": number for name, number in usual.items()}
        return found | {f"{name} with {factor}": each for name, each in other.items()}

    def measure(run):
        found = run.remember(f"z times {factor}", partial(compute, run))
        wanted = [f"{name} with {value}" for name in names for value in (1, factor)]
        return {name: found[name] for name in wanted}

    return measure


# ---- measures of D, and of what it teaches G
def scores(*names):
    """How D tells images apart. Its lead: the mean score of training images, less that of generated
    ones. "kept of the lead": the same of test images, which D never saw, as a share. "ranked right":
    of all pairs of a test image and a generated one, in how many the test image has the higher score."""

    def measure(*runs):
        numbers = {}
        for run in runs:
            found = run.remember("judged by D", partial(judged_by_D, run))
            for name in names:
                numbers[label(name, runs, run)] = found[name]
        return numbers

    return measure


@torch.inference_mode()
def judged_by_D(run):
    """Of a D that gives probabilities, their logits: a sum that has no bounds, as a score."""
    _, D = run.networks()

    def score(images):
        verdicts = torch.cat([D(part) for part in images.split(500)])
        return verdicts if run.saved["script"] == "wgan" else verdicts.logit(eps=1e-7)

    training = score(run.judge.training)
    test = score(run.judge.real)
    generated = score(run.images)
    lead = training.mean() - generated.mean()
    kept = (test.mean() - generated.mean()) / lead
    right = (test[:, None] > generated[None, :]).float().mean()
    return {
        "score of training images": training.mean().item(),
        "score of test images": test.mean().item(),
        "score of G's images": generated.mean().item(),
        "kept of the lead": kept.item() if lead > 0 else float("nan"),
        "ranked right": right.item(),
    }


def gradient(*runs):
    """The size of the gradient that reaches G: before the training, now, and now with the loss that
    does saturate, log(1 - D(G(z)))."""

    def compute(run):
        return {
            "gradient at first": gradient_norm(*run.new_networks(), minus_log),
            "gradient now": gradient_norm(*run.networks(), minus_log),
            "gradient of the saturating loss": gradient_norm(
                *run.networks(), saturating
            ),
        }

    numbers = {}
    for run in runs:
        found = run.remember("gradient", partial(compute, run))
        for name, number in found.items():
            numbers[label(name, runs, run)] = number
    return numbers


def minus_log(verdict):
    return -torch.log(verdict + 1e-12).mean()


def saturating(verdict):
    return torch.log(1 - verdict + 1e-12).mean()


def gradient_norm(G, D, loss):
    found = loss(D(G(quality.noise(100, 1000))))
    weights = list(G.parameters())
    slopes = torch.autograd.grad(found, weights)
    return torch.cat([each.flatten() for each in slopes]).norm().item()
