"""The reports' figures, drawn into docs from the trainings of claims.py."""

import io
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
import measures

import common
from perturb import draw_z

DOCS = HERE.parent / "docs"
SEED = 23231  # of z, as in report C
VALUES = (-1, 5, 10)

# Which figures there are of a training, and at which epoch (None: at its last look).
NETWORKS = {
    "basic": (3, ("losses", "progress", "perturb")),  # reports A, B and C
    "conv7": (3, ("losses", "progress", "perturb")),  # B
    "tiny": (20, ("losses", "progress", "perturb")),  # C
    "conv4": (None, ("losses", "progress", "perturb")),  # A
    "upsample": (None, ("losses", "progress", "perturb", "real")),  # A and D
    "deep": (None, ("losses", "progress", "perturb", "real")),  # D
    "hidden": (30, ("losses", "progress")),  # E
    "transpose": (None, ("losses", "progress")),  # E
    "wgan": (None, ("losses", "progress")),  # E
}


def draw_all(root, docs=DOCS, seed=0):
    """Draw the figures of all trainings that are there; say what each is of."""
    draw = {"losses": losses, "progress": progress, "perturb": perturb, "real": real}
    for name, (epoch, kinds) in tqdm(NETWORKS.items(), unit="network"):
        run = find(name, epoch, root, seed)
        if run is None:
            tqdm.write(f"{name}: not trained yet")
            continue
        for kind in kinds:
            path = docs / f"{name}-{kind}.png"
            draw[kind](run, path)
            report(path, run)
    basic = find("basic", 3, root, seed)
    if basic:
        loop(basic, docs / "c-loop.png")
        report(docs / "c-loop.png", basic)
    small = find("basic-noise-0.3", 3, root, seed)
    large = find("basic-noise-3", 3, root, seed)
    if small and basic and large:
        noise(small, basic, large, docs / "a-noise.png")
        report(docs / "a-noise.png", small, basic, large)


def find(name, epoch, root, seed):
    """The training, at that epoch or at the last one that was looked at; or None."""
    folder = root / f"{name}-seed{seed}"
    looks = sorted(int(path.stem[2:]) for path in folder.glob("g-*.pt"))
    if not looks or (epoch and epoch not in looks):
        return None
    return measures.Run(name, folder, epoch or looks[-1], judge=None)


def report(path, *runs):
    kilobytes = path.stat().st_size // 1000
    of = ", ".join(f"{run.name} after {run.epoch} epochs" for run in runs)
    tqdm.write(f"{path.name}: {of}, {kilobytes} kB")


def save_small(path, picture, colours=64):
    """Few colours make a small file."""
    buffer = io.BytesIO()
    picture.quantize(colours).save(buffer, "png", optimize=True)
    common.write(path, buffer.getvalue())


def losses(run, path):
    """losses.png as the run draws it, up to the epoch."""
    columns = run.losses.dtype.names[2:]
    curves = {"loss": ("loss_D", "loss_G"), "output of D": ("D(x)", "D(G(z))")}
    if "distance" in columns:
        curves = {"Wasserstein estimate": ("distance",)} | curves
    lines = (run.folder / "losses.csv").read_text().splitlines()
    lines = lines[: 1 + len(run.losses)]  # the names, and the steps up to the epoch
    new = path.with_suffix(".losses")  # save_losses reads and writes in a folder
    new.mkdir()
    try:
        (new / "losses.csv").write_text("\n".join(lines) + "\n")
        common.save_losses(new, curves, title=f"{run.name}, {run.epoch} epochs")
        save_small(path, Image.open(new / "losses.png"))
    finally:
        shutil.rmtree(new)


def progress(run, path):
    """Half of the samples at 0, 25, 50, 75 and 100 % of the epochs, or at the nearest drawn."""
    drawn = {}
    for sample in (run.folder / "samples").glob("epoch_*.png"):
        epoch = int(sample.stem.removeprefix("epoch_"))
        if epoch <= run.epoch:
            drawn[epoch] = sample
    epochs = sorted(drawn)  # of two that are as near, the earlier one
    shown = set()
    for part in range(5):
        wish = run.epoch * part / 4
        nearest = min(epochs, key=lambda epoch: abs(epoch - wish))
        shown.add(nearest)
    strips = []
    for epoch in sorted(shown):
        picture = np.asarray(Image.open(drawn[epoch]).convert("L"))
        picture = picture[::3, ::3]  # a dot for a pixel
        half = picture[: len(picture) // 2 + 1]
        strips.append(np.pad(half, 4, constant_values=255))
    labels = [f"epoch {epoch}" for epoch in sorted(shown)]
    picture = np.concatenate(strips, axis=1)
    common.save_sheet(path, picture, columns=labels, fontsize=12)


def perturb(run, path):
    """Eight images, and under them single entries of z set to other values."""
    z = draw_z(SEED, samples=8, z_dim=100)
    labels = ["unchanged"]
    rows = [z]
    for position in measures.POSITIONS:
        for value in VALUES:
            labels.append(f"z[{position}] = {value}")
            rows.append(measures.changed(z, position, value))
    images = run.draw(torch.cat(rows))
    picture = common.grid(images, columns=8, zoom=2)
    common.save_sheet(path, picture, rows=labels, fontsize=11)


def real(run, path):
    """Eight real images, and under them eight of the generator."""
    train = common.find_images("fashion-mnist") or common.SAMPLE
    images = common.read_idx(train)[:8] / 127.5 - 1
    z = draw_z(SEED, samples=8, z_dim=100)
    picture = common.grid(torch.cat([images, run.draw(z)]))
    common.save_sheet(path, picture, rows=["real", "generated"])


def loop(run, path):
    """Report C's loop, which sets all five entries each time, beside one entry at a time."""
    z = draw_z(SEED, samples=8, z_dim=100)
    labels = []
    left = []
    right = []
    in_loop = z.clone()
    for position in measures.POSITIONS:
        for value in VALUES:
            labels.append(f"position {position}, {value}")
            in_loop[:, measures.POSITIONS] = value
            left.append(in_loop.clone())
            right.append(measures.changed(z, position, value))
    left_sheet = common.grid(run.draw(torch.cat(left)), columns=8, zoom=2)
    right_sheet = common.grid(run.draw(torch.cat(right)), columns=8, zoom=2)
    gap = np.full((len(left_sheet), 24), 255, np.uint8)
    picture = np.concatenate([left_sheet, gap, right_sheet], axis=1)
    titles = ["report C's loop", "one entry at a time"]
    common.save_sheet(path, picture, columns=titles, rows=labels, fontsize=11)
    save_small(path, Image.open(path), colours=24)


def noise(small, usual, large, path):
    """Trained with 0.3 times the noise, with all of it, and with 3 times; then z times 0.3 and 3
    after a usual training. All of the same z."""
    z = draw_z(SEED, samples=12, z_dim=100)
    rows = {
        "trained with 0.3 z": small.draw(z),
        "trained with z": usual.draw(z),
        "trained with 3 z": large.draw(z),
        "trained with z, drawn with 0.3 z": usual.draw(0.3 * z),
        "trained with z, drawn with 3 z": usual.draw(3 * z),
    }
    picture = common.grid(torch.cat(list(rows.values())), columns=12, zoom=2)
    common.save_sheet(path, picture, rows=list(rows), fontsize=11)
