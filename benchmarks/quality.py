"""How good the generated images are: a table of numbers for any number of generators.

    python benchmarks/quality.py runs/dcgan/g.pt runs/gan_mlp/g.pt
    python benchmarks/quality.py --train     # trains every network first: quality.md
    python benchmarks/quality.py --train --only wgan dcgan --seeds 0 1 2  # some of them
    python benchmarks/quality.py --train --only transpose --epochs 200 --each

10,000 generated images are compared with Fashion-MNIST's 10,000 test images, which no
training has seen, in the features of a small classifier. It is trained once, on the
60,000 training images, and kept in runs/quality-classifier.pt.

FD          Frechet distance of the two clouds of features, taken for Gaussians: lower
            is better
FD 2        the same in the features of a classifier of another shape (another scale,
            too): what is better by both is not better in the eyes of one network alone
precision   share of generated images that lie among the real ones (k = 3 neighbours):
            fidelity
recall      share of real images that lie among the generated ones: diversity
classes     how many kinds of garments there are, exp(entropy) of the classes predicted:
            at most 10
brightness  mean grey, from 0 to 255
sharpness   mean difference of neighbouring pixels, as a share of that of real images
kept        share of images that stay of their class when one entry of z, of five tried,
            is set to 5: near 1 for a generator that responds smoothly
saturated   share of pixels within 1.3 of 255 grey levels of black or white

The features are this classifier's, so its numbers stand beside each other, and not
beside the FIDs of papers: theirs are the features of an Inception network, which was
trained on photographs.

--train trains every network with all the seeds, and draws docs/contact.png, all
generators at the same z. What it trained stays in runs/quality, and is not trained
again. With --only NAME... it does the commands that contain one of the names, and no
contact sheet. --each prints a row for each of the epochs 1, 2, 5, 10, ..., and draws
docs/epochs.png.
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


# ---- data and classifiers


def read(part, data_dir):
    """Images in [-1, 1] and labels of Fashion-MNIST: part is train or t10k."""
    train = common.find_images("fashion-mnist", data_dir)
    if train is None:
        raise common.UserError(
            "Fashion-MNIST is needed: run a script once to download it"
        )
    path = train.with_name(train.name.replace("train", part))
    images = common.read_idx(path).float() / 127.5 - 1
    path = path.with_name(path.name.replace("images-idx3", "labels-idx1"))
    with common.disk_errors_are_the_users():
        data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    classes = torch.frombuffer(bytearray(data[8:]), dtype=torch.uint8)
    return images, classes.long()


def block(inputs, outputs, *pool):
    return [
        nn.Conv2d(inputs, outputs, 3, 1, 1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        *pool,
    ]


class Classifier(nn.Module):
    """A convolutional network. What it has before its last layer are the features.

    The second is deeper and wider. Its features are means over the picture: they know
    no places.
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
            self.last = nn.Linear(256, 10)
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
            self.last = nn.Linear(128, 10)

    def forward(self, x):
        return self.last(self.features(x))


def train_classifier(second, data_dir, device, epochs=6, batch=128):
    images, classes = read("train", data_dir)
    torch.manual_seed(int(second))
    net = Classifier(second).to(device, memory_format=torch.channels_last)
    steps = len(images) // batch  # in an epoch; whole batches only
    optimizer = torch.optim.Adam(net.parameters(), weight_decay=1e-5, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=2e-3, total_steps=epochs * steps
    )
    for epoch in range(1, epochs + 1):
        order = torch.randperm(len(images))
        for chosen in order.split(batch)[:steps]:
            x = images[chosen]
            flip = torch.rand(batch) < 0.5
            x[flip] = x[flip].flip(3)
            predicted = net(x.to(device))
            loss = F.cross_entropy(predicted, classes[chosen].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"classifier: epoch {epoch}/{epochs}, loss {loss.item():.3f}")
    return net


def load_classifier(second, data_dir, device):
    """A classifier, trained now if it was not before; its share of right answers."""
    name = "quality-classifier-2.pt" if second else "quality-classifier.pt"
    path = Path("runs", name)
    if not path.exists():
        with common.disk_errors_are_the_users():
            path.parent.mkdir(exist_ok=True)
        trained = train_classifier(second, data_dir, device)
        common.save(path, trained.state_dict())
    net = Classifier(second)
    net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    net.to(device, memory_format=torch.channels_last)
    net.eval()
    images, classes = read("t10k", data_dir)
    _, predicted = describe(net, images)
    right = (predicted == classes).float().mean().item()
    if right < 0.92:
        raise common.UserError(
            f"{path} is right in {right:.1%} only: delete it, try again"
        )
    return net, right


