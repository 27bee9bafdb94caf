"""How good the generated images are: a table of numbers for any number of generators.

    python benchmarks/quality.py runs/dcgan/g.pt runs/gan_mlp/g.pt
    python benchmarks/quality.py --train                   # trains every network first: quality.md
    python benchmarks/quality.py --train --seeds 0 1 2 --only wgan dcgan  # a part of them
    python benchmarks/quality.py --train --only transpose --epochs 200 --each  # a long run

10,000 generated images are compared with Fashion-MNIST's 10,000 test images, which no training
has seen, in the features of a small classifier that this script trains on the 60,000 training
images: once, with a fixed seed; it is kept in runs/quality-classifier.pt.

FD          Frechet distance of the two clouds of features, taken for Gaussians: lower is better
FD 2        the same in the features of a classifier of another shape (another scale, too): what is
            better by both is not better in the eyes of one network alone
precision   share of generated images that lie among the real ones (k = 3 neighbours): fidelity
recall      share of real images that lie among the generated ones: diversity
classes     how many kinds of garments there are, exp(entropy) of the classes predicted: at most 10
brightness  mean grey, from 0 to 255
sharpness   mean difference of neighbouring pixels, as a share of that of real images
kept        share of images that stay of their class when one entry of z, of five tried, is set
            to 5: near 1 for a generator that responds smoothly
saturated   share of pixels within 1 % of black or white

The features are this classifier's, so its numbers stand beside each other, and not beside the
FIDs of papers, which use the features of an Inception network trained on photographs.

--train trains every network with all the seeds, and draws docs/contact.png, all generators at the
same z. What it trained stays in runs/quality, and is not trained again. With --only NAME... it does
the commands that contain one of the names, and no contact sheet.
--each prints a row for each of the epochs 1, 2, 5, 10, ..., and draws docs/epochs.png.
"""

import argparse
import gzip
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import nn

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"
sys.path.insert(0, str(HERE.parent))
import common
import perturb

COUNT = 10_000
# Every network of the project, as a command line.
FAMILIES = [
    "gan_mlp --arch basic",
    "gan_mlp --arch hidden",
    "gan_mlp --arch deep",
    "gan_cnn --arch conv7",
    "gan_cnn --arch conv4",
    "gan_cnn --arch separable",
    "gan_cnn --arch tiny",
    "dcgan --arch upsample",
    "dcgan --arch transpose",
    "wgan",
    "wgan --gp 10",
]
COLUMNS = {  # and how many digits each has
    "FD": 1,
    "FD 2": 1,
    "precision": 2,
    "recall": 2,
    "classes": 1,
    "brightness": 0,
    "sharpness": 2,
    "kept": 2,
    "saturated": 2,
}


# ---- data and classifier
def read(part, data_dir):
    """Images in [-1, 1] and labels of Fashion-MNIST: part is train or t10k."""
    train = common.find_images("fashion-mnist", data_dir)
    if not train:
        raise common.UserError("Fashion-MNIST is needed: run a script once to download it")
    images = train.with_name(train.name.replace("train", part))
    labels = images.with_name(images.name.replace("images-idx3", "labels-idx1"))
    with (gzip.open if labels.suffix == ".gz" else open)(labels, "rb") as file:
        classes = torch.frombuffer(bytearray(file.read()[8:]), dtype=torch.uint8).long()
    return common.read_idx(images).float() / 127.5 - 1, classes


def block(inputs, outputs, *pool):
    return [nn.Conv2d(inputs, outputs, 3, 1, 1), nn.BatchNorm2d(outputs), nn.ReLU(), *pool]


class Classifier(nn.Module):
    """A small convolutional network; what it computes before its last layer are the features.

    The second is deeper and wider. Its features are means over the picture: they know no places.
    """

    def __init__(self, second=False):
        super().__init__()
        if second:
            self.features = nn.Sequential(
                *block(1, 48, nn.AvgPool2d(2)),
                *block(48, 96, nn.AvgPool2d(2)),
                *block(96, 192, nn.AvgPool2d(2)),
                *block(192, 256, nn.AdaptiveAvgPool2d(1)),
                nn.Flatten(),
            )
        else:
            self.features = nn.Sequential(
                *block(1, 32, nn.MaxPool2d(2)),
                *block(32, 64),
                *block(64, 64, nn.MaxPool2d(2)),
                nn.Flatten(),
                nn.Dropout(0.3),
                nn.Linear(64 * 7 * 7, 128),
                nn.ReLU(),
            )
        self.last = nn.Linear(256 if second else 128, 10)

    def forward(self, x):
        return self.last(self.features(x))


