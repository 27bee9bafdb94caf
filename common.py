"""What the scripts share, because no lesson is in it: options, device, data, files, pictures."""

import argparse
import contextlib
import ctypes
import gzip
import http.client
import io
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
# Options that may change with --resume: they change nothing in what an epoch computes.
MAY_CHANGE = {"epochs", "device", "graph", "data_dir", "sample_every", "tensorboard"}
# Under torchrun this is process RANK of WORLD: each takes a share of the work, the first writes.
RANK, WORLD = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


class UserError(Exception):
    """Something that the user can correct. It ends a script with its message and exit code 2."""


def run(main):
    """Call main. A user's error ends in a message, Ctrl-C and SIGTERM in their usual exit codes."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.stdout = open(os.devnull, "w") if RANK > 0 else sys.stdout  # noqa: SIM115
    try:
        return main()
    except KeyboardInterrupt:
        sys.exit(130)
    except (UserError, OSError) as error:  # OSError: a full disk, a file that is not there, ...
        message = str(error)  # the error itself would keep main's tensors in memory
    except (RuntimeError, MemoryError) as error:
        is_memory = isinstance(error, (MemoryError, torch.OutOfMemoryError))
        # On a CPU, torch has no type of its own for it.
        if not is_memory and "DefaultCPUAllocator: can't allocate memory" not in str(error):
            raise
        message = f"{error}\nout of memory: try a smaller --batch-size"
    finally:
        signal.signal(signal.SIGTERM, before)  # a notebook goes on after a run
    print(f"{Path(sys.argv[0]).name}: error: {message}", file=sys.stderr)
    sys.exit(2)


# ---- options
def number(kind, low, high=10**6):
    """An argparse type: an int or a float from low to high, so neither nan nor infinite."""

    def parse(text):
        with contextlib.suppress(ValueError):
            if low <= kind(text) <= high:
                return kind(text)
        whole = "a whole number" if kind is int else "a number"
        raise argparse.ArgumentTypeError(f"{text}: give {whole} from {low} to {high}")

    return parse


def make_parser(doc, columns, settings):
    """A parser with the options that all training scripts share."""
    parser = argparse.ArgumentParser(description=doc, epilog=describe_settings(columns, settings))
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add, whole, share = parser.add_argument, number(int, 1), number(float, 0, 0.999999)
    add("--report", action="store_true", help="the settings of the report's source, not ours")
    add("--epochs", type=number(int, 1, 9999), help="passes over the data (see below)")
    add("--batch-size", type=number(int, 2), help="images in a step of D (see below)")
    add("--lr", type=number(float, 1e-12, 1e30), help="learning rate at first (see below)")
    add("--ema", type=share, help="memory of G's average; 0: none (see below)")
    add("--z-dim", type=number(int, 1, 10_000), default=100, help="entries of z (%(default)s)")
    boolean = argparse.BooleanOptionalAction
    add("--bf16", action=boolean, help="use bfloat16 (where it is faster)")
    add("--graph", action=boolean, default=True, help="on CUDA, record steps and replay them (yes)")
    add("--dataset", choices=[*DATASETS, "sample"], help="the images (fashion-mnist)")
    add("--data-dir", type=os.path.abspath, help="the folder that has them (data)")
    add("--out", help="a folder for the results (a new one in runs)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (%(default)s)")
    # torch keeps 32 bits of a seed, and each epoch takes 10,000 * seed + epoch.
    add("--seed", type=number(int, 0, 429_495), default=0, help="of random numbers (%(default)s)")
    add("--resume", nargs="?", const="", metavar="RUN", help="go on with RUN (the newest)")
    add("--sample-every", type=whole, metavar="N", help="draw every N epochs too")
    add("--tensorboard", action="store_true", help="log for TensorBoard too")
    add("--dry-run", action="store_true", help="try one epoch of two steps, not in --out")
    return parser


def describe_settings(columns, settings):
    """A script's table of settings, as --help shows it."""
    lines = [["settings", *columns]]
    for name, (ours, source) in settings.items():
        lines += [[name, *ours], ["  --report", *source]]
    widths = [max(len(str(cell)) for cell in column) for column in zip(*lines)]
    return "\n".join("  ".join(f"{cell!s:{n}}" for cell, n in zip(line, widths)) for line in lines)