@torch.inference_mode()
def describe(net, images):
    """Features and predicted classes."""
    device = next(net.parameters()).device
    parts = []
    for part in images.split(500):
        parts.append(net.features(part.to(device)).cpu())
    features = torch.cat(parts)
    classes = net.last(features.to(device)).argmax(dim=1)
    return features, classes.cpu()


# ---- the numbers


def frechet(a, b):
    """|mean a - mean b|^2 + trace(cov a + cov b - 2 (cov a cov b)^(1/2))."""
    a = a.double()
    b = b.double()
    cov_a = torch.cov(a.T)
    cov_b = torch.cov(b.T)
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    # root cov_b root has the eigenvalues of cov_a cov_b, and is symmetric.
    product = torch.linalg.eigvalsh(root @ cov_b @ root)
    trace_of_root = product.clamp(min=0).sqrt().sum()
    shift = (a.mean(dim=0) - b.mean(dim=0)).square().sum()
    return (shift + cov_a.trace() + cov_b.trace() - 2 * trace_of_root).item()


def coverage(of, by, k=3):
    """The share of points `of` inside the k-nearest-neighbour ball of some point `by`.

    Precision is coverage(generated, real), recall coverage(real, generated):
    Kynkaanniemi et al., 2019.
    """
    radii = []
    for part in by.split(1000):
        distances = torch.cdist(part, by)
        # k + 1, since the nearest of a point's neighbours is the point itself
        radii.append(distances.kthvalue(k + 1).values)
    radii = torch.cat(radii)
    inside = []
    for part in of.split(1000):
        distances = torch.cdist(part, by)
        inside.append((distances <= radii).any(dim=1))
    return torch.cat(inside).float().mean().item()


def effective_classes(classes):
    shares = torch.bincount(classes, minlength=10) / len(classes)
    entropy = torch.special.entr(shares).sum()
    return entropy.exp().item()


def sharpness(images):
    across = images.diff(dim=3).abs().mean()
    down = images.diff(dim=2).abs().mean()
    return (across + down).item()


def without_grain(images):
    """Each pixel becomes the median of 3x3: noise goes, an edge stays."""
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    around = padded.unfold(2, 3, 1).unfold(3, 3, 1).flatten(4)
    return around.median(dim=4).values


def grain(images):
    """How far the pixels of each image are from their median of 3x3."""
    return (images - without_grain(images)).abs().mean(dim=(1, 2, 3))


def outlines(images):
    """Sharpness without that of the grain: small in blurred images, noisy or not."""
    return sharpness(without_grain(images))


def smooth_share(images, size=4, least=0.04):
    """The share of grey patches without texture: a deviation below 5 of 255 levels."""
    pieces = patches(images, size)
    grey = pieces.mean(dim=1).abs() < 0.8  # neither black nor white
    deviations = pieces[grey].std(dim=1)
    return (deviations < least).float().mean().item()


def patches(images, size):
    """Images cut into squares: [N, size * size]."""
    pieces = F.unfold(images, size, stride=size)
    return pieces.transpose(1, 2).flatten(0, 1)


@torch.inference_mode()
def draw(G, z):
    pictures = [G(part) for part in z.split(500)]
    return torch.cat(pictures).clamp(-1, 1)


def noise(z_dim, count=COUNT):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, z_dim, generator=generator)


def kept(net, G, z_dim, value=5, count=1000, positions=None):
    """The share of images whose class survives one entry of z being set to value."""
    if positions is None:
        positions = perturb.spread(z_dim)
    z = noise(z_dim, count)
    _, before = describe(net, draw(G, z))
    shares = []
    for position in positions:
        changed = z.clone()
        changed[:, position] = value
        _, after = describe(net, draw(G, changed))
        shares.append((after == before).float().mean().item())
    return statistics.mean(shares)


