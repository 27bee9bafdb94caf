"""How fast every script trains: the usual loop, the script's own, and the bare training step.

    python benchmarks/speed.py                 # all networks: writes speed.md and speed.png
    python benchmarks/speed.py basic deep      # some of them
    python benchmarks/speed.py --against ../before  # this checkout's scripts and another's
    python benchmarks/speed.py --device cuda   # writes speed-cuda.md

usual  a DataLoader with ToTensor and Normalize for each image, NCHW, Adam as it comes, an .item()
       for each loss of each step
own    the script as a user types it, timed from outside by when its `epoch ...` lines arrive; in
       float32, and in bfloat16 where the processor has instructions for it
floor  the same training step, again and again on one batch that is there already; not on CUDA,
       where the scripts replay a recorded step

Each measurement is a process of its own, so that peak memory (of the process, not of a GPU) is its
own too, and nothing that one sets helps another. They take turns, because a machine's speed
drifts, and the table shows medians. An epoch is counted as 60,000 images and one end of epoch
(losses.csv, g.pt, ckpt.pt), however few images the measurement took.
"""

import argparse
import functools
import importlib
import itertools
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch.utils.flop_counter import FlopCounterMode
from torchvision import datasets, transforms

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import common

EPOCH = 60_000
FEW = 1280  # the fewest images that are whole batches in all scripts, wgan.py's 5 * 128 included
# Every network of the project: the command, and how many images a measurement needs of it.
CASES = {
    "basic": ("gan_mlp --arch basic", 46 * FEW),
    "hidden": ("gan_mlp --arch hidden", 46 * FEW),
    "deep": ("gan_mlp --arch deep", 20 * FEW),
    "conv7": ("gan_cnn --arch conv7", 4 * FEW),
    "conv4": ("gan_cnn --arch conv4", 4 * FEW),
    "separable": ("gan_cnn --arch separable", 4 * FEW),
    "tiny": ("gan_cnn --arch tiny", 10 * FEW),
    "transpose": ("dcgan --arch transpose", 6 * FEW),
    "upsample": ("dcgan --arch upsample", 4 * FEW),
    "wgan": ("wgan", 8 * FEW),
    "wgan-gp-10": ("wgan --gp 10", 6 * FEW),
}
# The tables: a heading, and what is below it, made of seconds per epoch and megabytes.
COLUMNS = {
    "usual s/epoch": lambda s, MB: f"{s['usual']:.1f}",
    "own s/epoch": lambda s, MB: f"{s['own']:.2f}",
    "images/s": lambda s, MB: f"{EPOCH / s['own']:,.0f}",
    "usual : own": lambda s, MB: f"{s['usual'] / s['own']:.2f}",
    "floor : own": lambda s, MB: f"{s['floor'] / s['own']:.2f}",
    "bf16 s/epoch": lambda s, MB: f"{s['own bf16']:.2f}",
    "usual : bf16": lambda s, MB: f"{s['usual'] / s['own bf16']:.2f}",
    "floor : bf16": lambda s, MB: f"{s['floor bf16'] / s['own bf16']:.2f}",
    "MB usual": lambda s, MB: f"{MB['usual']:.0f}",
    "own": lambda s, MB: f"{MB['own']:.0f}",
    "bf16": lambda s, MB: f"{MB['own bf16']:.0f}",
}
CUDA = "usual s/epoch", "own s/epoch", "images/s", "usual : own", "bf16 s/epoch", "usual : bf16"
AGAINST = {
    "own s/epoch": lambda s, MB: f"{s['own']:.2f}",
    "other's": lambda s, MB: f"{s['other']:.2f}",
    "other : own": lambda s, MB: f"{s['other'] / s['own']:.3f}",
    "bf16 s/epoch": lambda s, MB: f"{s['own bf16']:.2f}",
    "other's bf16": lambda s, MB: f"{s['other bf16']:.2f}",
    "other : own, bf16": lambda s, MB: f"{s['other bf16'] / s['own bf16']:.3f}",
    "MB own": lambda s, MB: f"{MB['own']:.0f}",
    "other": lambda s, MB: f"{MB['other']:.0f}",
}