def parse_args(parser, script):
    """The options, and the checkpoint to go on from (None for a new run).

    With --resume, what is not typed is taken from the checkpoint.
    """
    args = parser.parse_args()
    args.epochs = 1 if args.dry_run else args.epochs
    resume = vars(args).pop("resume")
    if resume is None:
        return args, None
    found = [Path(resume)] if resume else newest(f"{script}/ckpt.pt", f"{script}-[0-9]*/ckpt.pt")
    if not found:
        told = f"there is no runs/{script}/ckpt.pt; name the folder of a run with --out"
        raise UserError(f"nothing to resume: {told}")
    path = found[0] / "ckpt.pt" if found[0].is_dir() else found[0]
    checkpoint = load(path)
    if "state_dict" in checkpoint:  # a g.pt
        raise UserError(f"{path} is a generator alone: give --resume its folder")
    if checkpoint["script"] != script:
        raise UserError(f"{path} is of {checkpoint['script']}.py: resume it with that script")
    saved = {name: checkpoint["args"][name] for name in vars(args) if name in checkpoint["args"]}
    parser.set_defaults(**checkpoint["args"])
    args = parser.parse_args()
    del args.resume
    for name, value in saved.items():
        if name not in MAY_CHANGE and getattr(args, name) != value:
            option = f"--{name.replace('_', '-')} {getattr(args, name)}"
            remedy = "leave it out, or name another run"
            raise UserError(f"{option} does not fit {path}, which has {value}: {remedy}")
    if checkpoint["epoch"] >= args.epochs:
        done = checkpoint["epoch"]
        raise UserError(f"{path.parent} has {done} epochs already: more --epochs train it further")
    return args, checkpoint | {"folder": path.parent}


# ---- device
def prepare_device(name, penalty=0.0, max_pool=False):
    """The torch.device of that name, ready for use; auto is cuda, then mps, then cpu.

    A penalty takes second derivatives. On mps that was never tried, and torch lacks MaxPool2d's.
    """
    if name == "auto":
        found = torch.accelerator.current_accelerator(check_available=True)
        name = found.type if found and found.type in ("cuda", "mps") else "cpu"
        name = "cpu" if name == "mps" and penalty else name
    if WORLD > 1 and name == "cuda":
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    if name.startswith("mps") and penalty and max_pool:
        raise UserError(f"--device {name} cannot train this network with a penalty: use the cpu")
    try:
        device = torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {name}: {str(error).splitlines()[0]}") from None
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.set_float32_matmul_precision("high")  # TF32 for matrices: fast, and exact enough
        torch.backends.cudnn.deterministic = True  # the same numbers every time, a bit slower
    elif device.type == "cpu":
        keep_freed_memory()
    return device


def bf16_is_faster(device):
    """On a CPU that has instructions for it: docs/speed.md. On a GPU few networks gain by it."""
    return device.type == "cpu" and torch.cpu.get_capabilities().get("avx512_bf16", False)


def keep_freed_memory():
    """Have glibc keep freed memory for the next step: returning it took up to half of a step."""
    with contextlib.suppress(OSError, AttributeError):  # not on every system
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(-4, 0)  # M_MMAP_MAX
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


