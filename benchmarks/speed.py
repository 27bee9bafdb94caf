"""How fast the scripts train: the usual loop, the script's own, and its bare step.

    python benchmarks/speed.py               # all networks: speed.md and speed.png
    python benchmarks/speed.py basic deep    # some of them
    python benchmarks/speed.py --against ../before  # beside another checkout's scripts
    python benchmarks/speed.py --device cuda # speed-cuda.md
    python benchmarks/speed.py --count       # parameters and multiply-adds

usual  a DataLoader with ToTensor and Normalize for each image, NCHW, Adam as it comes,
       an .item() for each loss of each step
own    the script as a user types it, timed from outside by when its `epoch ...` lines
       arrive; in float32, and in bfloat16 where the processor has instructions for it
floor  the same training step, again and again on one batch that is there already; not
       on CUDA, where the scripts replay a recorded step

Each measurement is a process of its own, so that peak memory (of the process, not of a
GPU) is its own too, and nothing that one sets helps another. They take turns, because a
machine's speed drifts, and the table shows medians. An epoch is counted as 60,000
images and one end of epoch (losses.csv, g.pt, ckpt.pt), however few were measured.
"""

import argparse
import importlib
import itertools
import math
import os
import re
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch.utils.flop_counter import FlopCounterMode
from torchvision import datasets, transforms

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import common

BATCH = 128  # images
EPOCH = 60_000
# A multiple of the images of a step in all scripts: wgan.py --gp takes 2 batches in one.
FEW = 10 * BATCH
# Every network of the project: the command, and how many images are measured.
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


# ---- the networks that a command names


def parse_command(command):
    """Of "gan_mlp --arch deep": the module gan_mlp, and {"--arch": "deep"}."""
    script, *words = command.split()
    options = dict(zip(words[::2], words[1::2]))
    return importlib.import_module(script), options


def networks(command):
    """A new generator, and a new discriminator."""
    module, options = parse_command(command)
    arch = options.get("--arch", "transpose")  # the only one that wgan.py has
    make_G, make_D = module.ARCHS[arch]
    return make_G(), make_D()


def cost(command, z_dim=100):
    """Parameters of a generator and its discriminator; multiply-adds for an image."""
    G, D = networks(command)
    G.eval()
    D.eval()
    with FlopCounterMode(display=False) as counter:
        D(G(torch.zeros(1, z_dim)))
    weights = [*G.parameters(), *D.parameters()]
    parameters = sum(weight.numel() for weight in weights)
    multiply_adds = counter.get_total_flops() // 2
    return parameters, multiply_adds


# ---- the usual loop, as the common tutorials have it


def usual_gan(G, D, opt_G, opt_D, loader, device):
    """One epoch of a GAN."""
    for real, _ in loader:
        real = real.to(device)
        ones = torch.ones(len(real)).to(device)
        zeros = torch.zeros(len(real)).to(device)
        fake = G(torch.randn(len(real), 100).to(device))
        real_loss = F.binary_cross_entropy(D(real), ones)
        fake_loss = F.binary_cross_entropy(D(fake.detach()), zeros)
        loss_D = real_loss + fake_loss
        opt_D.zero_grad()
        loss_D.backward()
        opt_D.step()
        loss_G = F.binary_cross_entropy(D(fake), ones)
        opt_G.zero_grad()
        loss_G.backward()
        opt_G.step()
        loss_D.item()
        loss_G.item()


def usual_wgan(G, D, opt_G, opt_D, loader, device, n_critic, penalty=None):
    """One epoch of a Wasserstein GAN, with a gradient penalty or else with clipping."""
    for step, (real, _) in enumerate(loader, start=1):
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
        if step % n_critic == 0:
            loss_G = -D(G(torch.randn(len(real), 100).to(device))).mean()
            opt_G.zero_grad()
            loss_G.backward()
            opt_G.step()
            loss_G.item()