# ---- the usual loop, as the common tutorials have it
def usual_gan(G, D, device):
    opt_G = torch.optim.Adam(G.parameters(), lr=2e-4)
    opt_D = torch.optim.Adam(D.parameters(), lr=2e-4)

    def epoch(loader):
        for real, _ in loader:
            real = real.to(device)
            ones, zeros = torch.ones(len(real)).to(device), torch.zeros(len(real)).to(device)
            fake = G(torch.randn(len(real), 100).to(device))
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


def usual_wgan(G, D, device, penalty=None):
    if penalty:
        opt_G = torch.optim.Adam(G.parameters(), lr=1e-4, betas=(0.0, 0.9))
        opt_D = torch.optim.Adam(D.parameters(), lr=1e-4, betas=(0.0, 0.9))
    else:
        opt_G = torch.optim.RMSprop(G.parameters(), lr=5e-5)
        opt_D = torch.optim.RMSprop(D.parameters(), lr=5e-5)

    def epoch(loader):
        for step, (real, _) in enumerate(loader):
            real = real.to(device)
            fake = G(torch.randn(len(real), 100).to(device)).detach()
            loss_D = D(fake).mean() - D(real).mean()
            if penalty:
                loss_D = loss_D + 10 * penalty(D, real, fake)
            opt_D.zero_grad()
            loss_D.backward()
            opt_D.step()
            if not penalty:
                for weight in D.parameters():
                    weight.data.clamp_(-0.01, 0.01)
            loss_D.item()
            if (step + 1) % (2 if penalty else 5) == 0:  # as wgan.py does it
                loss_G = -D(G(torch.randn(len(real), 100).to(device))).mean()
                opt_G.zero_grad()
                loss_G.backward()
                opt_G.step()
                loss_G.item()

    return epoch


def networks(command):
    """The script's module, its options, and a new pair of the networks that the command names."""
    script, *options = command.split()
    module = importlib.import_module(script)
    make_G, make_D = module.ARCHS[options[1] if options[:1] == ["--arch"] else "transpose"]
    return module, options, make_G(), make_D()


def run_usual(command, folder, device, bf16=False):
    """One pass of the usual loop over the folder's images."""
    to_tensor = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])
    data = datasets.FashionMNIST(folder, transform=to_tensor)
    loader = torch.utils.data.DataLoader(data, batch_size=128, shuffle=True, drop_last=True)
    module, options, G, D = networks(command)
    if module.__name__ == "wgan":
        penalty = module.gradient_penalty if options else None
        epoch = usual_wgan(G.to(device), D.to(device), device, penalty)
    else:
        epoch = usual_gan(G.to(device), D.to(device), device)
    epoch(itertools.islice(loader, 5))  # to warm up
    print("epoch 0", flush=True)
    epoch(loader)
    print("epoch 1", flush=True)