class Recorded:
    """A train_step that is recorded as a CUDA graph, and then replayed.

    A step is hundreds of small computations. A GPU does one in less time than Python needs to start
    the next; of a graph, one command starts them all. Weights change and random numbers are new in
    every replay. The numbers that Python gave, as the learning rate, do not change: if they should,
    the step is recorded anew.
    """

    def __init__(self, step):
        self.step, self.given, self.is_first = step, None, True

    def __call__(self, G, D, opt_G, opt_D, real, z, *settings):
        if self.is_first:  # not recorded: the first step of all makes Adam's moments, for instance
            self.is_first = False
            return self.step(G, D, opt_G, opt_D, real, z, *settings)
        groups = opt_G.param_groups + opt_D.param_groups
        given = settings, [group["lr"] for group in groups]
        if self.given != given:
            self.given, self.graph = given, None  # None: an older graph goes first
            self.real, self.z = real.clone(), z.clone()
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
                self.losses = self.step(G, D, opt_G, opt_D, self.real, self.z, *settings)
        except RuntimeError as error:
            error.add_note("A step that reads or prints a number cannot be recorded: --no-graph")
            raise
        for group in groups:  # no longer, so that a checkpoint can go on anywhere
            group["capturable"] = False


def recorded(step, args, device):
    """The step itself where it cannot be recorded: not on CUDA, or under torchrun."""
    return Recorded(step) if args.graph and device.type == "cuda" and WORLD == 1 else step


# ---- data
def read_idx(path):
    """An IDX file of images, plain or gzipped, as bytes [N, 1, SIDE, SIDE]."""
    data = path.read_bytes()
    try:
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is damaged: {error}") from None
    kind, count, height, width = np.frombuffer(data[:16].ljust(16, b"\0"), ">u4").tolist()
    if (kind, height, width) != (0x803, SIDE, SIDE):
        raise UserError(f"{path} is not an IDX file of {SIDE}x{SIDE} images")
    if count == 0 or len(data) != 16 + count * SIDE * SIDE:
        raise UserError(f"{path} does not hold the {count} images that it promises: get it anew")
    return torch.frombuffer(bytearray(data[16:]), dtype=torch.uint8).view(-1, 1, SIDE, SIDE)


def find_images(dataset, data_dir=None):
    """The file of training images, plain or gzipped, as torchvision or Debian keeps it; or None."""
    # The files of all three sets have the same names. So one in --data-dir itself must be of the
    # set that was asked for, and one in data/ itself or in Debian's folder of Fashion-MNIST.
    flat = [Path(data_dir)] if data_dir else [DATA, DEBIAN] * (dataset == "fashion-mnist")
    folders = [Path(data_dir or DATA, DATASETS[dataset], "raw"), *flat]
    files = [folder / f"train-images-idx3-ubyte{gz}" for folder in folders for gz in ("", ".gz")]
    return next(filter(Path.exists, files), None)


def download(dataset, folder):
    """Have torchvision download the data. The files appear in the folder when all are there."""
    name, before = DATASETS[dataset], socket.getdefaulttimeout()
    is_new = not Path(folder).exists()
    print(f"downloading {dataset} into {folder}")
    socket.setdefaulttimeout(4)  # seconds; a silent network would take minutes to give up
    try:
        Path(folder).mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as new:
            getattr(datasets, name)(new, download=True)
            raw = Path(folder, name, "raw")
            raw.mkdir(parents=True, exist_ok=True)
            for path in Path(new, name, "raw").iterdir():
                os.replace(path, raw / path.name)
    finally:
        socket.setdefaulttimeout(before)
        if is_new:
            with contextlib.suppress(OSError):
                Path(folder).rmdir()  # if it is still empty
    return find_images(dataset, folder)


