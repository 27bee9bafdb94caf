"""Data and pictures, which the scripts share; then what any command-line program needs.

Nothing here decides what is learned: networks, losses, optimizers and the loop stand in
each script.
"""

import argparse
import contextlib
import ctypes
import gzip
import http.client
import io
import itertools
import os
import signal
import socket
import sys
import tempfile
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageOps
from torchvision import datasets
from torchvision.utils import make_grid
from tqdm import tqdm

DATA = Path(__file__).resolve().parent / "data"
SAMPLE = DATA / "sample-images-idx3-ubyte.gz"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
DATASETS = {"fashion-mnist": "FashionMNIST", "mnist": "MNIST", "kmnist": "KMNIST"}
SIDE = 28  # of an image, in pixels

# torchrun starts WORLD processes; this is number RANK. Process 0 writes and speaks.
RANK = int(os.environ.get("RANK", "0"))
WORLD = int(os.environ.get("WORLD_SIZE", "1"))


class UserError(Exception):
    """Something that the user can correct. It ends a script with its message alone."""


# ---- data


def load_images(args, per_step, device="cpu"):
    """All training images as bytes, on the device, and the name of their data set.

    per_step is how many of them one training step takes.
    """
    dataset = args.dataset or "fashion-mnist"
    if dataset == "sample":
        path = SAMPLE
    else:
        path = find_images(dataset, args.data_dir)
    if path is None:
        folder = args.data_dir or DATA
        try:
            path = download(dataset, folder)
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            reason = " ".join(str(error).split())
            message = (
                f"{dataset} is not in {folder}, and no download: {reason}. "
                f"{download_advice(dataset)}"
            )
            if args.dataset or args.data_dir:
                raise UserError(f"{message}, or try --dataset sample") from None
            stars = "*" * 78
            print(stars)
            print("* ONLY A SAMPLE, 10,000 of the 60,000 images!")
            print(f"* {message}")
            print(stars)
            dataset = "sample"
            path = SAMPLE
    images = read_idx(path)
    if len(images) < per_step:
        raise UserError(
            f"{path} has {len(images)} images, a step {per_step}: lower --batch-size"
        )
    if args.dry_run:
        images = images[: 2 * per_step]
    print(f"{len(images):,} images of {dataset} from {path}")
    return images.to(device), dataset


def download_advice(dataset):
    text = "Connect to the internet once, or name a folder that has it with --data-dir"
    if dataset == "fashion-mnist":
        text += ", or `apt install dataset-fashion-mnist`"
    return text


def find_images(dataset, data_dir=None):
    """The file of training images, as torchvision or Debian keeps it, or None.

    The files of all three data sets have the same names. So a file in --data-dir itself
    must be of the data set that was asked for; one in data/ itself, or in Debian's
    folder, is always Fashion-MNIST.
    """
    folders = [Path(data_dir or DATA, DATASETS[dataset], "raw")]
    if data_dir:
        folders.append(Path(data_dir))
    elif dataset == "fashion-mnist":
        folders += [DATA, DEBIAN]
    with disk_errors_are_the_users():
        for folder in folders:
            for name in ("train-images-idx3-ubyte", "train-images-idx3-ubyte.gz"):
                if (folder / name).exists():
                    return folder / name
    return None


def read_idx(path):
    """An IDX file of images, plain or gzipped, as bytes [N, 1, SIDE, SIDE]."""
    with disk_errors_are_the_users():
        data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":  # how every gzip file begins
        try:
            data = gzip.decompress(data)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UserError(f"{path} is damaged: {error}") from None
    header = np.frombuffer(data[:16].ljust(16, b"\0"), dtype=">u4")
    kind, count, height, width = header.tolist()
    # 0x803: bytes, in three dimensions
    if kind != 0x803 or height != SIDE or width != SIDE:
        raise UserError(f"{path} is not an IDX file of {SIDE}x{SIDE} images")
    if count == 0 or len(data) != 16 + count * SIDE * SIDE:
        raise UserError(
            f"{path} does not hold the {count} images that it promises: get it anew"
        )
    pixels = torch.frombuffer(bytearray(data[16:]), dtype=torch.uint8)
    return pixels.view(-1, 1, SIDE, SIDE)