# ---- the bare training step, as the scripts' main() prepares it
def run_floor(command, folder, device, bf16):
    """As many steps as an epoch over the folder's images has, all on one batch."""
    device = common.prepare_device(device)
    module, options, G, D = networks(command)
    G.to(device, memory_format=torch.channels_last)  # which leaves what is no convolution alone
    D.to(device, memory_format=torch.channels_last)
    wgan = module.__name__ == "wgan"
    r1 = 0.1 if module.__name__ == "gan_cnn" or options[-1:] == ["upsample"] else 1.0
    gp, n_critic = (10.0, 2) if options[:1] == ["--gp"] else (0.0, 5 if wgan else 1)
    adam = {"lr": 5e-4 if wgan else 1e-3, "betas": (0.0, 0.9) if wgan else (0.5, 0.999)}
    make = functools.partial(torch.optim.Adam, **adam, fused=True)
    if wgan and not gp:
        make = functools.partial(torch.optim.RMSprop, lr=5e-5)
    images = common.read_idx(common.find_images("fashion-mnist", folder)).to(device)
    real = images[: n_critic * 128] / 127.5 - 1
    z = torch.randn(len(real), 100, device=device)
    if wgan:
        real, z = real.chunk(n_critic), z.chunk(n_critic)
    more = {"gp": gp} if wgan else {"r1": r1}
    step = functools.partial(module.train_step, G, D, make(G.parameters()), make(D.parameters()))
    for count in (5, len(images) // (n_critic * 128)):  # the first to warm up
        for _ in range(count):
            losses = step(real, z, bf16, **more)
        print("epoch", losses.tolist(), flush=True)  # which waits for a GPU


# ---- counting
def cost(command, z_dim=100):
    """Parameters, and multiply-adds for one image, of a generator and its discriminator."""
    _, _, G, D = networks(command)
    with FlopCounterMode(display=False) as counter:
        D.eval()(G.eval()(torch.zeros(1, z_dim)))
    parameters = sum(p.numel() for network in (G, D) for p in network.parameters())
    return parameters, counter.get_total_flops() // 2


# ---- measuring
def watch(command, epochs=1):
    """Run a command until it has printed that many `epoch ...` lines and one more: seconds from
    line to line, and the most megabytes that it had."""
    stamps, lines = [], []
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            cwd=folder,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        with process:
            try:
                while len(stamps) <= epochs and (line := process.stdout.readline()):
                    lines.append(line)
                    if line.startswith("epoch "):
                        stamps.append(time.perf_counter())
                memory = peak_memory(process.pid)
            finally:
                process.kill()
    if len(stamps) <= epochs:
        raise common.UserError(f"{' '.join(map(str, command))} ended:\n{''.join(lines[-20:])}")
    return (stamps[-1] - stamps[0]) / epochs, memory


def peak_memory(process):
    """MB at most, so far. Not from getrusage, which counts what its parent had before it, too."""
    status = Path(f"/proc/{process}/status")
    found = re.search(r"VmHWM:\s*(\d+)", status.read_text()) if status.exists() else None
    return int(found[1]) * 1024 / 1e6 if found else math.nan  # none but on Linux


def apart(what, command, images, where, device, bf16=False):
    """Seconds per epoch and MB of this file's run_usual or run_floor, in a process of its own."""
    line = [__file__, "--apart", what, command, where / "many", "--device", device]
    seconds, memory = watch(line + ["--bf16"] * bf16)
    return seconds * EPOCH / images, memory


def own(checkout, command, images, where, device, bf16=False):
    """Seconds per epoch and MB of a checkout's script.

    Few images and many tell an epoch's end, which any number of images has once, from its steps.
    On CUDA, where an epoch takes seconds, many are all.
    """
    script, *options = command.split()
    line = [checkout / f"{script}.py", *options, "--bf16" if bf16 else "--no-bf16"]
    # Of 1000 epochs the first quarter draws no pictures; after three it is stopped.
    line += ["--device", device, "--batch-size", 128, "--epochs", 1000, "--data-dir"]
    many, memory = watch([*line, where / "many"], epochs=2)
    if images == EPOCH:
        return many, memory
    few, _ = watch([*line, where / "few"], epochs=2)
    return few + (many - few) / (images - FEW) * (EPOCH - FEW), memory


def prepare(folder, images):
    """The first images of Fashion-MNIST in torchvision's layout, for all to read."""
    raw = Path(folder, "FashionMNIST", "raw")
    raw.mkdir(parents=True)
    found = common.find_images("fashion-mnist")
    if not found:
        raise common.UserError("Fashion-MNIST is needed: run a script once to download it")
    pixels = common.read_idx(found)[:images]
    for kind, data in ("train", pixels), ("t10k", pixels[:1]):
        header = b"".join(n.to_bytes(4, "big") for n in (0x803, len(data), 28, 28))
        (raw / f"{kind}-images-idx3-ubyte").write_bytes(header + data.numpy().tobytes())
        labels = b"".join(n.to_bytes(4, "big") for n in (0x801, len(data))) + bytes(len(data))
        (raw / f"{kind}-labels-idx1-ubyte").write_bytes(labels)


def contenders(against, device):
    """What takes turns: names, and functions that give seconds per epoch and MB."""
    found = {} if against else {"usual": functools.partial(apart, "usual")}
    bf16 = device != "cpu" or torch.cpu.get_capabilities().get("avx512_bf16", False)
    for name, on in [("", False), (" bf16", True)][: 1 + bf16]:
        found[f"own{name}"] = functools.partial(own, HERE.parent, bf16=on)
        if against:
            found[f"other{name}"] = functools.partial(own, against, bf16=on)
        elif device == "cpu":
            found[f"floor{name}"] = functools.partial(apart, "floor", bf16=on)
    return found


def measure(case, args):
    """The medians for every contender: seconds per epoch, and peak MB."""
    command, images = CASES[case]
    images = images if args.device == "cpu" else EPOCH
    runs = contenders(args.against, args.device)
    results = {name: [] for name in runs}
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        prepare(where / "few", FEW)
        prepare(where / "many", images)
        for _ in range(args.rounds):
            for name, run in runs.items():
                results[name].append(run(command, images, where, args.device))
    medians = {name: map(statistics.median, zip(*found)) for name, found in results.items()}
    seconds, memory = zip(*medians.values())
    return dict(zip(medians, seconds)), dict(zip(medians, memory))


# ---- the table and the picture
def cell(column, row):
    try:
        return column(*row)
    except KeyError:  # no bfloat16 on this machine
        return "-"


def tabulate(args):
    """Print a row as soon as it is measured. The whole table, all networks, is kept."""
    columns, rows, lines = AGAINST if args.against else COLUMNS, {}, []
    if columns is COLUMNS and args.device != "cpu":
        columns = {name: COLUMNS[name] for name in CUDA}

    def say(line):
        lines.append(line)
        print(line, flush=True)

    where = f"cpu, {torch.get_num_threads()} threads"
    if args.device != "cpu":
        where = torch.cuda.get_device_name(common.prepare_device(args.device))
    say(f"torch {torch.__version__}, {where}, batch 128, medians of {args.rounds}")
    say("")
    say(f"| network | {' | '.join(columns)} |")
    say("|" + "---|" * (1 + len(columns)))
    for case in args.networks or CASES:
        rows[case] = measure(case, args)
        cells = [cell(column, rows[case]) for column in columns.values()]
        say(f"| {case} | {' | '.join(cells)} |")
    if len(rows) == len(CASES) and not args.against:
        name = "speed.md" if args.device == "cpu" else "speed-cuda.md"
        common.write(HERE / name, ("\n".join(lines) + "\n").encode())
        if args.device == "cpu":
            draw({case: seconds for case, (seconds, _) in rows.items()})


def draw(rows):
    """Bars of images per second, as many times the usual loop's."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots()
    kinds = [("", -0.2, "tab:blue", "float32"), (" bf16", 0.2, "tab:orange", "bfloat16")]
    for kind, shift, colour, label in kinds:
        drawn = [row for row in rows.values() if f"own{kind}" in row]
        at = [index + shift for index in range(len(drawn))]
        times = [row["usual"] / row[f"own{kind}"] for row in drawn]
        floor = [row["usual"] / row[f"floor{kind}"] for row in drawn]
        bars = axes.bar(at, times, 0.38, color=colour, label=f"own, {label}")
        axes.bar_label(bars, fmt="%.1f", fontsize=8, label_type="center", color="white")
        axes.plot(at, floor, "k_", markersize=14, label=None if kind else "floor")
    axes.axhline(1, color="grey", linewidth=1, label="the usual loop", zorder=0.5)
    axes.set_xticks(range(len(rows)), rows)
    axes.set_ylabel("speed, as multiples of the usual loop's")
    axes.legend()
    common.save_png(HERE / "speed.png", figure)


def main():
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("networks", nargs="*", help=f"default: all, {' '.join(CASES)}")
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="of another checkout")
    parser.add_argument("--rounds", type=common.number(int, 1), default=3, help="default: 3")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--count", action="store_true", help="parameters and multiply-adds only")
    parser.add_argument("--apart", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--bf16", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.apart:
        what, command, folder = args.apart
        run = {"usual": run_usual, "floor": run_floor}[what]
        run(command, folder, args.device, args.bf16)
        time.sleep(60)  # watch() looks how much memory it had, and stops it
        return
    if unknown := set(args.networks) - set(CASES):
        parser.error(f"no network is called {' '.join(unknown)}; there are {' '.join(CASES)}")
    if args.count:
        print("| network | parameters | multiply-adds for an image |\n|---|---|---|")
        for case in args.networks or CASES:
            print("| {} | {:,} | {:,} |".format(case, *cost(CASES[case][0])))
        return
    args.against = args.against and args.against.resolve()
    tabulate(args)


if __name__ == "__main__":
    common.run(main)