def run_usual(command, folder, device):
    """One epoch of the usual loop over the folder's images."""
    module, options = parse_command(command)
    G, D = networks(command)
    G.to(device)
    D.to(device)
    if module.__name__ == "wgan":
        n_critic = step_settings(command)["n_critic"]  # for as many steps of G as ours
    if "--gp" in options:
        make = partial(torch.optim.Adam, lr=1e-4, betas=(0.0, 0.9))
        penalty = module.gradient_penalty
        train_epoch = partial(usual_wgan, n_critic=n_critic, penalty=penalty)
    elif module.__name__ == "wgan":
        make = partial(torch.optim.RMSprop, lr=5e-5)
        train_epoch = partial(usual_wgan, n_critic=n_critic)
    else:
        make = partial(torch.optim.Adam, lr=2e-4)
        train_epoch = usual_gan
    opt_G = make(G.parameters())
    opt_D = make(D.parameters())

    to_tensor = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))]
    )
    data = datasets.FashionMNIST(folder, transform=to_tensor)
    loader = torch.utils.data.DataLoader(
        data, batch_size=BATCH, shuffle=True, drop_last=True
    )
    five = itertools.islice(loader, 5)
    train_epoch(G, D, opt_G, opt_D, five, device)  # to warm up
    print("epoch 0")
    train_epoch(G, D, opt_G, opt_D, loader, device)
    print("epoch 1")


# ---- the bare training step, as the scripts' main() prepares it


def step_settings(command):
    """What a script gives to its train_step, beside the precision."""
    module, options = parse_command(command)
    if module.__name__ == "wgan":
        ours, _ = module.SETTINGS["gp" if "--gp" in options else "clip"]
        return {
            "n_critic": ours["n_critic"],
            "clip": ours["clip"],
            "gp": float(options.get("--gp", 0)),
            "new_z": ours["new_z"],
        }
    ours, _ = module.SETTINGS[options["--arch"]]
    return {"r1": ours["r1"], "new_z": ours["new_z"]}