def load_images(args, per_step, device="cpu"):
    """All training images as bytes, on the device, and the name of their data set."""
    if args.batch_size % WORLD or args.batch_size < 2 * WORLD:
        need = f"a multiple of {WORLD}, {2 * WORLD} or more"
        raise UserError(f"{WORLD} processes share a batch: --batch-size must be {need}")
    dataset, folder = args.dataset or "fashion-mnist", args.data_dir or DATA
    try:
        path = SAMPLE if dataset == "sample" else find_images(dataset, args.data_dir)
        path = path or download(dataset, folder)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        why = f"{dataset} is not in {folder}, and no download: {' '.join(str(error).split())}. "
        why += "Connect to the internet once, or name a folder that has it with --data-dir"
        why += ", or `apt install dataset-fashion-mnist`" * (dataset == "fashion-mnist")
        if args.dataset or args.data_dir:
            raise UserError(f"{why}, or try --dataset sample") from None
        print(f"{'*' * 78}\n* ONLY A SAMPLE, 10,000 of the 60,000 images!\n* {why}\n{'*' * 78}")
        path, dataset = SAMPLE, "sample"
    images = read_idx(path)
    if len(images) < per_step:
        raise UserError(f"{path} has {len(images)} images, a step {per_step}: lower --batch-size")
    images = images[: 2 * per_step] if args.dry_run else images
    print(f"{len(images):,} images of {dataset} from {path}")
    return images.to(device), dataset


# ---- files
def write(path, data):
    """Write beside path, then rename: no kill and no full disk leaves half a file in its place."""
    if RANK > 0:
        return
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # without it, a power cut could leave an empty file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save(path, content):
    buffer = io.BytesIO()  # torch.save to a path would put the file's name into its bytes
    torch.save(content, buffer)
    write(path, buffer.getvalue())


def load(path):
    """Read a g.pt or ckpt.pt: tensors and plain values only, so no file can bring code along."""
    kinds = {"script": str, "arch": str, "z_dim": int, "epoch": int, "args": dict}
    try:
        with zipfile.ZipFile(path) as archive:
            whole = archive.testzip() is None
        content = torch.load(path, map_location="cpu", weights_only=True)
        if whole and all(type(content[name]) is kind for name, kind in kinds.items()):
            return content
    except OSError:
        raise
    except Exception:  # noqa: BLE001, S110  a damaged file can raise nearly anything
        pass
    raise UserError(f"{path} is damaged, or no checkpoint of these scripts")


@contextlib.contextmanager
def refuse_misfit(path):
    """Around load_state_dict: refuse what is of another network, or lacks a part."""
    try:
        yield
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} does not fit these networks. Edited since? {error}") from error


def newest(*patterns):
    """Files in runs that match, the newest first, without those of dry runs."""
    paths = [path for pattern in patterns for path in Path("runs").glob(pattern)]
    paths.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    return [path for path in paths if "-dry-run" not in path.parent.name]


def run_folder(args, checkpoint, script):
    """The folder of a run: the resumed one's, or a new one: --out, or a free name in runs."""
    if RANK > 0:
        return Path("runs")  # any but the first process writes nothing
    if checkpoint:
        print(f"going on with {checkpoint['folder']} after epoch {checkpoint['epoch']}")
        return checkpoint["folder"]
    if args.out and not args.dry_run:
        folder = Path(args.out)
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            resume = f', or --resume "{folder}"' * (folder / "ckpt.pt").exists()
            raise UserError(f"{folder} is not empty: give another --out{resume}")
        return folder
    Path("runs").mkdir(exist_ok=True)
    for count in range(1, 10**6):
        folder = Path("runs", script + "-dry-run" * args.dry_run + f"-{count}" * (count > 1))
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder


def lock(file):
    """Keep other processes away from a file until this one ends, however it ends."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        told = "wait for its end, or name another run"
        raise UserError(f"{Path(file.name).parent} is still being trained: {told}") from None
    except (ImportError, OSError):
        pass  # Windows, or a disk without locks: Log.write_rows notices the other process, too


# ---- the log
class Log:
    """losses.csv, a bar, a line for each epoch, pictures, and TensorBoard if asked for. Losses stay
    on the device until an epoch ends: to read one is to wait for the device."""

    def __init__(self, folder, title, curves, args, steps, done):
        self.folder, self.title, self.curves, self.epochs = folder, title, curves, args.epochs
        self.columns = [name for names in curves.values() for name in names]
        self.rows, self.losses, self.table, self.board = done * steps, [], None, None
        if RANK == 0:
            self.open_table(done)
            if args.tensorboard:
                from torch.utils.tensorboard import SummaryWriter  # slow to import, seldom needed

                self.board = SummaryWriter(folder / "tensorboard", purge_step=self.rows + 1)
        total, self.began = args.epochs * steps, time.monotonic()
        self.bar = tqdm(initial=self.rows, total=total, unit="step", disable=RANK > 0 or None)

    def open_table(self, done):
        """losses.csv, for this process alone, with the rows of the epochs that are done."""
        self.path = self.folder / "losses.csv"
        exists = done and self.path.exists()
        self.table = open(self.path, "r+b" if exists else "xb")  # noqa: SIM115  x: must be new
        lock(self.table)
        lines = [",".join(["epoch", "step", *self.columns]).encode()]
        lines = self.table.read().splitlines() if exists else lines
        if len(lines) <= self.rows:
            print(f"* {self.path} has lost lines: {len(lines) - 1} of {self.rows}")
        elif done and not lines[self.rows].startswith(b"%d," % done):
            raise UserError(f"{self.path} is of more or fewer images: resume with the same")
        self.table.seek(0)
        self.table.write(b"".join(line + b"\n" for line in lines[: self.rows + 1]))
        self.table.truncate()  # no epoch that was cut off
        self.table.flush()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.bar.close()
        if self.board:
            self.board.close()
        if self.table:
            with contextlib.suppress(OSError):  # a full disk, which was told before
                self.table.close()
        if kind and kind is not UserError:
            next_step = "No epoch was finished: nothing to resume."
            if (self.folder / "ckpt.pt").exists():
                next_step = f'To go on: python "{sys.argv[0]}" --resume "{self.folder}"'
            self.say(f"\nstopped. {next_step}")

    def __call__(self, losses):
        self.losses.append(losses)
        self.bar.update()

    def say(self, text):
        """Print above the bar."""
        tqdm.write(text)
        sys.stdout.flush()

    def end_epoch(self, epoch, *networks):
        """Write the epoch down. Its means, and its last step. Stop if anything is not finite."""
        losses, self.losses = torch.stack(self.losses).cpu(), []
        weights = [weight for network in networks for weight in network.state_dict().values()]
        if not all(numbers.isfinite().all() for numbers in (losses, *weights)):
            raise UserError(f"epoch {epoch} ended in infinite numbers, unsaved: try a smaller --lr")
        if self.table:
            self.write_rows(epoch, losses.tolist())
        means = dict(zip(self.columns, losses.mean(0).tolist()))
        took, self.began = time.monotonic() - self.began, time.monotonic()
        text = "  ".join(f"{name} {mean:.3f}" for name, mean in means.items())
        self.say(f"epoch {epoch}/{self.epochs}  {text}  {took:.2f} s")
        return means, dict(zip(self.columns, losses[-1].tolist()))

    def write_rows(self, epoch, losses):
        if self.path.stat().st_size != self.table.tell():
            told = f"epoch {epoch} is not saved, to keep what is there"
            raise UserError(f"another process has written {self.path}: {told}")
        for values in losses:
            self.rows += 1
            row = ",".join([str(epoch), str(self.rows), *map("{:.6g}".format, values)])
            self.table.write(f"{row}\n".encode())
            for name, value in zip(self.columns, values if self.board else ()):
                self.board.add_scalar(name, value, self.rows)
        self.table.flush()
        os.fsync(self.table.fileno())  # before there is a checkpoint that counts these rows

    def draw(self, epoch, fakes, images, milestones):
        """All pictures of a run: the samples of this epoch, and what they are compared with."""
        if RANK > 0:
            return
        (self.folder / "samples").mkdir(exist_ok=True)
        samples = grid(fakes)
        save_png(self.folder / "samples" / f"epoch_{epoch:03d}.png", samples)
        if self.board:
            self.board.add_image("samples", np.atleast_3d(samples), epoch, dataformats="HWC")
        save_progress(self.folder, milestones)
        compared = grid(torch.cat([images[:8] / 127.5 - 1, fakes[:8]]))
        save_sheet(self.folder / "real_vs_fake.png", compared, rows=["real", "generated"])
        if epoch:
            save_losses(self.folder, self.curves, self.title)


# ---- pictures
def grid(images, columns=8, zoom=3):
    """Images [N, 1 or 3, H, W] in [-1, 1] as one array of bytes, each pixel drawn zoom times."""
    tiles = make_grid(images.float().cpu().clamp(-1, 1), columns, padding=1, pad_value=-0.25)
    picture = tiles.add(1).mul(127.5).round().byte().permute(1, 2, 0).numpy()
    picture = picture.repeat(zoom, axis=0).repeat(zoom, axis=1)
    return picture[:, :, 0] if images.shape[1] == 1 else picture


def save_png(path, picture, mode="RGB"):
    """Save an array of bytes, or a figure as such an array."""
    buffer = io.BytesIO()
    if isinstance(picture, Figure):
        picture.savefig(buffer, format="png", dpi=100, bbox_inches="tight")
        picture = np.asarray(Image.open(buffer).convert(mode))
        buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "png", optimize=True)
    write(path, buffer.getvalue())


def save_sheet(path, picture, title="", columns=(), rows=(), fontsize=14):
    """Draw a grid, dot for dot, with labels above its columns and beside its rows."""
    height, width = picture.shape[:2]
    axes = Figure(figsize=(width / 100, height / 100)).add_axes((0, 0, 1, 1))
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_xticks((np.arange(len(columns)) + 0.5) * width / max(len(columns), 1), columns)
    axes.set_yticks((np.arange(len(rows)) + 0.5) * height / max(len(rows), 1), rows)
    axes.tick_params(length=0, labelsize=fontsize, top=True, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    axes.set_title(title)
    save_png(path, axes.figure, "L" if picture.ndim == 2 else "RGB")


def save_progress(folder, epochs):
    """Side by side, the grids of samples/ that are nearest to these epochs."""
    paths = [path for path in (folder / "samples").glob("epoch_*.png") if path.stem[6:].isdigit()]
    drawn = {int(path.stem[6:]): path for path in paths}
    shown = sorted({min(drawn, key=lambda epoch: abs(epoch - wish)) for wish in epochs})
    grids = [ImageOps.expand(Image.open(drawn[epoch]), 9, "white") for epoch in shown]
    strip = np.concatenate(grids, axis=1)
    save_sheet(folder / "progress.png", strip, columns=[f"epoch {n}" for n in shown], fontsize=36)


def save_losses(folder, curves, title):
    """Draw losses.csv, a panel for each of curves: raw values pale, their moving mean strong."""
    data = np.genfromtxt(folder / "losses.csv", delimiter=",", names=True, deletechars="", ndmin=1)
    at = data["step"] * data["epoch"][-1] / data["step"][-1]
    window = len(data) // 50 + 1
    figure = Figure(figsize=(9, 3.2 * len(curves)), layout="constrained")
    panels = figure.subplots(len(curves), sharex=True, squeeze=False)[:, 0]
    for axes, (label, names) in zip(panels, curves.items()):
        for name, colour in zip(names, ("tab:blue", "tab:orange")):
            axes.plot(at, data[name], color=colour, alpha=0.25, linewidth=0.6)
            mean = np.convolve(data[name], np.ones(window) / window, "valid")
            axes.plot(at[window // 2 :][: len(mean)], mean, color=colour, label=name, zorder=3)
        # a few spikes must not flatten the rest
        axes.set_ylim(np.percentile([data[name] for name in names], [0.2, 99.8]) + [-0.05, 0.05])
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False)
    panels[0].set_title(title, loc="left")
    panels[-1].set_xlabel("epoch")
    panels[-1].xaxis.get_major_locator().set_params(integer=True)
    save_png(folder / "losses.png", figure)
