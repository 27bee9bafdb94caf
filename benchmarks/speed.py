"""How fast every script trains: the usual loop, the script's own, and the bare training step.

    python benchmarks/speed.py                 # all networks: prints speed.md, draws speed.png
    python benchmarks/speed.py basic deep      # some of them
    python benchmarks/speed.py --growth        # cost against data set and batch: growth.md, .png

usual  a DataLoader with ToTensor and Normalize for each image, NCHW, Adam as it comes, an .item()
       for each loss of each step
own    the script itself: its main() is called, and its epochs are timed from inside; in float32,
       and in bfloat16 where the processor has instructions for it
floor  the same training step, again and again on one batch that is there already

Each measurement is a process of its own, so that peak memory is its own too, and nothing that one
sets helps another. They take turns, because a machine's speed drifts, and the table shows medians.
An epoch is counted as 60,000 images and one end of epoch (losses.csv, g.pt, ckpt.pt), however few
images the measurement took.
"""

import argparse
import contextlib
import importlib
import io
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BEGAN = time.perf_counter()
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import common

EPOCH = 60_000
# Every network of the project: the command, and how many images a measurement needs of it.
CASES = {
    "basic": ("gan_mlp --arch basic", EPOCH // 2),
    "hidden": ("gan_mlp --arch hidden", EPOCH // 4),
    "deep": ("gan_mlp --arch deep", EPOCH // 8),
    "conv7": ("gan_cnn --arch conv7", 1280),
    "conv4": ("gan_cnn --arch conv4", 1280),
    "separable": ("gan_cnn --arch separable", 1280),
    "tiny": ("gan_cnn --arch tiny", 5120),
    "transpose": ("dcgan --arch transpose", 1280),
    "upsample": ("dcgan --arch upsample", 1280),
    "wgan": ("wgan", 1280),
    "wgan-gp-10": ("wgan --gp 10", 1280),
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


def usual(command, folder, device):
    """Seconds for one pass of the usual loop over the folder's images."""
    from torchvision import datasets, transforms  # which the scripts do without

    to_tensor = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])
    data = datasets.FashionMNIST(folder, transform=to_tensor)
    loader = torch.utils.data.DataLoader(data, batch_size=128, shuffle=True, drop_last=True)
    script, *options = command.split()
    module = importlib.import_module(script)
    arch = options[1] if options[:1] == ["--arch"] else "transpose"
    G, D = (network().to(device) for network in module.ARCHS[arch])
    if script == "wgan":
        epoch = usual_wgan(G, D, device, module.gradient_penalty if options else None)
    else:
        epoch = usual_gan(G, D, device)
    epoch(itertools.islice(loader, 5))  # to warm up
    began = time.perf_counter()
    epoch(loader)
    return {"epoch": time.perf_counter() - began}


# ---- the scripts


class TimedRun(common.Run):
    """A run that notes how long the steps of an epoch took, and how long its end."""

    def __enter__(self):
        TimedRun.last, self.clock = self, time.perf_counter()
        self.start_up = self.clock - BEGAN
        return super().__enter__()

    def draw_samples(self):
        """Nothing: most epochs draw none."""

    def finish(self):
        """Nothing: that is after the last epoch."""

    def end_epoch(self):
        synchronize()
        begun_end = time.perf_counter()
        super().end_epoch()
        self.took = begun_end - self.clock, time.perf_counter() - begun_end
        self.clock = time.perf_counter()


def synchronize():
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def own(command, folder, device):
    """Run the script for two epochs: seconds of the second's steps, its end, the start; floor."""
    script, *options = command.split()
    steps = []  # the training step that the script made, with what it was called with
    accelerate = common.accelerate

    def noted(*arguments, **more):
        step = accelerate(*arguments, **more)

        def call(*batches):
            steps[:] = [step, batches]
            return step(*batches)

        return call

    common.Run, common.accelerate = TimedRun, noted
    with tempfile.TemporaryDirectory() as out:
        sys.argv = [f"{script}.py", *options, "--epochs", "2", "--device", device]
        sys.argv += ["--data-dir", folder, "--out", out]
        with contextlib.redirect_stdout(io.StringIO()):
            importlib.import_module(script).main()
    run, (step, batches) = TimedRun.last, steps
    began = time.perf_counter()
    for _ in range(run.steps):
        step(*batches)
    synchronize()
    floor = time.perf_counter() - began
    return {"epoch": run.took[0], "end": run.took[1], "start": run.start_up, "floor": floor}


def peak_memory(device):
    """MB at most, of this process, or of the GPU."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 1e6
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def apart(what, command, folder, device):
    """A measurement in a process of its own."""
    line = [sys.executable, __file__, "--apart", what, command, folder, "--device", device]
    return json.loads(subprocess.check_output(line, text=True).splitlines()[-1])


def prepare(folder, images):
    """The first images of Fashion-MNIST in torchvision's layout, for all to read."""
    raw = Path(folder, "FashionMNIST", "raw")
    raw.mkdir(parents=True, exist_ok=True)
    pixels = common.read_idx(common.find_images("fashion-mnist", common.DATA))[:images]
    for kind, data in ("train", pixels), ("t10k", pixels[:1]):
        header = b"".join(n.to_bytes(4, "big") for n in (0x803, len(data), 28, 28))
        (raw / f"{kind}-images-idx3-ubyte").write_bytes(header + data.numpy().tobytes())
        labels = b"".join(n.to_bytes(4, "big") for n in (0x801, len(data))) + bytes(len(data))
        (raw / f"{kind}-labels-idx1-ubyte").write_bytes(labels)


def median(measurements, name):
    return statistics.median(measurement[name] for measurement in measurements)


def machine(device):
    return f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads"


# ---- the table of speeds


def kinds(device):
    """What is measured: a name, the function, options to add to the script's command."""
    found = {"usual": ("usual", ""), "own": ("own", " --bf16 off")}
    if device != "cpu" or common.bf16_pays(torch.device("cpu"), torch.nn.Identity()):
        found["bf16"] = ("own", " --bf16")
    return found


def measure(case, rounds, device):
    """Medians of an epoch of 60,000 images for every kind, and peak memory."""
    command, images = CASES[case]
    scale, results = (EPOCH // 128) / (images // 128), {}
    with tempfile.TemporaryDirectory() as folder:
        prepare(folder, images)
        for _ in range(rounds):
            for kind, (what, more) in kinds(device).items():
                line = command if what == "usual" else command + more
                results.setdefault(kind, []).append(apart(what, line, folder, device))
    row = {}
    for kind, found in results.items():
        end = 0 if kind == "usual" else median(found, "end")
        row[kind] = {"seconds": median(found, "epoch") * scale + end, "MB": median(found, "peak")}
        if kind != "usual":
            row[kind]["floor"] = median(found, "floor") * scale
    return row


def speed_table(cases, rounds, device):
    lines = [f"{machine(device)}, batch 128, medians of {rounds}", ""]
    head = "network, usual s/epoch, own s/epoch, images/s, usual : own, floor : own"
    head += ", bf16 s/epoch, usual : bf16, floor : bf16, MB usual, own, bf16"
    lines += ["| " + head.replace(", ", " | ") + " |", "|" + "---|" * 12]
    print("\n".join(lines), flush=True)
    rows = {}
    for case in cases:
        row = rows[case] = measure(case, rounds, device)
        usual, own, bf16 = row["usual"], row["own"], row.get("bf16")
        cells = [case, f"{usual['seconds']:.1f}", f"{own['seconds']:.2f}"]
        cells += [f"{EPOCH / own['seconds']:,.0f}", f"{usual['seconds'] / own['seconds']:.2f}"]
        cells += [f"{own['floor'] / own['seconds']:.2f}"]
        if bf16:
            cells += [f"{bf16['seconds']:.2f}", f"{usual['seconds'] / bf16['seconds']:.2f}"]
            cells += [f"{bf16['floor'] / bf16['seconds']:.2f}"]
        else:
            cells += ["-"] * 3
        cells += [f"{part['MB']:.0f}" if part else "-" for part in (usual, own, bf16)]
        lines.append("| " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    if len(rows) == len(CASES):
        common.write(HERE / "speed.md", ("\n".join(lines) + "\n").encode())
        draw_speed(rows)


def draw_speed(rows):
    """Bars of images per second, as many times the usual loop's."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots()
    for shift, (kind, colour, label) in enumerate(
        [("own", "tab:blue", "float32"), ("bf16", "tab:orange", "bfloat16")]
    ):
        drawn = [row for row in rows.values() if kind in row]
        if not drawn:
            continue
        times = [row["usual"]["seconds"] / row[kind]["seconds"] for row in drawn]
        floor = [row["usual"]["seconds"] / row[kind]["floor"] for row in drawn]
        at = [index + 0.4 * shift - 0.2 for index in range(len(drawn))]
        bars = axes.bar(at, times, 0.38, color=colour, label=f"own, {label}")
        axes.bar_label(bars, fmt="%.1f", fontsize=8, padding=2)
        marks = {"color": "black", "linestyle": "", "marker": "_", "markersize": 14}
        axes.plot(at, floor, **marks, label="floor" if shift == 0 else None)
    axes.axhline(1, color="grey", linewidth=1, label="the usual loop")
    axes.set_xticks(range(len(rows)), rows)
    axes.set_ylabel("speed, as multiples of the usual loop's")
    axes.legend()
    common.save_png(HERE / "speed.png", figure)


# ---- cost against size


SIZES, BATCHES = (1_000, 3_000, 10_000, 30_000, 60_000), (32, 128, 512, 2048)
GROWING = ("gan_mlp --arch basic", "gan_cnn --arch tiny")


def growth_table(device):
    """Seconds per epoch and peak memory against data set and batch; start and end of a run."""
    lines = [machine(device), ""]
    lines += ["| script | images | batch | s/epoch | ms/image | end s | start s | MB |"]
    lines += ["|" + "---|" * 8]
    print("\n".join(lines), flush=True)
    found = []
    for script in GROWING:
        cases = [(size, 128) for size in SIZES] + [(12_288, batch) for batch in BATCHES]
        for images, batch in cases:
            with tempfile.TemporaryDirectory() as folder:
                prepare(folder, images)
                taken = apart("own", f"{script} --batch-size {batch}", folder, device)
            seconds = taken["epoch"] + taken["end"]
            found.append((script, images, batch, seconds, taken["peak"]))
            cells = [script, f"{images:,}", batch, f"{seconds:.2f}"]
            cells += [f"{1000 * taken['epoch'] / (images // batch * batch):.4f}"]
            cells += [f"{taken['end']:.2f}", f"{taken['start']:.1f}", f"{taken['peak']:.0f}"]
            lines.append("| " + " | ".join(map(str, cells)) + " |")
            print(lines[-1], flush=True)
    common.write(HERE / "growth.md", ("\n".join(lines) + "\n").encode())
    draw_growth(found)


def draw_growth(found):
    figure = Figure(figsize=(10, 6.5), layout="constrained")
    panels = figure.subplots(2, 2, sharex="col")
    for script, colour in zip(GROWING, ("tab:blue", "tab:orange")):
        for column, fixed in enumerate((128, 12_288)):
            mine = [row[1:] for row in found if row[0] == script and row[2 - column] == fixed]
            rows = sorted(mine, key=lambda row: row[column])
            sizes = [row[column] for row in rows]
            panels[0, column].loglog(sizes, [row[2] for row in rows], "o-", color=colour)
            memory = [row[3] for row in rows]
            panels[1, column].semilogx(sizes, memory, "o-", color=colour, label=script)
    panels[0, 0].set_ylabel("seconds per epoch")
    panels[1, 0].set_ylabel("peak memory, MB")
    panels[1, 0].set_xlabel("images in the data set (batch 128)")
    panels[1, 1].set_xlabel("batch size (12,288 images)")
    for axes in panels.flat:
        axes.grid(alpha=0.3)
    for axes in panels[1]:
        axes.set_ylim(bottom=0)
        axes.legend()
    common.save_png(HERE / "growth.png", figure)


def main():
    parser = common.Parser(__doc__)
    parser.add_argument("networks", nargs="*", help=f"default: all, {' '.join(CASES)}")
    parser.add_argument("--growth", action="store_true", help="cost against size instead")
    parser.add_argument("--rounds", type=common.number(int, 1), default=5, help="default: 5")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--apart", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.apart:
        what, *where = args.apart
        taken = (usual if what == "usual" else own)(*where, args.device)
        print(json.dumps(taken | {"peak": peak_memory(args.device)}))
    elif unknown := set(args.networks) - set(CASES):
        parser.error(f"no network is called {' '.join(unknown)}; there are {' '.join(CASES)}")
    elif args.growth:
        growth_table(args.device)
    else:
        speed_table(args.networks or list(CASES), args.rounds, args.device)


if __name__ == "__main__":
    common.run_main(main)