def train_classifier(second, data_dir, device, epochs=6, batch=128):
    images, classes = read("train", data_dir)
    torch.manual_seed(int(second))
    net = Classifier(second).to(device, memory_format=torch.channels_last)
    steps = epochs * (len(images) // batch)
    optimizer = torch.optim.Adam(net.parameters(), weight_decay=1e-5, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    for epoch in range(1, epochs + 1):
        for chosen in torch.randperm(len(images)).split(batch)[: len(images) // batch]:
            x = images[chosen]
            flip = torch.rand(batch) < 0.5
            x[flip] = x[flip].flip(3)
            loss = F.cross_entropy(net(x.to(device)), classes[chosen].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"classifier: epoch {epoch}/{epochs}, loss {loss.item():.3f}", flush=True)
    return net


def load_classifier(second, data_dir, device):
    """A classifier, trained now if it was not before, and its share of right answers."""
    path = Path("runs", "quality-classifier-2.pt" if second else "quality-classifier.pt")
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        common.save(path, train_classifier(second, data_dir, device).state_dict())
    net = Classifier(second)
    net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    net.to(device, memory_format=torch.channels_last).eval()
    images, classes = read("t10k", data_dir)
    right = (describe(net, images)[1] == classes).float().mean().item()
    if right < 0.92:
        raise common.UserError(f"{path} is right in {right:.1%} only: delete it, try again")
    return net, right


def describe(net, images):
    """Features and predicted classes."""
    device = next(net.parameters()).device
    with torch.inference_mode():
        features = torch.cat([net.features(x.to(device)).cpu() for x in images.split(500)])
        return features, net.last(features.to(device)).argmax(1).cpu()


# ---- the numbers
def frechet(a, b):
    """|mean a - mean b|^2 + trace(cov a + cov b - 2 (cov a cov b)^(1/2))."""
    a, b = a.double(), b.double()
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    # root cov_b root has the eigenvalues of cov_a cov_b, and is symmetric
    both = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    shift = (a.mean(0) - b.mean(0)).square().sum()
    return (shift + cov_a.trace() + cov_b.trace() - 2 * both).item()


def coverage(of, by, k=3):
    """The share of points `of` inside the k-nearest-neighbour ball of some point `by`.

    Precision is coverage(generated, real), recall coverage(real, generated): Kynkaanniemi et al.
    """
    radii = torch.cat([torch.cdist(x, by).kthvalue(k + 1).values for x in by.split(1000)])
    inside = [(torch.cdist(x, by) <= radii).any(1) for x in of.split(1000)]
    return torch.cat(inside).float().mean().item()


def effective_classes(classes):
    shares = torch.bincount(classes, minlength=10) / len(classes)
    return torch.special.entr(shares).sum().exp().item()


def sharpness(images):
    across, down = images.diff(dim=3).abs().mean(), images.diff(dim=2).abs().mean()
    return (across + down).item()


def grain(images):
    """How far each image is from its own median of 3x3 pixels: noise is, an edge is not."""
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    around = padded.unfold(2, 3, 1).unfold(3, 3, 1).flatten(4)
    return (images - around.median(4).values).abs().mean((1, 2, 3))


def smooth_share(images, size=4, least=0.04):
    """The share of grey patches that have no texture: a deviation below 5 of 255 levels."""
    pieces = patches(images, size)
    grey = pieces.mean(1).abs() < 0.8  # neither black nor white
    return (pieces[grey].std(1) < least).float().mean().item()


def patches(images, size):
    """Images cut into squares: [N, size * size]."""
    return F.unfold(images, size, stride=size).transpose(1, 2).flatten(0, 1)


@torch.inference_mode()
def draw(G, z):
    return torch.cat([G(part) for part in z.split(500)]).clamp(-1, 1)


def noise(z_dim, count=COUNT):
    return torch.randn(count, z_dim, generator=torch.Generator().manual_seed(1))


def kept(net, G, z_dim, value=5, count=1000, positions=None):
    """The share of images whose predicted class survives one entry of z being set to value."""
    z = noise(z_dim, count)
    before, stays = describe(net, draw(G, z))[1], []
    for position in positions or perturb.spread(z_dim):
        changed = z.clone()
        changed[:, position] = value
        stays.append((describe(net, draw(G, changed))[1] == before).float().mean().item())
    return statistics.mean(stays)


class Judge:
    """Knows the real images, and compares others with them."""

    def __init__(self, net, second, real):
        self.net, self.features = net, describe(net, real)[0]
        self.second, self.second_features = second, describe(second, real)[0]
        self.sharpness = sharpness(real)

    def images(self, images):
        features, classes = describe(self.net, images)
        return {
            "FD": frechet(features, self.features),
            "FD 2": frechet(describe(self.second, images)[0], self.second_features),
            "precision": coverage(features, self.features),
            "recall": coverage(self.features, features),
            "classes": effective_classes(classes),
            "brightness": (images.mean().item() + 1) * 127.5,
            "sharpness": sharpness(images) / self.sharpness,
            "saturated": (images.abs() > 0.99).float().mean().item(),
        }

    def generator(self, path):
        """What is found about a g.pt, and what is saved in it."""
        G, saved = perturb.load_generator(path)
        row = self.images(draw(G, noise(saved["z_dim"])))
        return row | {"kept": kept(self.net, G, saved["z_dim"])}, saved


# ---- training
def name_of(family):
    script, *options = family.split()
    return "-".join([script, *(word.strip("-") for word in options if word != "--arch")])


def stages(epochs):
    """When to look."""
    return [epoch for epoch in (1, 2, 5, 10, 20, 50, 100, 150) if epoch < epochs] + [epochs]


def train(family, seed, args):
    """A network, as a user would train it, with a copy of g.pt kept at each stage."""
    out = Path("runs", "quality", f"{name_of(family)}-seed{seed}")
    out.parent.mkdir(parents=True, exist_ok=True)
    for stage in stages(args.epochs):
        if not (out / f"g-{stage:03d}.pt").exists():
            train_until(stage, family, seed, out, args)
            shutil.copy(out / "g.pt", out / f"g-{stage:03d}.pt")
    return out


def train_until(stage, family, seed, out, args):
    script, *options = family.split()
    command = [sys.executable, HERE.parent / f"{script}.py", "--epochs", stage]
    command += ["--device", args.device]
    command += ["--data-dir", args.data_dir] if args.data_dir else []
    if not (out / "ckpt.pt").exists():
        if stage == 1:
            shutil.rmtree(out, ignore_errors=True)  # it was stopped in its first epoch
        command += [*options, "--dataset", "fashion-mnist", "--seed", seed, "--out", out]
    else:
        done = common.load(out / "ckpt.pt")["epoch"]
        if done == stage:
            return  # it was stopped just before the copy
        if done > stage:
            raise common.UserError(f"{out} has gone past epoch {stage}: delete it to look there")
        command += ["--resume", out]
    print(f"{out}: to epoch {stage}", file=sys.stderr, flush=True)
    with open(f"{out}.log", "a") as log:  # beside its folder, which must be empty at first
        if subprocess.call(list(map(str, command)), stdout=log):
            raise common.UserError(f"{out} could not be trained")


# ---- the table and the pictures
def references(data_dir):
    """What the numbers are for images that are good, or bad in a known way."""
    images, classes = read("train", data_dir)
    grain = torch.randn(COUNT, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    yield "real training images", images[:COUNT]
    yield "the same with noise, sigma 0.2", (images[:COUNT] + 0.2 * grain).clamp(-1, 1)
    yield "one class alone (trousers)", images[classes == 1].repeat(2, 1, 1, 1)[:COUNT]


def table_row(name, epochs, seeds, found):
    """A row for what was found for each seed: means, and how far the seeds spread."""
    cells = [str(name), str(epochs), str(seeds)]
    for column, digits in COLUMNS.items():
        values = [row[column] for row in found if column in row]
        cell = f"{statistics.mean(values):.{digits}f}" if values else ""
        if len(values) > 1:
            cell += f" ± {statistics.stdev(values):.{digits}f}"
        cells.append(cell)
    return f"| {' | '.join(cells)} |"


def draw_contact(generators, real):
    """A row of images for each generator, all of the same z."""
    rows = [real[:12]]
    rows += [draw(perturb.load_generator(path)[0], noise(100, 12)) for path in generators.values()]
    labels = ["real", *generators]
    sheet = common.grid(torch.cat(rows), 12, zoom=2)
    common.save_sheet(DOCS / "contact.png", sheet, rows=labels, fontsize=10)


def draw_epochs(curves):
    """What became of each network as it trained on: curves[name] is a list of (epoch, numbers)."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    looked = {epoch for points in curves.values() for epoch, _ in points}
    ticks = sorted(looked - {150})  # its label would touch that of 200
    for axes, column in zip(figure.subplots(2, 2).flat, ("FD", "precision", "recall", "classes")):
        for name, points in curves.items():
            epochs, rows = zip(*points)
            axes.plot(epochs, [row[column] for row in rows], "o-", markersize=4, label=name)
        axes.set_title(column)
        axes.set_xscale("log")
        axes.set_xticks(ticks, ticks)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        if column == "FD":
            axes.set_yscale("log")
        else:
            axes.set_ylim(0, 10.5 if column == "classes" else 1.05)
    axes.legend(fontsize=8, loc="center")  # of classes: most networks have nearly 10
    figure.supxlabel("epoch")
    common.save_png(DOCS / "epochs.png", figure)


def table_lines(args, families):
    """Train what is to be trained, and judge it all: the table, line by line."""
    device = common.prepare_device(args.device)
    net, right = load_classifier(False, args.data_dir, device)
    second, right_2 = load_classifier(True, args.data_dir, device)
    yield f"Classifiers: {right:.1%} and {right_2:.1%} of the test images right."
    yield ""
    yield f"| run | epochs | seeds | {' | '.join(COLUMNS)} |"
    yield "|---" * (3 + len(COLUMNS)) + "|"
    real = read("t10k", args.data_dir)[0]
    judge = Judge(net, second, real)
    for name, images in references(args.data_dir):
        yield table_row(name, "", "", [judge.images(images)])
    for path in args.generators:
        row, saved = judge.generator(path)
        yield table_row(path.parent.name or path, saved["epoch"], saved["args"].get("seed"), [row])
    generators, curves = {}, {}  # the first seed's, and the means of all
    for family in families:
        outs = [train(family, seed, args) for seed in args.seeds]
        for epoch in stages(args.epochs) if args.each else [args.epochs]:
            found = [judge.generator(out / f"g-{epoch:03d}.pt")[0] for out in outs]
            yield table_row(family, epoch, " ".join(map(str, args.seeds)), found)
            means = {name: statistics.mean(row[name] for row in found) for name in COLUMNS}
            curves.setdefault(family, []).append((epoch, means))
        generators[family] = outs[0] / f"g-{args.epochs:03d}.pt"
    if args.each:
        draw_epochs(curves)
    if args.train and not args.only:
        draw_contact(generators, real)


def main():
    plain, number = argparse.RawDescriptionHelpFormatter, common.number
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("generators", nargs="*", type=Path, help="g.pt files")
    parser.add_argument("--train", action="store_true", help="train every network first")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="with --train: a part of them")
    parser.add_argument("--epochs", type=number(int, 1), default=20, help="with --train (20)")
    parser.add_argument("--each", action="store_true", help="with --train: a row for each stage")
    parser.add_argument("--seeds", type=number(int, 0), nargs="+", default=[0], help="(0)")
    parser.add_argument("--data-dir", type=Path, help="as of the scripts")
    parser.add_argument("--device", default="auto", help="as of the scripts")
    parser.add_argument("--out", type=Path, help="the table (with --train: benchmarks/quality.md)")
    args = parser.parse_args()
    families = FAMILIES if args.train else []
    families = [name for name in families if any(part in name for part in args.only or [""])]
    if not families and not args.generators:
        parser.error("name g.pt files, or --train, and with --only something of its commands")
    if (args.each or args.only) and not args.train:
        parser.error("--each and --only go with --train")
    for path in args.generators:
        perturb.load_generator(path)  # a wrong one ends here, before a classifier is trained
    lines = []
    for line in table_lines(args, families):
        lines.append(line)
        print(line, flush=True)
    out = args.out or (HERE / "quality.md" if args.train and not args.only else None)
    if out:
        common.write(out, ("\n".join(lines) + "\n").encode())


if __name__ == "__main__":
    common.run(main)