def download(dataset, folder):
    """Have torchvision download a data set. Its files appear when all are there."""
    name = DATASETS[dataset]
    folder = Path(folder)
    is_new = not folder.exists()
    patience = socket.getdefaulttimeout()
    print(f"downloading {dataset} into {folder}")
    socket.setdefaulttimeout(4)  # seconds; a silent network would take minutes
    try:
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            getattr(datasets, name)(temporary, download=True)
            raw = folder / name / "raw"
            raw.mkdir(parents=True, exist_ok=True)
            for path in Path(temporary, name, "raw").iterdir():
                os.replace(path, raw / path.name)
    finally:
        socket.setdefaulttimeout(patience)
        if is_new:
            with contextlib.suppress(OSError):
                folder.rmdir()  # if it is still empty
    return find_images(dataset, folder)


# ---- pictures


def grid(images, columns=8, zoom=3):
    """Images [N, 1 or 3, H, W] in [-1, 1] as an array of bytes, each pixel zoomed."""
    images = images.float().cpu().clamp(-1, 1)
    tiles = make_grid(images, columns, padding=1, pad_value=-0.25)  # a dark grey frame
    picture = tiles.add(1).mul(127.5).round().byte().permute(1, 2, 0).numpy()
    picture = picture.repeat(zoom, axis=0).repeat(zoom, axis=1)
    if images.shape[1] == 1:
        picture = picture[:, :, 0]  # make_grid gives grey images three equal colours
    return picture


def save_png(path, picture, mode="RGB"):
    """Save an array of bytes, or a figure as such an array."""
    if isinstance(picture, Figure):
        drawn = io.BytesIO()
        picture.savefig(drawn, format="png", dpi=100, bbox_inches="tight")
        picture = np.asarray(Image.open(drawn).convert(mode))
    packed = io.BytesIO()
    Image.fromarray(picture).save(packed, "png", optimize=True)
    write(path, packed.getvalue())


def save_sheet(path, picture, title="", columns=(), rows=(), fontsize=14):
    """Draw a grid, dot for dot, with labels above its columns and beside its rows."""
    height, width = picture.shape[:2]
    figure = Figure(figsize=(width / 100, height / 100))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    column_centres = (np.arange(len(columns)) + 0.5) * width / max(len(columns), 1)
    row_centres = (np.arange(len(rows)) + 0.5) * height / max(len(rows), 1)
    axes.set_xticks(column_centres, columns)
    axes.set_yticks(row_centres, rows)
    axes.tick_params(
        length=0, labelsize=fontsize, top=True, labeltop=True, labelbottom=False
    )
    axes.spines[:].set_visible(False)
    axes.set_title(title)
    if picture.ndim == 2:
        save_png(path, figure, mode="L")
    else:
        save_png(path, figure)


def save_samples(folder, epoch, fakes, images, quarters):
    """A run's pictures: samples of this epoch, the training so far, real and fake."""
    if RANK > 0:
        return
    with disk_errors_are_the_users():
        (folder / "samples").mkdir(exist_ok=True)
    save_png(folder / "samples" / f"epoch_{epoch:03d}.png", grid(fakes))
    save_progress(folder, quarters)
    real = images[:8] / 127.5 - 1
    compared = grid(torch.cat([real, fakes[:8]]))
    save_sheet(folder / "real_vs_fake.png", compared, rows=["real", "generated"])


