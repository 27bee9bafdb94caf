"""How fast every script trains: the usual loop, the script's own, and the bare training step.

    python benchmarks/speed.py                 # all architectures; its last table: speed.md
    python benchmarks/speed.py basic deep      # some of them
    python benchmarks/speed.py --images 60000 --rounds 5

usual  a DataLoader with ToTensor and Normalize for each image, NCHW, Adam as it comes, an .item()
       for each loss of each step
own    the script itself: its main() is called, and its epochs are timed from inside
floor  the script's train_step, again and again on one batch that is there already

They take turns, because a machine's speed drifts, and the table shows medians. The usual loop runs
in processes of its own, where nothing that the scripts set for the whole process helps it.
An epoch is counted as 60,000 images and one end of epoch (losses.csv, g.pt, ckpt.pt), however
few images the measurement took.
"""

import argparse
import contextlib
import importlib
import io
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import common

SCRIPTS = ("gan_mlp", "gan_cnn", "dcgan", "wgan")
BATCH, EPOCH = 128, 60_000


def usual_loader(folder):
    to_tensor = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])
    data = datasets.FashionMNIST(folder, transform=to_tensor)
    return DataLoader(data, batch_size=BATCH, shuffle=True, drop_last=True)


def usual_gan(make_G, make_D):
    """The loop of the common tutorials."""
    G, D = make_G(), make_D()
    opt_G = torch.optim.Adam(G.parameters(), lr=2e-4)
    opt_D = torch.optim.Adam(D.parameters(), lr=2e-4)

    def epoch(loader):
        for real, _ in loader:
            ones, zeros = torch.ones(len(real)), torch.zeros(len(real))
            fake = G(torch.randn(len(real), 100))
            loss_D = F.binary_cross_entropy(D(real), ones)
            loss_D = loss_D + F.binary_cross_entropy(D(fake.detach()), zeros)
            opt_D.zero_grad()
            loss_D.backward()
            opt_D.step()
            loss_G = F.binary_cross_entropy(D(fake), ones)
            opt_G.zero_grad()
            loss_G.backward()
            opt_G.step()
            loss_D.item(), loss_G.item()

    return epoch


def usual_wgan(make_G, make_D):
    G, D = make_G(), make_D()
    opt_G = torch.optim.RMSprop(G.parameters(), lr=5e-5)
    opt_D = torch.optim.RMSprop(D.parameters(), lr=5e-5)

    def epoch(loader):
        for step, (real, _) in enumerate(loader):
            fake = G(torch.randn(len(real), 100))
            loss_D = D(fake.detach()).mean() - D(real).mean()
            opt_D.zero_grad()
            loss_D.backward()
            opt_D.step()
            for weight in D.parameters():
                weight.data.clamp_(-0.01, 0.01)
            loss_D.item()
            if step % 5 == 4:
                loss_G = -D(G(torch.randn(len(real), 100))).mean()
                opt_G.zero_grad()
                loss_G.backward()
                opt_G.step()
                loss_G.item()

    return epoch


class TimedRun(common.Run):
    """A run that notes how long the steps of an epoch took, and how long its end."""

    def __enter__(self):
        TimedRun.last, self.clock = self, time.perf_counter()
        return super().__enter__()

    def end_epoch(self):
        begun_end = time.perf_counter()
        super().end_epoch()
        self.took = begun_end - self.clock, time.perf_counter() - begun_end
        self.clock = time.perf_counter()


def own(script, arch, folder):
    """Run the script for two epochs; seconds for the steps of the second, for its end, the run."""
    with tempfile.TemporaryDirectory() as out:
        sys.argv = [f"{script}.py", "--arch", arch, "--epochs", "2", "--device", "cpu"]
        sys.argv += ["--data-dir", folder, "--out", out]
        with contextlib.redirect_stdout(io.StringIO()):
            importlib.import_module(script).main()
    return *TimedRun.last.took, TimedRun.last