class Judge:
    """Knows the real images, and compares others with them."""

    def __init__(self, net, second, real):
        self.net = net
        self.second = second
        self.features, _ = describe(net, real)
        self.second_features, _ = describe(second, real)
        self.sharpness = sharpness(real)

    def images(self, images):
        features, classes = describe(self.net, images)
        second_features, _ = describe(self.second, images)
        return {
            "FD": frechet(features, self.features),
            "FD 2": frechet(second_features, self.second_features),
            "precision": coverage(of=features, by=self.features),
            "recall": coverage(of=self.features, by=features),
            "classes": effective_classes(classes),
            "brightness": (images.mean().item() + 1) * 127.5,
            "sharpness": sharpness(images) / self.sharpness,
            "saturated": (images.abs() > 0.99).float().mean().item(),
        }

    def generator(self, path):
        """What is found about a g.pt, and what is saved in it."""
        G, saved = perturb.load_generator(path)
        z_dim = saved["z_dim"]
        row = self.images(draw(G, noise(z_dim)))
        row["kept"] = kept(self.net, G, z_dim)
        return row, saved


# ---- training


def name_of(family):
    """Of "gan_mlp --arch deep": gan_mlp-deep."""
    words = [word.strip("-") for word in family.split() if word != "--arch"]
    return "-".join(words)


def stages(epochs):
    """The epochs of a training at which its generator is looked at."""
    early = [epoch for epoch in (1, 2, 5, 10, 20, 50, 100, 150) if epoch < epochs]
    return [*early, epochs]


def run_folder(family, seed):
    return Path("runs", "quality", f"{name_of(family)}-seed{seed}")


def generator_at(epoch, family, seed):
    """The file that keeps the generator of that epoch."""
    return run_folder(family, seed) / f"g-{epoch:03d}.pt"


def train(family, seed, args):
    """A network, as a user would train it, with a copy of g.pt kept at each stage."""
    out = run_folder(family, seed)
    with common.disk_errors_are_the_users():
        out.parent.mkdir(parents=True, exist_ok=True)
    for stage in stages(args.epochs):
        copy = generator_at(stage, family, seed)
        if not copy.exists():
            train_until(stage, family, seed, out, args)
            common.write(copy, (out / "g.pt").read_bytes())


def train_until(stage, family, seed, out, args):
    """Begin the training, or go on with it, until that epoch has ended."""
    script, *options = family.split()
    command = [sys.executable, HERE.parent / f"{script}.py"]
    command += ["--epochs", stage, "--device", args.device]
    if args.data_dir:
        command += ["--data-dir", args.data_dir]
    if (out / "ckpt.pt").exists():
        done = common.load(out / "ckpt.pt")["epoch"]
        if done == stage:
            return  # it was stopped just before the copy
        if done > stage:
            raise common.UserError(
                f"{out} has gone past epoch {stage}: delete it to look there"
            )
        command += ["--resume", out]
    else:
        if stage == 1:
            shutil.rmtree(out, ignore_errors=True)  # it was stopped in its first epoch
        command += options
        command += ["--dataset", "fashion-mnist", "--seed", seed, "--out", out]
    print(f"{out}: to epoch {stage}", file=sys.stderr)
    command = [str(word) for word in command]
    # The log is beside the folder, which must be empty at first.
    with open(f"{out}.log", "a") as log:
        if subprocess.call(command, stdout=log) != 0:
            raise common.UserError(f"{out} could not be trained")


# ---- the table and the pictures


def references(data_dir):
    """What the numbers are for images that are good, or bad in a known way."""
    images, classes = read("train", data_dir)
    some = images[:COUNT]
    yield "real training images", some
    generator = torch.Generator().manual_seed(0)
    gaussian = torch.randn(COUNT, 1, 28, 28, generator=generator)
    yield "the same with noise, sigma 0.2", (some + 0.2 * gaussian).clamp(-1, 1)
    trousers = images[classes == 1].repeat(2, 1, 1, 1)
    yield "one class alone (trousers)", trousers[:COUNT]


def table_row(name, epochs, seeds, found):
    """A row for what was found for each seed: means, and how far the seeds spread."""
    cells = [str(name), str(epochs), str(seeds)]
    for column, digits in COLUMNS.items():
        values = [numbers[column] for numbers in found if column in numbers]
        cell = ""
        if values:
            cell = f"{statistics.mean(values):.{digits}f}"
        if len(values) > 1:
            cell += f" ± {statistics.stdev(values):.{digits}f}"
        cells.append(cell)
    return f"| {' | '.join(cells)} |"