def save_progress(folder, quarters):
    """Side by side, the samples that are nearest to the quarters of a training."""
    drawn = {}
    for path in (folder / "samples").glob("epoch_*.png"):
        number = path.stem.removeprefix("epoch_")
        if number.isdigit():
            drawn[int(number)] = path
    epochs = sorted(drawn)  # of two that are as near, the earlier one
    shown = {min(epochs, key=lambda epoch: abs(epoch - wish)) for wish in quarters}
    shown = sorted(shown)
    grids = [ImageOps.expand(Image.open(drawn[epoch]), 9, "white") for epoch in shown]
    strip = np.concatenate(grids, axis=1)
    labels = [f"epoch {epoch}" for epoch in shown]
    save_sheet(folder / "progress.png", strip, columns=labels, fontsize=36)


def save_losses(folder, curves, title):
    """Draw losses.csv, a panel for each of curves: raw values pale, means strong."""
    if RANK > 0:
        return
    data = np.genfromtxt(
        folder / "losses.csv", delimiter=",", names=True, deletechars="", ndmin=1
    )
    steps_per_epoch = data["step"][-1] / data["epoch"][-1]
    epochs = data["step"] / steps_per_epoch
    window = len(data) // 50 + 1  # steps in the moving mean
    figure = Figure(figsize=(9, 3.2 * len(curves)), layout="constrained")
    panels = figure.subplots(len(curves), sharex=True, squeeze=False)[:, 0]
    for axes, (label, names) in zip(panels, curves.items()):
        for number, name in enumerate(names):
            colour = f"C{number}"
            axes.plot(epochs, data[name], color=colour, alpha=0.25, linewidth=0.6)
            mean = np.convolve(data[name], np.ones(window) / window, "valid")
            centres = epochs[window // 2 :][: len(mean)]
            axes.plot(centres, mean, color=colour, label=name, zorder=3)
        # a few spikes must not flatten the rest
        values = [data[name] for name in names]
        low, high = np.percentile(values, [0.2, 99.8])
        axes.set_ylim(low - 0.05, high + 0.05)
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        axes.legend(
            loc="lower right", bbox_to_anchor=(1, 1), ncols=len(names), frameon=False
        )
    panels[0].set_title(title, loc="left")
    panels[-1].set_xlabel("epoch")
    panels[-1].xaxis.get_major_locator().set_params(integer=True)
    save_png(folder / "losses.png", figure)


# ==== what a command-line program needs: no lesson is in it, skip it at first ====


def run(main):
    """Call main. A UserError ends in its message, any other error in its own words."""
    if RANK > 0:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):  # not a notebook's
        # In a file, too, lines come at once.
        sys.stdout.reconfigure(line_buffering=True)
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return main()
    except KeyboardInterrupt:
        sys.exit(130)  # 128 and the number of the signal, as all programs do
    except UserError as error:
        message = str(error)  # the error itself would keep main's tensors in memory
    except (MemoryError, torch.OutOfMemoryError) as error:
        error.add_note("Out of memory: try a smaller --batch-size.")
        raise
    finally:
        signal.signal(signal.SIGTERM, before)  # a notebook goes on after a run
        if WORLD > 1 and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    print(f"{Path(sys.argv[0]).name}: error: {message}", file=sys.stderr)
    sys.exit(2)


# ---- options

# Of the options that are not settings of a training: those stand in each script.
DEFAULTS = {
    "report": False,
    "z_dim": 100,
    "graph": True,
    "dataset": None,  # fashion-mnist, or the sample if it cannot be had
    "data_dir": None,
    "out": None,
    "device": "auto",
    "seed": 0,
    "sample_every": None,
    "tensorboard": False,
    "dry_run": False,
}
# With --resume these may change: they are not part of what is learned.
MAY_CHANGE = {"epochs", "device", "graph", "data_dir", "sample_every", "tensorboard"}


def number(kind, low, high=10**6):
    """An argparse type: an int or float from low to high, neither nan nor infinite."""

    def parse(text):
        with contextlib.suppress(ValueError):
            if low <= kind(text) <= high:
                return kind(text)
        name = "a whole number" if kind is int else "a number"
        raise argparse.ArgumentTypeError(f"{text}: give {name} from {low} to {high}")

    return parse