def floor(script, run, steps):
    """Seconds for that many of the script's train_step, with the networks of its run."""
    n_critic, extra = 1, ()
    shape = (BATCH,)
    if script == "wgan":
        n_critic, extra = run.args.n_critic, (run.args.clip, run.args.gp)
        shape = (n_critic, BATCH)
    real, z = torch.rand(*shape, 1, 28, 28) * 2 - 1, torch.randn(*shape, 100)
    train_step = importlib.import_module(script).train_step
    began = time.perf_counter()
    for _ in range(steps // n_critic):
        train_step(*(run.state[name] for name in ("G", "D", "opt_G", "opt_D")), real, z, *extra)
    return (time.perf_counter() - began) * steps / (steps // n_critic * n_critic)


def usual(script, arch, folder):
    """Seconds for one pass of the usual loop over the folder's images."""
    make_G, make_D = importlib.import_module(script).ARCHS[arch]
    epoch = (usual_wgan if script == "wgan" else usual_gan)(make_G, make_D)
    loader = usual_loader(folder)
    epoch(itertools.islice(loader, 5))  # to warm up
    began = time.perf_counter()
    epoch(loader)
    return time.perf_counter() - began


def usual_apart(*arguments):
    command = [sys.executable, __file__, "--usual", *arguments]
    return float(subprocess.check_output(command, text=True))


def measure(script, arch, folder, images, rounds):
    """Median seconds of an epoch of 60,000 images: usual, own, floor; and of the epoch's end."""
    scale, times = (EPOCH // BATCH) / (images // BATCH), []
    for _ in range(rounds):
        usual_time = usual_apart(script, arch, folder)
        own_time, end, run = own(script, arch, folder)
        own_steps = run.steps * (5 if script == "wgan" else 1)
        floor_time = floor(script, run, own_steps)
        full = EPOCH // BATCH / own_steps
        times.append((usual_time * scale, own_time * full + end, floor_time * full, end))
    return [statistics.median(column) for column in zip(*times)]


def prepare(folder, images):
    """The first images of Fashion-MNIST in torchvision's layout, for all three to read."""
    raw = Path(folder, "FashionMNIST", "raw")
    raw.mkdir(parents=True)
    pixels = common.read_idx(common.find_images("fashion-mnist", common.DATA))[:images]
    for kind, data in ("train", pixels), ("t10k", pixels[:1]):
        header = b"".join(n.to_bytes(4, "big") for n in (0x803, len(data), 28, 28))
        (raw / f"{kind}-images-idx3-ubyte").write_bytes(header + data.numpy().tobytes())
        labels = b"".join(n.to_bytes(4, "big") for n in (0x801, len(data))) + bytes(len(data))
        (raw / f"{kind}-labels-idx1-ubyte").write_bytes(labels)


def main():
    known = {arch: s for s in SCRIPTS for arch in importlib.import_module(s).ARCHS if s != "wgan"}
    known["wgan"] = "wgan"
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archs", nargs="*", choices=[*known, []], help="default: all")
    parser.add_argument("--images", type=int, help="in an epoch measured (MLPs 60000, others 6400)")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--usual", nargs=3, help=argparse.SUPPRESS)  # for usual_apart
    args = parser.parse_args()
    if args.usual:
        print(usual(*args.usual))
        return
    common.Run = TimedRun

    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, batch {BATCH}\n")
    print(
        "| arch | usual s/epoch | own s/epoch | own images/s | usual : own | floor : own | end s |"
    )
    print("|---|---|---|---|---|---|---|")
    for arch in args.archs or known:
        script = known[arch]
        images = args.images or (EPOCH if script == "gan_mlp" else 6400)
        with tempfile.TemporaryDirectory() as folder:
            prepare(folder, images)
            name = "transpose" if arch == "wgan" else arch
            theirs, mine, floor_time, end = measure(script, name, folder, images, args.rounds)
        print(
            f"| {arch} | {theirs:.1f} | {mine:.2f} | {EPOCH / mine:,.0f} | {theirs / mine:.2f} "
            f"| {floor_time / mine:.2f} | {end:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