def run_floor(command, folder, device, bf16):
    """As many steps as an epoch over the folder's images has, all on one batch."""
    device = common.prepare_device(device)
    module, options = parse_command(command)
    G, D = networks(command)
    G = G.to(device, memory_format=torch.channels_last)
    D = D.to(device, memory_format=torch.channels_last)
    # Whatever the rates are, a step takes as long.
    if module.__name__ == "wgan" and "--gp" not in options:
        make = partial(torch.optim.RMSprop, lr=5e-5)
    else:
        make = partial(torch.optim.Adam, lr=5e-4, betas=(0.0, 0.9), fused=True)
    opt_G = make(G.parameters())
    opt_D = make(D.parameters())

    settings = step_settings(command)
    per_step = settings.get("n_critic", 1) * BATCH  # images
    images = common.read_idx(common.find_images("fashion-mnist", folder)).to(device)
    real = images[:per_step] / 127.5 - 1
    z = torch.randn(len(real), 100, device=device)
    for steps in (5, len(images) // per_step):  # five to warm up, then an epoch
        for _ in range(steps):
            losses = module.train_step(
                G, D, opt_G, opt_D, real, z, bf16=bf16, **settings
            )
        print("epoch", losses.tolist())


# ---- measuring


def write_images(folder, count):
    """The first images of Fashion-MNIST in torchvision's layout, for all to read."""
    raw = folder / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    path = common.find_images("fashion-mnist")
    if path is None:
        raise common.UserError(
            "Fashion-MNIST is needed: run a script once to download it"
        )
    pixels = common.read_idx(path)[:count]
    header = struct.pack(">4I", 0x803, len(pixels), 28, 28)
    images = header + pixels.numpy().tobytes()
    labels = struct.pack(">2I", 0x801, len(pixels)) + bytes(len(pixels))
    for part in ("train", "t10k"):  # torchvision wants both
        (raw / f"{part}-images-idx3-ubyte").write_bytes(images)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(labels)


def watch(command, epochs=1):
    """Seconds from one `epoch ...` line of a command to the next, and its peak MB.

    After the first such line and as many more as epochs, the command is stopped.
    """
    command = [sys.executable, *map(str, command)]
    lines = []
    arrived = []  # when each of the epochs' lines did
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        with process:
            try:
                for line in process.stdout:
                    lines.append(line)
                    if line.startswith("epoch "):
                        arrived.append(time.perf_counter())
                    if len(arrived) > epochs:
                        break
                memory = peak_memory(process.pid)
            finally:
                process.kill()
    if len(arrived) <= epochs:
        last_lines = "".join(lines[-20:])
        raise common.UserError(f"{' '.join(command)} ended:\n{last_lines}")
    return (arrived[-1] - arrived[0]) / epochs, memory


def peak_memory(pid):
    """The most MB that a process has had; not a number, if this is not Linux.

    getrusage would count what its parent had before it was started, too.
    """
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return math.nan
    kilobytes = re.search(r"VmHWM:\s*(\d+)", status.read_text())
    if not kilobytes:  # it has ended
        return math.nan
    return int(kilobytes[1]) * 1024 / 1e6


def measure_loop(what, command, images, folder, device, bf16=False):
    """Seconds per epoch and MB of run_usual or run_floor, in a process of its own."""
    line = [__file__, "--apart", what, command, folder / "many", "--device", device]
    if bf16:
        line.append("--bf16")
    seconds, memory = watch(line)
    return seconds * EPOCH / images, memory


def measure_script(checkout, command, images, folder, device, bf16=False):
    """Seconds per epoch and MB of a checkout's script.

    The end of an epoch, its files, costs the same however many images it has. So two measurements, with few images
    and with many, tell its end from its steps. On CUDA an epoch takes seconds: one is
    enough, of all images.
    """
    script, *options = command.split()
    line = [checkout / f"{script}.py", *options]
    line.append("--bf16" if bf16 else "--no-bf16")
    line += ["--device", device, "--batch-size", BATCH]
    # Of 1000 epochs the first quarter draws no pictures; after three it is stopped.
    line += ["--epochs", 1000, "--data-dir"]
    many, memory = watch([*line, folder / "many"], epochs=2)
    if images == EPOCH:
        return many, memory
    few, _ = watch([*line, folder / "few"], epochs=2)
    per_image = (many - few) / (images - FEW)
    return few + per_image * (EPOCH - FEW), memory


def contenders(against, device):
    """Who takes turns: names, and functions that give seconds per epoch and MB."""
    kinds = {"": False}
    if device != "cpu" or torch.cpu.get_capabilities().get("avx512_bf16", False):
        kinds[" bf16"] = True
    found = {}
    if not against:
        found["usual"] = partial(measure_loop, "usual")
    for suffix, bf16 in kinds.items():
        found["own" + suffix] = partial(measure_script, HERE.parent, bf16=bf16)
        if against:
            found["other" + suffix] = partial(measure_script, against, bf16=bf16)
        elif device == "cpu":
            found["floor" + suffix] = partial(measure_loop, "floor", bf16=bf16)
    return found


def measure(name, args):
    """For every contender the medians of its seconds per epoch, and of its peak MB."""
    command, images = CASES[name]
    if args.device != "cpu":
        images = EPOCH
    runs = contenders(args.against, args.device)
    results = {contender: [] for contender in runs}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_images(folder / "few", FEW)
        write_images(folder / "many", images)
        for _ in range(args.rounds):
            for contender, run in runs.items():
                result = run(command, images, folder, args.device)
                results[contender].append(result)
    seconds = {}
    memory = {}
    for contender, found in results.items():
        seconds[contender] = statistics.median(taken for taken, _ in found)
        memory[contender] = statistics.median(peak for _, peak in found)
    return seconds, memory


# ---- the tables and the picture

NOT_ON_CUDA = ("floor : own", "floor : bf16", "MB usual", "MB own", "MB bf16")


def row_of_usual(seconds, memory):
    """A network's row of the table: its headings, and the numbers below them."""
    usual = seconds["usual"]
    own = seconds["own"]
    # Not on every processor, and the floor not on CUDA: then these are nan.
    own_bf16 = seconds.get("own bf16", math.nan)
    floor = seconds.get("floor", math.nan)
    floor_bf16 = seconds.get("floor bf16", math.nan)
    memory_bf16 = memory.get("own bf16", math.nan)
    return {
        "usual s/epoch": f"{usual:.1f}",
        "own s/epoch": f"{own:.2f}",
        "images/s": f"{EPOCH / own:,.0f}",
        "usual : own": f"{usual / own:.2f}",
        "floor : own": f"{floor / own:.2f}",
        "bf16 s/epoch": f"{own_bf16:.2f}",
        "usual : bf16": f"{usual / own_bf16:.2f}",
        "floor : bf16": f"{floor_bf16 / own_bf16:.2f}",
        "MB usual": f"{memory['usual']:.0f}",
        "MB own": f"{memory['own']:.0f}",
        "MB bf16": f"{memory_bf16:.0f}",
    }


def row_of_other(seconds, memory):
    """The same, of this checkout's scripts beside another's."""
    own = seconds["own"]
    other = seconds["other"]
    own_bf16 = seconds.get("own bf16", math.nan)
    other_bf16 = seconds.get("other bf16", math.nan)
    return {
        "own s/epoch": f"{own:.2f}",
        "other's": f"{other:.2f}",
        "other : own": f"{other / own:.3f}",
        "bf16 s/epoch": f"{own_bf16:.2f}",
        "other's bf16": f"{other_bf16:.2f}",
        "other : own, bf16": f"{other_bf16 / own_bf16:.3f}",
        "MB own": f"{memory['own']:.0f}",
        "other": f"{memory['other']:.0f}",
    }


def make_row(seconds, memory, args):
    if args.against:
        row = row_of_other(seconds, memory)
    else:
        row = row_of_usual(seconds, memory)
        if args.device != "cpu":
            row = {name: row[name] for name in row if name not in NOT_ON_CUDA}
    return {name: "-" if text == "nan" else text for name, text in row.items()}


def describe_machine(device):
    if device == "cpu":
        return f"cpu, {torch.get_num_threads()} threads"
    return torch.cuda.get_device_name(common.prepare_device(device))


def tabulate(args):
    """Print a row as soon as it is measured. The whole table, all networks, is kept."""
    lines = []

    def say(line):
        lines.append(line)
        print(line)

    machine = describe_machine(args.device)
    versions = f"torch {torch.__version__}, {machine}"
    say(f"{versions}, batch {BATCH}, medians of {args.rounds}")
    say("")
    measured = {}  # seconds of all contenders, for each network
    for name in args.networks or CASES:
        seconds, memory = measure(name, args)
        row = make_row(seconds, memory, args)
        if not measured:
            say(f"| network | {' | '.join(row)} |")
            say("|---" * (1 + len(row)) + "|")
        say(f"| {name} | {' | '.join(row.values())} |")
        measured[name] = seconds

    if args.against or len(measured) < len(CASES):
        return
    table = "\n".join(lines) + "\n"
    if args.device == "cpu":
        common.write(HERE / "speed.md", table.encode())
        draw(measured, HERE / "speed.png")
    else:
        common.write(HERE / "speed-cuda.md", table.encode())


def draw(measured, path):
    """Bars: how many times as fast as the usual loop each script is."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots()
    draw_bars(axes, measured, "", -0.2, color="tab:blue", label="own, float32")
    draw_bars(axes, measured, " bf16", 0.2, color="tab:orange", label="own, bfloat16")
    axes.axhline(1, color="grey", linewidth=1, label="the usual loop", zorder=0.5)
    axes.set_xticks(range(len(measured)), measured)
    axes.set_ylabel("speed, as multiples of the usual loop's")
    axes.legend()
    common.save_png(path, figure)


def draw_bars(axes, measured, suffix, shift, color, label):
    """A precision's bars, with a line across each for the floor."""
    places = []
    speeds = []
    floors = []
    for index, seconds in enumerate(measured.values()):
        if "own" + suffix in seconds:
            places.append(index + shift)
            speeds.append(seconds["usual"] / seconds["own" + suffix])
            floors.append(seconds["usual"] / seconds["floor" + suffix])
    bars = axes.bar(places, speeds, width=0.38, color=color, label=label)
    axes.bar_label(bars, fmt="%.1f", fontsize=8, label_type="center", color="white")
    floor_label = None if suffix else "floor"  # once in the legend
    axes.plot(places, floors, "k_", markersize=14, label=floor_label)


def print_costs(names):
    print("| network | parameters | multiply-adds for an image |")
    print("|---|---|---|")
    for name in names:
        command, _ = CASES[name]
        parameters, multiply_adds = cost(command)
        print(f"| {name} | {parameters:,} | {multiply_adds:,} |")


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("networks", nargs="*", help=f"default: all, {' '.join(CASES)}")
    add("--against", type=Path, metavar="FOLDER", help="of another checkout")
    add("--rounds", type=common.number(int, 1), default=3, help="default: 3")
    add("--device", default="cpu", help="cpu or cuda (default: cpu)")
    add("--count", action="store_true", help="parameters and multiply-adds only")
    add("--apart", nargs=3, help=argparse.SUPPRESS)  # what to run in this process
    add("--bf16", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    unknown = [name for name in args.networks if name not in CASES]
    if unknown:
        known = " ".join(CASES)
        parser.error(f"no network is called {' '.join(unknown)}; there are {known}")
    if args.against:
        args.against = args.against.resolve()
    return args


def main():
    args = parse_args()
    if args.apart:
        what, command, folder = args.apart
        if what == "usual":
            run_usual(command, folder, args.device)
        else:
            run_floor(command, folder, args.device, args.bf16)
        time.sleep(60)  # watch() looks how much memory it had, and stops it
    elif args.count:
        print_costs(args.networks or CASES)
    else:
        tabulate(args)


if __name__ == "__main__":
    common.run(main)