def make_parser(doc, settings):
    """A parser with the options that all training scripts share.

    It returns only what was typed. What was not, each script fills in.
    """
    parser = argparse.ArgumentParser(
        description=doc,
        epilog=describe_settings(settings),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    add = parser.add_argument
    add(
        "--report",
        action="store_true",
        help="the settings of the report's source, not ours",
    )
    add(
        "--epochs", type=number(int, 1, 9999), help="passes over the data (table below)"
    )
    add("--batch-size", type=number(int, 2), help="images in a step of D (table below)")
    add(
        "--lr",
        type=number(float, 1e-12, 1e30),
        help="learning rate at first (table below)",
    )
    add(
        "--ema",
        type=number(float, 0, 0.999999),
        help="decay of G's average; 0: none (table below)",
    )
    add(
        "--z-dim",
        type=number(int, 1, 10_000),
        help=f"entries of z ({DEFAULTS['z_dim']})",
    )
    add(
        "--bf16",
        action=argparse.BooleanOptionalAction,
        help="compute in bfloat16 (table below)",
    )
    add(
        "--graph",
        action=argparse.BooleanOptionalAction,
        help="on CUDA, record steps and replay them (yes)",
    )
    add("--dataset", choices=[*DATASETS, "sample"], help="the images (fashion-mnist)")
    add("--data-dir", type=os.path.abspath, help="the folder that has them (data)")
    add("--out", help="a folder for the results (a new one in runs)")
    add("--device", help=f"auto, cpu, cuda, cuda:1 or mps ({DEFAULTS['device']})")
    # torch keeps 32 bits of a seed, and each epoch takes 10,000 * seed + epoch.
    add(
        "--seed",
        type=number(int, 0, 429_495),
        help=f"of random numbers ({DEFAULTS['seed']})",
    )
    add(
        "--resume",
        nargs="?",
        const="",
        metavar="RUN",
        help="go on with RUN (the script's newest)",
    )
    add(
        "--sample-every",
        type=number(int, 1),
        metavar="N",
        help="draw every N epochs too",
    )
    add("--tensorboard", action="store_true", help="log for TensorBoard too")
    add(
        "--dry-run",
        action="store_true",
        help="try one epoch of two steps, not in --out",
    )
    return parser


def check_shares(batch_size):
    """Under torchrun each process takes an equal share of a batch, two or more."""
    if batch_size % WORLD or batch_size < 2 * WORLD:
        raise UserError(
            f"{WORLD} processes share a batch: --batch-size must be a multiple of "
            f"{WORLD}, {2 * WORLD} or more"
        )


def describe_settings(settings):
    """A script's settings as a table for --help: a row for each network, twice."""
    ours, _ = next(iter(settings.values()))
    table = [["settings", *ours]]
    for name, (ours, source) in settings.items():
        table.append([name, *ours.values()])
        table.append(["  --report", *source.values()])
    widths = [max(len(str(cell)) for cell in column) for column in zip(*table)]
    lines = []
    for row in table:
        cells = [str(cell).ljust(width) for cell, width in zip(row, widths)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def parse_args(parser, script):
    """What was typed, and with --resume the checkpoint to go on from, or else None."""
    typed = vars(parser.parse_args())
    if "dry_run" in typed:
        typed["epochs"] = 1
    if "resume" not in typed:
        return typed, None
    path = find_checkpoint(typed.pop("resume"), script)
    checkpoint = load(path)
    if "state_dict" in checkpoint:
        raise UserError(f"{path} is a generator alone: give --resume its folder")
    if checkpoint["script"] != script:
        owner = checkpoint["script"]
        raise UserError(f"{path} is of {owner}.py: resume it with that script")
    saved = checkpoint["args"]
    for name, value in typed.items():
        if name in saved and name not in MAY_CHANGE and value != saved[name]:
            option = f"--{name.replace('_', '-')}"
            if not isinstance(value, bool):
                option += f" {value}"
            elif not value:
                option = option.replace("--", "--no-")
            raise UserError(
                f"{option} does not fit {path}, which has {saved[name]}: "
                "leave it out, or name another run"
            )
    done = checkpoint["epoch"]
    if done >= typed.get("epochs", saved["epochs"]):
        raise UserError(
            f"{path.parent} is done up to epoch {done}: "
            "--resume with more --epochs trains it further"
        )
    checkpoint["folder"] = path.parent
    return typed, checkpoint


def find_checkpoint(name, script):
    """The ckpt.pt of the run that was named, or of the script's newest."""
    if name:
        path = Path(name)
        with disk_errors_are_the_users():
            if path.is_dir():
                path = path / "ckpt.pt"
            if not path.exists():
                raise UserError(f"nothing to resume: there is no {path}")
        return path
    for path in newest("*/ckpt.pt"):
        try:
            generator = load(path.with_name("g.pt"))  # it is quicker to read
        except UserError as error:
            print(f"* passed over {path.parent}: {error}")
            continue
        if generator["script"] == script:
            return path
    raise UserError(
        f"nothing to resume: there is no run of {script}.py in runs; "
        "name the folder of one that is elsewhere: --resume FOLDER"
    )


# ---- device


def prepare_device(name):
    """The torch.device of that name, ready for use. auto is cuda, or else the cpu."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if WORLD > 1 and name == "cuda":
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {name}: {reason}") from None
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.set_float32_matmul_precision("high")  # TF32: fast, and exact enough
        torch.backends.cudnn.deterministic = True  # the same numbers, a bit slower
    if device.type == "cpu":
        keep_freed_memory()
        say_if_busy()
    return device


def keep_freed_memory():
    """Have glibc keep freed memory: to return it took up to half of a training step."""
    with contextlib.suppress(OSError, AttributeError):  # not on every system
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(-4, 0)  # M_MMAP_MAX
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def say_if_busy():
    """Threads wait for each other: if one has no free core, all of them are slow."""
    threads = torch.get_num_threads()
    if threads == 1:
        return
    numbers = torch.rand(2**20, generator=torch.Generator())
    numbers.sin()  # the first call starts the threads
    began = time.perf_counter()
    began_work = time.process_time()
    while time.perf_counter() - began < 0.15:
        numbers.sin()
    work = time.process_time() - began_work  # of all threads together
    cores = work / (time.perf_counter() - began)
    if cores < 0.8 * threads:
        print(
            f"* The processor is busy: {threads} threads get the time of {cores:.1f} "
            "cores. Stop what else is running,\n* or set the environment variable "
            f"OMP_NUM_THREADS to {max(1, int(cores))}: it will be faster."
        )


class Recorded:
    """A training step that is recorded as a CUDA graph, and then replayed.

    A step is hundreds of small computations, and a GPU does one in less time than
    Python needs to start the next. A graph starts them all with one command.

    The first call computes the step as usual: in the first step of all, Adam makes its
    state. The second records it, which computes nothing. It and all later calls replay
    the record, with new images and new noise. Numbers that Python gave, as the learning rate, are part of the record: so
    each epoch makes a new one. A `print` in the step is heard in the first two calls
    only, and one of a tensor's value cannot be recorded: --no-graph.
    """

    def __init__(self, step):
        self.step = step
        self.calls = 0

    def __call__(self, G, D, opt_G, opt_D, real, z, **settings):
        self.calls += 1
        if self.calls == 1:
            return self.step(G, D, opt_G, opt_D, real, z, **settings)
        if self.calls == 2:
            self.real = real.clone()
            self.z = z.clone()
            self.record(G, D, opt_G, opt_D, settings)
        self.real.copy_(real)
        self.z.copy_(z)
        self.graph.replay()
        return self.losses.clone()  # the next replay writes into the same place

    def record(self, G, D, opt_G, opt_D, settings):
        for state in [*opt_G.state.values(), *opt_D.state.values()]:
            if "step" in state:  # RMSprop counts its steps on the CPU
                state["step"] = state["step"].to(self.z.device)
        groups = opt_G.param_groups + opt_D.param_groups
        groups = [group for group in groups if "capturable" in group]  # not SGD's
        for group in groups:
            group["capturable"] = True
        self.graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(self.graph):
                self.losses = self.step(
                    G, D, opt_G, opt_D, self.real, self.z, **settings
                )
        except RuntimeError as error:
            error.add_note("A step that reads or prints a number needs --no-graph.")
            raise
        for group in groups:  # no longer, so that a checkpoint can go on anywhere
            group["capturable"] = False


def recorded(step, device, graph=True):
    """The step to call in this epoch: recorded on CUDA, itself elsewhere."""
    if graph and device.type == "cuda" and WORLD == 1:
        return Recorded(step)
    return step


# ---- files


@contextlib.contextmanager
def disk_errors_are_the_users():
    """Around reading and writing: a full disk, a missing file, no permission, ..."""
    try:
        yield
    except OSError as error:
        raise UserError(str(error)) from error


def write(path, data):
    """Write beside path, then rename: no kill leaves half a file in its place."""
    if RANK > 0:
        return
    temporary = path.with_name(f".{path.name}.tmp")
    with disk_errors_are_the_users():
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # or a power cut could leave an empty file
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def save(path, content):
    """torch.save, by way of write."""
    buffer = io.BytesIO()  # torch.save to a path would put its name into the bytes
    torch.save(content, buffer)
    write(path, buffer.getvalue())


def load(path):
    """Read a g.pt or ckpt.pt. Only tensors and plain values: it cannot bring code."""
    kinds = {"script": str, "arch": str, "z_dim": int, "epoch": int, "args": dict}
    try:
        with zipfile.ZipFile(path) as archive:
            is_whole = archive.testzip() is None
        content = torch.load(path, map_location="cpu", weights_only=True)
        is_ours = all(type(content[name]) is kind for name, kind in kinds.items())
    except OSError as error:
        raise UserError(str(error)) from None
    except Exception:  # noqa: BLE001  a damaged file can raise nearly anything
        is_whole = is_ours = False
    if not is_whole or not is_ours:
        raise UserError(f"{path} is damaged, or no checkpoint of these scripts")
    return content


@contextlib.contextmanager
def refuse_misfit(path):
    """Around load_state_dict: refuse what is of another network, or lacks a part."""
    try:
        yield
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} does not fit these networks. Edited since? {error}"
        ) from error


# ---- the folder of a run


def newest(pattern):
    """Files in runs that match, the newest first, without those of dry runs."""
    paths = [path for path in Path("runs").glob(pattern) if is_real(path)]
    return sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True)


def is_real(path):
    return "-dry-run" not in path.parent.name


def run_folder(args, checkpoint, script):
    """The folder of the run that goes on, or a new one: --out, or a free name."""
    if RANK > 0:
        return Path("runs")  # any: only process 0 writes
    if checkpoint:
        folder = checkpoint["folder"]
        print(f"going on with {folder} after epoch {checkpoint['epoch']}")
        return folder
    with disk_errors_are_the_users():
        if args.out and not args.dry_run:
            return empty_folder(Path(args.out))
        return free_folder(f"{script}-dry-run" if args.dry_run else script)


def empty_folder(folder):
    if folder.is_file():
        raise UserError(f"{folder} is a file: --out takes a folder")
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        message = f"{folder} is not empty: give another --out"
        if (folder / "ckpt.pt").exists():
            message += f', or --resume "{folder}"'
        raise UserError(message)
    return folder


def free_folder(name):
    """runs/name, or name-2, name-3, ...: nothing is ever overwritten."""
    for count in itertools.count(1):
        folder = Path("runs", name if count == 1 else f"{name}-{count}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder


@contextlib.contextmanager
def open_losses(folder, names, epochs_done, steps_per_epoch):
    """losses.csv, for this process alone, with the rows of the epochs that are done."""
    if RANK > 0:
        yield None
        return
    path = folder / "losses.csv"
    with disk_errors_are_the_users():
        table = open(path, "a+", newline="\n")  # noqa: SIM115
    try:
        lock(table)
        with disk_errors_are_the_users():
            keep_rows(table, epochs_done * steps_per_epoch, epochs_done)
            if table.tell() == 0:
                table.write(",".join(["epoch", "step", *names]) + "\n")
                table.flush()
        yield table
    finally:
        with contextlib.suppress(OSError):  # a full disk, which was told before
            table.close()


def lock(file):
    """Keep other processes away from a file until it is closed."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        folder = Path(file.name).parent
        raise UserError(
            f"{folder} is still being trained: wait for its end, or name another run"
        ) from None
    except (ImportError, OSError):
        pass  # Windows, or a disk without locks: append_losses notices others, too


def keep_rows(table, rows, epochs_done):
    """Cut off the rows of an epoch that was not finished."""
    table.seek(0)
    lines = [line for line in table.readlines() if line.endswith("\n")]
    kept = lines[: 1 + rows]
    if epochs_done and len(kept) < 1 + rows:
        print(f"* {table.name} has lost lines: {max(len(kept) - 1, 0)} of {rows}")
    elif epochs_done and not kept[-1].startswith(f"{epochs_done},"):
        # The last epoch does not end there: epochs had another number of steps.
        raise UserError(
            f"{table.name} is of more or fewer images: resume with the same"
        )
    table.truncate(sum(map(len, kept)))
    table.seek(0, os.SEEK_END)


def append_losses(table, epoch, losses):
    """A row for each step of an epoch, on the disk before a checkpoint counts them."""
    if RANK > 0:
        return
    with disk_errors_are_the_users():
        size = os.path.getsize(table.name)
    if size != table.tell():
        raise UserError(
            f"another process has written {table.name}: "
            f"epoch {epoch} is not saved, to keep what is there"
        )
    first_step = (epoch - 1) * len(losses) + 1
    with disk_errors_are_the_users():
        for step, values in enumerate(losses.tolist(), start=first_step):
            cells = [f"{value:.6g}" for value in values]
            table.write(",".join([str(epoch), str(step), *cells]) + "\n")
        table.flush()
        os.fsync(table.fileno())


@contextlib.contextmanager
def progress_bar(folder, total, done):
    """A bar over all steps of the run. If the run is stopped, say how to go on."""
    if RANK > 0 or sys.stderr.isatty():
        bar = tqdm(initial=done, total=total, unit="step", disable=RANK > 0)
    else:
        bar = SignOfLife(total, done)
    try:
        yield bar
    except UserError:
        raise
    except BaseException:
        bar.close()
        if (folder / "ckpt.pt").exists():
            command = f'python "{sys.argv[0]}" --resume "{folder}"'
            print(f"\nstopped. To go on: {command}")
        else:
            print("\nstopped. No epoch was finished: nothing to resume.")
        raise
    finally:
        bar.close()


class SignOfLife:
    """Instead of a bar where there is no terminal: a line if a minute had none."""

    SECONDS = 60

    def __init__(self, total, done):
        self.total = total
        self.done = done
        self.spoke = time.monotonic()

    def update(self):
        self.done += 1
        if time.monotonic() - self.spoke > self.SECONDS:
            self.write(f"step {self.done:,} of {self.total:,}")

    def write(self, text):
        print(text)
        self.spoke = time.monotonic()

    def close(self):
        pass
