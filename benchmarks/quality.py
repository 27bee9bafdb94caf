"""How good the generated images are: a table of numbers for any number of generators.

    python benchmarks/quality.py runs/dcgan/g.pt runs/gan_mlp/g.pt
    python benchmarks/quality.py --train                   # trains every network first: quality.md
    python benchmarks/quality.py --train --seeds 0 1 2

10,000 generated images are compared with Fashion-MNIST's 10,000 test images, which no training
has seen, in the features of a small classifier that this script trains on the 60,000 training
images: once, with a fixed seed; it is kept in runs/quality-classifier.pt.

FD          Frechet distance of the two clouds of features, taken for Gaussians: lower is better
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

--train also draws docs/contact.png, all generators at the same z, and docs/time.png, the Frechet
distance against the time trained. It trains the MLPs with all the seeds, the others, which take
longer, with the first. What it trained stays in runs/quality-20, and is not trained again.
"""

import gzip
import math
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

CLASSIFIER = Path("runs", "quality-classifier.pt")
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
# What the common tutorials train: Adam as it comes, the newest weights for sampling.
TUTORIAL = "--lr 2e-4 --beta1 0.9 --ema 0"
COLUMNS = {  # and how many digits each has
    "FD": 1,
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
        raise common.UserError(
            "the whole Fashion-MNIST is needed: run a script once to download it"
        )
    images = train.with_name(train.name.replace("train", part))
    labels = images.with_name(images.name.replace("images-idx3", "labels-idx1"))
    with (gzip.open if labels.suffix == ".gz" else open)(labels, "rb") as file:
        classes = torch.frombuffer(bytearray(file.read()[8:]), dtype=torch.uint8).long()
    return common.read_idx(images).float() / 127.5 - 1, classes


class Classifier(nn.Module):
    """A small convolutional network; what it computes before its last layer are the features."""

    def __init__(self):
        super().__init__()

        def block(inputs, outputs):
            return [nn.Conv2d(inputs, outputs, 3, 1, 1), nn.BatchNorm2d(outputs), nn.ReLU()]

        self.features = nn.Sequential(
            *block(1, 32),
            nn.MaxPool2d(2),
            *block(32, 64),
            *block(64, 64),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(64 * 7 * 7, 128),
            nn.ReLU(),
        )
        self.last = nn.Linear(128, 10)

    def forward(self, x):
        return self.last(self.features(x))


def train_classifier(data_dir, device, epochs=6, batch=128):
    images, classes = read("train", data_dir)
    torch.manual_seed(0)
    net = Classifier().to(device, memory_format=torch.channels_last)
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
    return net.eval()


def load_classifier(data_dir, device):
    """The classifier, trained now if it was not before, and its share of right answers."""
    net = Classifier()
    if CLASSIFIER.exists():
        net.load_state_dict(torch.load(CLASSIFIER, map_location="cpu", weights_only=True))
        net.to(device).eval()
    else:
        net = train_classifier(data_dir, device)
        CLASSIFIER.parent.mkdir(exist_ok=True)
        common.save(CLASSIFIER, net.state_dict())
    images, classes = read("t10k", data_dir)
    right = (describe(net, images)[1] == classes).float().mean().item()
    if right < 0.92:
        raise common.UserError(f"{CLASSIFIER} is right in {right:.1%} only: delete it, try again")
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


def judge(net, real, images):
    """FD, precision, recall and classes of images, beside the features of the real ones."""
    features, classes = describe(net, images)
    return {
        "FD": frechet(features, real),
        "precision": coverage(features, real),
        "recall": coverage(real, features),
        "classes": effective_classes(classes),
        "brightness": (images.mean().item() + 1) * 127.5,
        "sharpness": sharpness(images),
        "saturated": (images.abs() > 0.99).float().mean().item(),
    }


@torch.inference_mode()
def draw(G, z):
    return torch.cat([G(part) for part in z.split(500)]).clamp(-1, 1)


def noise(z_dim, count=COUNT):
    return torch.randn(count, z_dim, generator=torch.Generator().manual_seed(1))


def kept(net, G, z_dim, value=5, count=1000):
    """The share of images whose predicted class survives one entry of z being set to value."""
    z = noise(z_dim, count)
    before, stays = describe(net, draw(G, z))[1], []
    for position in common.spread(z_dim):
        changed = z.clone()
        changed[:, position] = value
        stays.append((describe(net, draw(G, changed))[1] == before).float().mean().item())
    return statistics.mean(stays)


def judge_generator(net, real, path):
    G, saved = perturb.load_generator(path)
    z_dim = saved["z_dim"]
    row = judge(net, real, draw(G, noise(z_dim)))
    return row | {"kept": kept(net, G, z_dim)}, saved


# ---- training


def name_of(family):
    script, *options = family.split()
    return "-".join([script, *(word.strip("-") for word in options if word != "--arch")])


def stages(epochs):
    """When to look: after 5, 10, 25, 50 and 100 % of the epochs."""
    return sorted({math.ceil(epochs * part / 100) for part in (5, 10, 25, 50, 100)})


def train(family, seed, args):
    """A network, as a user would train it, with a copy of g.pt kept at each stage."""
    script, *options = family.split()
    out = Path("runs", f"quality-{args.epochs}", f"{name_of(family)}-seed{seed}")
    for stage in stages(args.epochs):
        if (out / f"g-{stage:03d}.pt").exists():
            continue
        command = [sys.executable, HERE.parent / f"{script}.py", "--epochs", stage]
        command += ["--data-dir", args.data_dir, "--device", args.device]
        if (out / "ckpt.pt").exists():
            command += ["--resume", out]
        else:
            command += [*options, "--dataset", "fashion-mnist", "--seed", seed, "--out", out]
        print(f"{out}: to epoch {stage}", file=sys.stderr, flush=True)
        if subprocess.call(list(map(str, command)), stdout=subprocess.DEVNULL):
            raise common.UserError(f"{out} could not be trained")
        shutil.copy(out / "g.pt", out / f"g-{stage:03d}.pt")
    return out


def seconds_per_epoch(name):
    """As benchmarks/speed.py measured it, with the default of --bf16."""
    for line in (HERE / "speed.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 12 and cells[0] in (name, name.partition("-")[2]):
            return min(float(cell) for cell in (cells[2], cells[6]) if cell != "-")
    raise common.UserError(f"{name} is not in {HERE / 'speed.md'}: run benchmarks/speed.py first")


# ---- the table and the pictures


def references(data_dir):
    """What the numbers are for images that are good, or bad in a known way."""
    images, classes = read("train", data_dir)
    grain = torch.randn(COUNT, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    yield "real training images", images[:COUNT]
    yield "the same with noise, sigma 0.2", (images[:COUNT] + 0.2 * grain).clamp(-1, 1)
    yield "one class alone (trousers)", images[classes == 1].repeat(2, 1, 1, 1)[:COUNT]


class Table:
    """Printed line by line, and saved in the end."""

    def __init__(self, path, title, real_sharpness):
        self.path, self.real_sharpness = path, real_sharpness
        self.lines = []
        self.line(title)
        self.line("")
        self.line(f"| run | epochs | seeds | {' | '.join(COLUMNS)} |")
        self.line("|---" * (3 + len(COLUMNS)) + "|")

    def line(self, text):
        self.lines.append(text)
        print(text, flush=True)

    def row(self, name, epochs, seeds, found):
        """A row for what was found for each seed: means, and how far the seeds spread."""
        cells = []
        for column, digits in COLUMNS.items():
            values = [row[column] for row in found if column in row]
            if column == "sharpness":
                values = [value / self.real_sharpness for value in values]
            cell = f"{statistics.mean(values):.{digits}f}" if values else ""
            if len(values) > 1:
                cell += f" ± {statistics.stdev(values):.{digits}f}"
            cells.append(cell)
        self.line(f"| {name} | {epochs} | {seeds} | {' | '.join(cells)} |")

    def save(self):
        common.write(self.path, ("\n".join(self.lines) + "\n").encode())


def draw_contact(runs, real):
    """A row of images for each run, all of the same z."""
    rows = [
        real[:12],
        *(draw(perturb.load_generator(out / "g.pt")[0], noise(100, 12)) for out in runs),
    ]
    labels = ["real", *(out.name.rpartition("-seed")[0] for out in runs)]
    sheet = common.grid(torch.cat(rows), 12, zoom=2)
    common.save_sheet(DOCS / "contact.png", sheet, rows=labels, fontsize=10)


def draw_time(distances):
    """Frechet distance against training time, for each run a curve through its stages."""
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    for index, (out, found) in enumerate(distances.items()):
        label = out.name.rpartition("-seed")[0]
        times = [seconds_per_epoch(label) * stage for stage, _ in found]
        style = {"color": f"C{index % 10}", "linestyle": "-" if index < 10 else "--"}
        axes.loglog(times, [fd for _, fd in found], "o", label=label, **style)
    axes.axvline(300, color="grey", linewidth=0.8)
    axes.text(300, axes.get_ylim()[1], " five minutes", va="top", color="grey")
    axes.set_xlabel("training time, s")
    axes.set_ylabel("Frechet distance")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=9, ncols=2)
    common.save_png(DOCS / "time.png", figure)


def main():
    parser, number = common.Parser(__doc__), common.number
    parser.add_argument("generators", nargs="*", type=Path, help="g.pt files")
    parser.add_argument("--train", action="store_true", help="train every network first")
    parser.add_argument("--epochs", type=number(int, 1), default=20, help="with --train (20)")
    parser.add_argument("--seeds", type=number(int, 0), nargs="+", default=[0], help="(0)")
    parser.add_argument("--data-dir", type=Path, default=common.DATA)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, help="the table (with --train: benchmarks/quality.md)")
    args = parser.parse_args()
    args.out = args.out or (HERE / "quality.md" if args.train else None)
    if not args.train and not args.generators:
        parser.error("name g.pt files, or --train")
    device = common.pick_device(args.device)
    net, right = load_classifier(args.data_dir, device)
    test_images = read("t10k", args.data_dir)[0]
    real, _ = describe(net, test_images)
    table = Table(
        args.out, f"Classifier: {right:.1%} of the test images right.", sharpness(test_images)
    )
    for name, images in references(args.data_dir):
        table.row(name, "", "", [judge(net, real, images)])
    for path in args.generators:
        row, saved = judge_generator(net, real, path)
        table.row(path.parent.name or path, saved["epoch"], saved["args"].get("seed"), [row])
    if args.train:
        judge_all(net, real, test_images, table, args)
    if args.out:
        table.save()


def judge_all(net, real, test_images, table, args):
    """Train and judge every network; and the MLPs as the common tutorials train them, too."""
    distances = {}
    tutorials = [f"{family} {TUTORIAL}" for family in FAMILIES[:3]]
    for family in [*FAMILIES, *tutorials]:
        seeds = args.seeds if family.startswith("gan_mlp") else args.seeds[:1]
        outs = [train(family, seed, args) for seed in seeds]
        last = f"g-{args.epochs:03d}.pt"
        found = [judge_generator(net, real, out / last)[0] for out in outs]
        table.row(" ".join(family.split()), args.epochs, " ".join(map(str, seeds)), found)
        if family in FAMILIES:
            distances[outs[0]] = [
                (stage, frechet(describe(net, draw(load(outs[0], stage), noise(100)))[0], real))
                for stage in stages(args.epochs)
            ]
    draw_contact(list(distances), test_images)
    draw_time(distances)


def load(out, stage):
    return perturb.load_generator(out / f"g-{stage:03d}.pt")[0]


if __name__ == "__main__":
    common.run_main(main)
