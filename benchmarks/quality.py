"""How good the generated images are: a table of numbers for any number of generators.

    python benchmarks/quality.py runs/dcgan/g.pt runs/gan_mlp/g.pt
    python benchmarks/quality.py --train --epochs 20 --seeds 0    # trains every network first

10,000 generated images are compared with Fashion-MNIST's 10,000 test images, which no training
has seen, in the features of a small classifier that this script trains on the 60,000 training
images: once, with a fixed seed; it is kept in runs/quality-classifier.pt.

FD         Frechet distance between the two clouds of features, taken for Gaussians: lower is better
precision  the share of generated images that lie among the real ones (k = 3 neighbours): fidelity
recall     the share of real images that lie among the generated ones: diversity
classes    how many kinds of garments there are, exp(entropy) of the classes predicted: at most 10

The features are this classifier's, so its numbers stand beside each other, and not beside the
FIDs of papers, which use the features of an Inception network trained on photographs.
"""

import gzip
import subprocess
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import common
import perturb

CLASSIFIER = Path("runs", "quality-classifier.pt")
COUNT = 10_000
# Every network of the project, as a command line.
FAMILIES = [
    "gan_mlp --arch basic",
    "gan_mlp --arch deep",
    "gan_mlp --arch hidden",
    "gan_cnn --arch conv7",
    "gan_cnn --arch conv4",
    "gan_cnn --arch separable",
    "gan_cnn --arch tiny",
    "dcgan --arch transpose",
    "dcgan --arch upsample",
    "wgan",
    "wgan --gp 10",
]


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


def judge(net, real, images):
    """FD, precision, recall and classes of images, beside the features of the real ones."""
    features, classes = describe(net, images)
    return (
        frechet(features, real),
        coverage(features, real),
        coverage(real, features),
        effective_classes(classes),
    )


def generate(path):
    G, saved = perturb.load_generator(path)
    z = torch.randn(COUNT, saved["z_dim"], generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        images = torch.cat([G(x) for x in z.split(500)])
    return images.clamp(-1, 1), path.parent.name, saved["args"].get("seed"), saved["epoch"]


# ---- the table


def references(data_dir):
    """What the numbers are for images that are good, or bad in a known way."""
    images, classes = read("train", data_dir)
    noise = torch.randn(COUNT, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    yield "real training images", images[:COUNT]
    yield "the same with noise, sigma 0.2", (images[:COUNT] + 0.2 * noise).clamp(-1, 1)
    yield "one class alone (trousers)", images[classes == 1].repeat(2, 1, 1, 1)[:COUNT]


def train_all(args):
    """Every network, as a user would train it; runs that are there already are gone on with."""
    for seed in args.seeds:
        for family in FAMILIES:
            script, *options = family.split()
            name = "-".join([script, *(word.strip("-") for word in options if word != "--arch")])
            out = Path("runs", "quality", f"{name}-seed{seed}")
            command = [sys.executable, HERE.parent / f"{script}.py", "--epochs", args.epochs]
            command += ["--data-dir", args.data_dir, "--device", args.device]
            if (out / "ckpt.pt").exists():
                command += ["--resume", out]
            else:
                command += [*options, "--dataset", "fashion-mnist", "--seed", seed, "--out", out]
            subprocess.run(list(map(str, command)), check=True)
            yield out / "g.pt"


def main():
    parser, number = common.Parser(__doc__), common.number
    parser.add_argument("generators", nargs="*", type=Path, help="g.pt files")
    parser.add_argument("--train", action="store_true", help="train every network first")
    parser.add_argument("--epochs", type=number(int, 1), default=20, help="with --train (20)")
    parser.add_argument("--seeds", type=number(int, 0), nargs="+", default=[0], help="(0)")
    parser.add_argument("--data-dir", type=Path, default=common.DATA)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=HERE / "quality.md", help="the table")
    args = parser.parse_args()
    paths = [*args.generators, *(train_all(args) if args.train else ())]
    device = common.pick_device(args.device)
    net, right = load_classifier(args.data_dir, device)
    real, _ = describe(net, read("t10k", args.data_dir)[0])

    lines = [
        f"Classifier: {right:.1%} of the test images right.",
        "",
        "| run | epochs | seed | FD | precision | recall | classes |",
        "|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    rows = [(images, name, "", "") for name, images in references(args.data_dir)]
    for row in [*rows, *map(generate, paths)]:
        images, name, seed, epoch = row
        fd, precision, recall, classes = judge(net, real, images)
        line = f"| {name} | {epoch} | {seed} | {fd:.1f} | {precision:.2f} | {recall:.2f} | {classes:.1f} |"
        lines.append(line)
        print(line, flush=True)
    common.write(args.out, ("\n".join(lines) + "\n").encode())


if __name__ == "__main__":
    common.run_main(main)