def draw_contact(generators, real):
    """A row of images for each of the generators' files, all of the same z."""
    pictures = [real[:12]]
    for path in generators.values():
        G, _ = perturb.load_generator(path)
        pictures.append(draw(G, noise(100, count=12)))
    sheet = common.grid(torch.cat(pictures), columns=12, zoom=2)
    labels = ["real", *generators]
    common.save_sheet(DOCS / "contact.png", sheet, rows=labels, fontsize=10)


def draw_epochs(curves):
    """What became of each network: curves[name] is a list of (epoch, numbers)."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    panels = figure.subplots(2, 2).flat
    for axes, column in zip(panels, ("FD", "precision", "recall", "classes")):
        ticks = set()
        for name, points in curves.items():
            epochs = [epoch for epoch, _ in points]
            values = [numbers[column] for _, numbers in points]
            axes.plot(epochs, values, "o-", markersize=4, label=name)
            ticks.update(epochs)
        ticks.discard(150)  # its label would touch that of 200
        axes.set_title(column)
        axes.set_xscale("log")
        axes.set_xticks(sorted(ticks), sorted(ticks))
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        if column == "FD":
            axes.set_yscale("log")
        elif column == "classes":
            axes.set_ylim(0, 10.5)
            # Most networks have nearly 10, so there is room.
            axes.legend(fontsize=8, loc="center")
        else:
            axes.set_ylim(0, 1.05)
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

    real, _ = read("t10k", args.data_dir)
    judge = Judge(net, second, real)
    for name, images in references(args.data_dir):
        yield table_row(name, "", "", [judge.images(images)])
    for path in args.generators:
        numbers, saved = judge.generator(path)
        name = path.parent.name or path
        yield table_row(name, saved["epoch"], saved["args"].get("seed"), [numbers])

    seeds = " ".join(map(str, args.seeds))
    epochs = stages(args.epochs) if args.each else [args.epochs]
    curves = {}  # of each family, means over the seeds
    for family in families:
        for seed in args.seeds:
            train(family, seed, args)
        curves[family] = []
        for epoch in epochs:
            found = []
            for seed in args.seeds:
                numbers, _ = judge.generator(generator_at(epoch, family, seed))
                found.append(numbers)
            yield table_row(family, epoch, seeds, found)
            curves[family].append((epoch, means(found)))
    if args.each:
        draw_epochs(curves)
    if args.train and not args.only:
        generators = {}
        for family in families:
            generators[family] = generator_at(args.epochs, family, args.seeds[0])
        draw_contact(generators, real)


def means(found):
    """Of each number, the mean over the seeds."""
    return {
        column: statistics.mean(numbers[column] for numbers in found)
        for column in COLUMNS
    }


def choose_families(args):
    """The commands to train."""
    if not args.train:
        return []
    if not args.only:
        return FAMILIES
    return [name for name in FAMILIES if any(part in name for part in args.only)]


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    number = common.number
    add = parser.add_argument
    add("generators", nargs="*", type=Path, help="g.pt files")
    add("--train", action="store_true", help="train every network first")
    add("--only", nargs="+", metavar="NAME", help="with --train: a part of them")
    add("--epochs", type=number(int, 1), default=20, help="with --train (20)")
    add("--each", action="store_true", help="with --train: a row for each stage")
    add("--seeds", type=number(int, 0), nargs="+", default=[0], help="with --train (0)")
    add("--data-dir", type=Path, help="as of the scripts")
    add("--device", default="auto", help="as of the scripts")
    add("--out", type=Path, help="the table (with --train: benchmarks/quality.md)")
    args = parser.parse_args()
    if not choose_families(args) and not args.generators:
        parser.error(
            "name g.pt files, or --train, and with --only something of its commands"
        )
    if (args.each or args.only) and not args.train:
        parser.error("--each and --only go with --train")
    if args.train and not args.only and args.out is None:
        args.out = HERE / "quality.md"
    return args


def main():
    args = parse_args()
    for path in args.generators:
        # A wrong one ends here, before a classifier is trained.
        perturb.load_generator(path)
    lines = []
    for line in table_lines(args, choose_families(args)):
        lines.append(line)
        print(line)
    if args.out:
        table = "\n".join(lines) + "\n"
        common.write(args.out, table.encode())


if __name__ == "__main__":
    common.run(main)
