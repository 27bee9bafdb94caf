"""What the scripts share because no lesson is in it: options, data, pictures, files kept safe."""

import argparse
import contextlib
import copy
import ctypes
import functools
import gzip
import io
import itertools
import math
import os
import re
import shlex
import signal
import socket
import sys
import tempfile
import threading
import time
import urllib.request
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import distributed, nn
from tqdm import tqdm

DATASETS = {"fashion-mnist": "FashionMNIST", "mnist": "MNIST", "kmnist": "KMNIST"}
DATA = Path(__file__).resolve().parent / "data"
SAMPLE = DATA / "sample-images-idx3-ubyte.gz"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
DRY = "-dry-run"
MAX_Z = 10_000
# What may be given anew with --resume: none of it alters the mathematics of an epoch.
MAY_CHANGE = {"resume", "epochs", "device", "data_dir", "sample_every", "tensorboard", "no_graph"}
# Which of torchrun's processes this is, of how many: on all machines, and on this one. Only the
# first writes and prints.
TORCHRUN = os.environ if "TORCHELASTIC_RUN_ID" in os.environ else {}
RANK, WORLD = int(TORCHRUN.get("RANK", 0)), int(TORCHRUN.get("WORLD_SIZE", 1))
HERE, ALL_HERE = int(TORCHRUN.get("LOCAL_RANK", 0)), int(TORCHRUN.get("LOCAL_WORLD_SIZE", 1))


# ---- messages and mistakes


class UserError(Exception):
    """Something that the user can mend: ends the script with one line and exit code 2."""


def run_main(main):
    """Call main; a mistake or a signal ends in one line and an exit code, not in a traceback."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stdout.reconfigure(errors="backslashreplace")  # for names that a plain locale cannot print
    try:
        main()
    except (UserError, OSError, RuntimeError, MemoryError) as error:
        message = " ".join(str(error).split())
        if WORLD > 1 and re.search("gloo|NCCL|connection|[Ss]ocket", message):
            message = "another of its processes ended"
        elif isinstance(error, OSError):  # a full disk, a folder that may not be written, ...
            message = f"{error.strerror or message}: {error.filename or 'a file'}"
        elif not isinstance(error, UserError):
            if not re.search("memory|allocat", message) and not isinstance(error, MemoryError):
                raise
            message = "out of memory: try a smaller --batch-size"
        if HERE == 0 or not isinstance(error, UserError):  # a user's mistake is every process's
            sys.stderr.write(f"{script_name()}.py: error: {message}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    if distributed.is_initialized():
        distributed.destroy_process_group()


def script_name():
    return Path(sys.argv[0]).stem


def say(text):
    """Print above the progress bar. A reader who left (`| head -1`) does not end a training."""
    try:
        if RANK == 0:
            tqdm.write(text)
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# ---- options and device


class Parser(argparse.ArgumentParser):
    """argparse with the script's docstring as its help, and a mistake in one line."""

    def __init__(self, doc):
        super().__init__(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message):
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}\n")


def number(kind, low, high=10**6):
    """An argparse type: an int or a float from low to high, so neither nan nor infinite."""

    def parse(text):
        with contextlib.suppress(ValueError):
            if low <= kind(text) <= high:
                return kind(text)
        noun = "a whole number" if kind is int else "a number"
        raise argparse.ArgumentTypeError(f"{text!r} is not {noun} from {low} to {high}")

    return parse


def add_run_options(parser):
    """The options that no model cares about, the same in every script."""
    add = parser.add_argument_group("the run").add_argument
    add("--dataset", choices=[*DATASETS, "sample"], help="the images (default: fashion-mnist)")
    add("--data-dir", type=Path, help="where they are, or go (default: data)")
    add("--out", type=Path, help="folder for the results (default: a new one in runs)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    add("--seed", type=number(int, 0, 2**32 - 1), default=0, help="random seed (default: 0)")
    add("--resume", nargs="?", const="", metavar="RUN", help="go on with RUN (default: the newest)")
    add("--sample-every", type=number(int, 1), metavar="N", help="draw samples every N epochs too")
    add("--tensorboard", action="store_true", help="log losses and samples for TensorBoard too")
    add(
        "--bf16",
        nargs="?",
        const="on",
        choices=("on", "off"),
        help="compute in bfloat16 (default: on for CPUs that have instructions for it)",
    )
    add("--no-graph", action="store_true", help="on CUDA, no graph of the step: same numbers")
    add("--dry-run", action="store_true", help="one epoch of two steps, to see that all works")


def parse_args(parser):
    """Return the arguments, and the checkpoint to go on from (None for a new run).

    With --resume the checkpoint's own arguments come first and today's after them, so what is
    given anew wins; whatever would change the mathematics must then be as it was.
    """
    args = parser.parse_args()
    if args.resume is None:
        args.epochs = 1 if args.dry_run else args.epochs
        return args, None
    path = find_checkpoint(args.resume)
    checkpoint = load(path, rows=int, G=dict, D=dict, opt_G=dict, opt_D=dict, average=dict)
    if checkpoint["script"] != script_name():
        raise UserError(f"{path} is of {checkpoint['script']}.py: resume it with that script")
    if checkpoint["args"].keys() != vars(args).keys() - {"out", "resume"}:
        raise UserError(f"{path} was written by another version of {script_name()}.py")
    saved = [
        "--" + name.replace("_", "-") + (f"={value}" if value is not True else "")
        for name, value in checkpoint["args"].items()
        if value is not None and value is not False
    ]
    before, args = parser.parse_args(saved), parser.parse_args(saved + sys.argv[1:])
    for name in vars(args).keys() - MAY_CHANGE:
        old, new = getattr(before, name), getattr(args, name)
        if old != new:
            option = "--" + name.replace("_", "-")
            raise UserError(f"{option} {new} does not fit {path} (it has {old}): leave it out")
    if not 0 <= checkpoint["epoch"] <= args.epochs:
        raise UserError(f"{path} already has {checkpoint['epoch']} epochs: give --epochs more")
    args.out = path.parent
    return args, checkpoint


def pick_device(name):
    """The torch.device of that name; auto is cuda, then mps, then cpu.

    Every process of torchrun gets a GPU of its own, or all share the CPU.
    """
    here = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    here += ["mps"] * torch.backends.mps.is_available() + ["cpu"]
    if name == "auto":
        name = here[0]
    if name not in here and not (name == "cuda" and "cuda:0" in here):
        raise UserError(
            f"there is no device {name!r} here; this machine has: {', '.join(here)} (or auto)"
        )
    if name == "cpu":
        keep_freed_memory()
    elif name.startswith("cuda"):
        torch.set_float32_matmul_precision("high")  # TF32: as good here, and several times faster
        if WORLD > 1:
            if ALL_HERE > torch.cuda.device_count():
                raise UserError(f"{ALL_HERE} processes need as many GPUs; here are {here[:-1]}")
            name = f"cuda:{HERE}"
    if WORLD > 1 and not distributed.is_initialized():
        distributed.init_process_group("gloo" if name == "cpu" else "nccl")
    return torch.device(name)


def keep_freed_memory():
    """Have glibc keep what a step frees for the next one: returning it to the system and getting
    it back, zeroed page by page, took up to half of a convolutional network's step."""
    with contextlib.suppress(OSError, AttributeError):  # not on every system
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(-4, 0)  # M_MMAP_MAX
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


# ---- a faster step


def accelerate(train_step, G, D, opt_G, opt_D, args, batch_dim=0):
    """The training step of these networks, as fast as the machine can do it: in bfloat16, shared
    among the processes of torchrun, as one CUDA graph. Call it with a batch of images and of z.
    """
    device = next(G.parameters()).device
    args.bf16 = args.bf16 or ("on" if bf16_pays(device, G) else "off")
    if args.bf16 == "on":
        compute_in_bf16(G, device)
        compute_in_bf16(D, device)
    if args.batch_size % WORLD or args.batch_size < 2 * WORLD:
        raise UserError(f"--batch-size {args.batch_size} does not divide among {WORLD} processes")
    if WORLD > 1:
        G, D = parallel(G, device), parallel(D, device)
    step = functools.partial(train_step, G, D, opt_G, opt_D)
    if device.type == "cuda" and WORLD == 1 and not args.no_graph:
        return GraphedStep(step, opt_G, opt_D)

    mine = (slice(None),) * batch_dim + (slice(RANK, None, WORLD),)
    return lambda *batches: step(*(batch[mine] for batch in batches))


def bf16_pays(device, network):
    """Whether bfloat16 is faster: not for depthwise convolutions, which take four times as long."""
    with contextlib.suppress(OSError):  # not on every system
        able = re.search("avx512_bf16|amx_bf16", Path("/proc/cpuinfo").read_text())
        depthwise = any(getattr(layer, "groups", 1) > 1 for layer in network.modules())
        return bool(able) and device.type == "cpu" and not depthwise
    return False


def compute_in_bf16(network, device):
    """Have the network's layers compute in bfloat16; its weights, and the losses, stay float32."""
    forward = network.forward

    def autocast_forward(x):
        with torch.autocast(device.type, torch.bfloat16):
            return forward(x)

    network.forward = autocast_forward
    for layer in network.modules():
        # What D says in the end: after a sigmoid in bfloat16, 0.998 and more would be 1.
        if 1 in (getattr(layer, "out_features", 0), getattr(layer, "out_channels", 0)):
            layer.register_forward_hook(lambda layer, inputs, output: output.float())


def parallel(network, device):
    """The network, averaging its gradients over all processes before an optimizer sees them."""
    if device.type == "cuda":
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    warnings.filterwarnings("ignore", "`broadcast_buffers`")  # older versions know no other name
    warnings.filterwarnings("ignore", "Grad strides do not match")  # of [N, 1, ...]: harmless
    return nn.parallel.DistributedDataParallel(network, broadcast_buffers=False)


class GraphedStep:
    """A training step recorded as one CUDA graph: the CPU launches the whole of it at once.

    The first steps are taken as usual, one kernel after the other, while libraries and optimizers
    set up what they need. Recording computes nothing, so every step is taken exactly once.
    """

    def __init__(self, step, *optimizers):
        self.step, self.usual, self.graph = step, 3, None
        self.stream = torch.cuda.Stream()  # a graph cannot be recorded on the default one
        for optimizer in optimizers:
            optimizer.param_groups[0]["capturable"] = True  # has it count its steps on the GPU

    def __call__(self, *batches):
        if self.usual:
            self.usual -= 1
            return self.step_aside(*batches)
        if not self.graph:
            self.inputs, self.graph = [batch.clone() for batch in batches], torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, stream=self.stream):
                self.losses = self.step(*self.inputs)
        for mine, batch in zip(self.inputs, batches):
            mine.copy_(batch)
        self.graph.replay()
        return self.losses.clone()  # the next replay overwrites them

    def step_aside(self, *batches):
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of "capturable" outside of a graph
            losses = self.step(*batches)
        torch.cuda.current_stream().wait_stream(self.stream)
        return losses


class Average(nn.Module):
    """A copy of a network whose weights are a mean over the network's last steps: about the last
    tenth of all steps so far, at most 1 / (1 - decay) of them."""

    def __init__(self, network, decay):
        super().__init__()
        self.network, self.decay = copy.deepcopy(network).eval(), decay
        self.register_buffer("steps", torch.zeros((), device=next(network.parameters()).device))
        both = zip(self.network.state_dict().values(), network.state_dict().values())
        self.pairs = [pair for pair in both if pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self, *_):
        self.steps += 1
        share = (10 / (self.steps + 9)).clamp(min=1 - self.decay)
        for mean, newest in self.pairs:
            mean.lerp_(newest, share)


def stream(seed, epoch=0):
    """The seed of an epoch's own random numbers: a resumed run repeats them with nothing saved."""
    return (seed + 2654435761 * epoch) % 2**32


# ---- data


def read_idx(path, limit=200_000):
    """Read an IDX file of 28x28 images, plain or gzipped, as a uint8 tensor [N, 1, 28, 28]."""
    try:
        with open(path, "rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if zipped else open(path, "rb") as file:
            header = np.frombuffer(file.read(16).ljust(16, b"\0"), ">u4").tolist()
            if header[0] != 0x803:
                raise UserError(f"{path} is not an IDX file of images")
            if header[2:] != [28, 28]:
                raise UserError(f"the images in {path} are {header[2]}x{header[3]}, not 28x28")
            if not 0 < header[1] <= limit:
                raise UserError(f"{path} promises {header[1]} images, not 1 to {limit}")
            pixels = file.read(header[1] * 784 + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', 0) or error}") from None
    if len(pixels) != header[1] * 784:
        have = "more" if len(pixels) > header[1] * 784 else len(pixels) // 784
        raise UserError(f"{path} promises {header[1]} images but holds {have}: get it anew")
    return torch.frombuffer(bytearray(pixels), dtype=torch.uint8).view(-1, 1, 28, 28)


def find_images(name, data_dir):
    """The file of training images in data_dir, as torchvision keeps it, or where Debian does."""
    folders = [data_dir / DATASETS[name] / "raw", data_dir] + [DEBIAN] * (name == "fashion-mnist")
    files = [folder / f"train-images-idx3-ubyte{gz}" for folder in folders for gz in ("", ".gz")]
    return next(filter(Path.exists, files), None)


def answers(url, seconds=5):
    """Whether url can be had; asked in a thread, because looking up a name obeys no time limit."""
    answer = []

    def ask():
        with contextlib.suppress(Exception):  # whatever a proxy may say
            answer.append(urllib.request.urlopen(url, timeout=seconds).close())

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(answer)


def download(name, data_dir):
    """Have torchvision download the data; it appears in data_dir only when it is complete."""
    from torchvision import datasets  # a second to import, and seldom needed

    dataset = getattr(datasets, DATASETS[name])
    if not any(answers(mirror + dataset.resources[0][0]) for mirror in dataset.mirrors):
        raise UserError("its download site does not answer")
    say(f"downloading {name} into {data_dir}")
    socket.setdefaulttimeout(10)
    bar = contextlib.redirect_stderr(sys.stderr if sys.stderr.isatty() else io.StringIO())
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with bar, tempfile.TemporaryDirectory(dir=data_dir) as folder:
            dataset(folder, download=True)
            target = data_dir / DATASETS[name] / "raw"
            target.mkdir(parents=True, exist_ok=True)
            for file in Path(folder, DATASETS[name], "raw").iterdir():
                os.replace(file, target / file.name)
    except (OSError, RuntimeError) as error:
        with contextlib.suppress(OSError):  # unless there is something in it
            data_dir.rmdir()
        raise UserError(f"its download failed ({error})") from None
    return find_images(name, data_dir)


def load_images(args, per_step):
    """All training images, uint8; args.dataset becomes the name of what was found."""
    name, folder = args.dataset or "fashion-mnist", args.data_dir or DATA
    path = SAMPLE if name == "sample" else find_images(name, folder)
    if path is None:
        try:
            path = download(name, folder)
        except UserError as error:
            why = f"{name} is not in {folder}, and {error}."
            remedy = "Connect to the internet once, or name the folder that has it with --data-dir"
            if name == "fashion-mnist":
                remedy += ", or `apt install dataset-fashion-mnist`"
            if args.dataset:
                raise UserError(f"{why} {remedy}, or try --dataset sample.") from None
            say(f"{'*' * 78}\n* ONLY A SAMPLE: training on 10,000 of the 60,000 images.")
            say(f"* {why}\n* {remedy}.\n{'*' * 78}")
            name, path = "sample", SAMPLE
    args.dataset, images = name, read_idx(path)
    if args.dry_run:
        images = images[: 2 * per_step]
    if len(images) < per_step:
        raise UserError(
            f"{path} has {len(images)} images, a step takes {per_step}: smaller --batch-size!"
        )
    say(f"data: {len(images):,} images of {name} from {path}" + " (dry run)" * args.dry_run)
    if args.data_dir and name != "sample" and args.data_dir not in path.parents:
        say(f"* which is not --data-dir: there is nothing of {name} in {folder}")
    return images


def batches(images, size):
    """Every image once, in random order, scaled to [-1, 1]; a short last batch is dropped."""
    order = torch.randperm(len(images)).to(images.device)
    for chosen in order.split(size)[: len(images) // size]:
        yield images.index_select(0, chosen).float().div_(127.5).sub_(1)


# ---- files


def write(path, data):
    """Write beside path, then rename: no kill and no full disk leaves half a file in its place."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave the new name on an empty file
        os.replace(temporary, path)
    except OSError as error:
        error.filename = path  # which a full disk does not tell
        raise
    finally:
        temporary.unlink(missing_ok=True)


def save(path, content):
    buffer = io.BytesIO()  # torch.save to a path would put the file's name into its bytes
    torch.save(content, buffer)
    write(path, buffer.getvalue())


def load(path, **kinds):
    """Read a g.pt or ckpt.pt: a dict with entries of these kinds, of tensors and plain values.

    A damaged file, and one with code in its pickle, is refused.
    """
    kinds |= {"script": str, "arch": str, "z_dim": int, "epoch": int, "args": dict}
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
            if unpacked > path.stat().st_size or archive.testzip():
                raise zipfile.BadZipFile
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
        fits = all(isinstance(content[name], kind) for name, kind in kinds.items())
        if fits and 1 <= content["z_dim"] <= MAX_Z:
            return content
        reason = "something in it is not what it should be"
    except Exception as error:  # noqa: BLE001  a damaged file can raise nearly anything
        reason = getattr(error, "strerror", None) or "damaged, or no checkpoint of these scripts"
    raise UserError(f"cannot read {path}: {reason}")


def find_checkpoint(given):
    """The ckpt.pt that --resume means: in a run's folder, itself, or of this script's newest run."""
    if given:
        return Path(given, "ckpt.pt") if Path(given).is_dir() else Path(given)
    if not (runs := newest(f"{script_name()}*/ckpt.pt")):
        raise UserError(f"nothing to resume: there is no runs/{script_name()}*/ckpt.pt")
    return runs[0]


def newest(pattern):
    """Files in runs that match, the newest first; what a dry run left is not meant."""
    found = [path for path in Path("runs").glob(pattern) if DRY not in path.parent.name]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def new_folder(out, name):
    """Make the folder of a new run: out, or the first free one of runs/NAME, runs/NAME-2, ..."""
    if out:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise UserError(f"{out} is not empty: give another --out, or --resume {out}")
        return out
    Path("runs").mkdir(exist_ok=True)
    for count in itertools.count(1):
        folder = Path("runs", name + f"-{count}" * (count > 1))
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder


# ---- pictures


def grid(images, columns, zoom=3):
    """[N, 1, 28, 28] in [-1, 1] as one picture of uint8 greys, each pixel drawn zoom times."""
    pixels = images.float().cpu().clamp(-1, 1).add(1).mul(127.5).round().byte().squeeze(1)
    tiles = np.pad(pixels.numpy(), ((0, 0), (1, 1), (1, 1)), constant_values=96)
    tiles = tiles.reshape(-1, columns, 30, 30).swapaxes(1, 2).reshape(-1, columns * 30)
    return tiles.repeat(zoom, 0).repeat(zoom, 1)


def save_png(path, picture, grey=False):
    """Save an array of greys, or a figure."""
    buffer = io.BytesIO()
    if isinstance(picture, Figure):
        picture.savefig(buffer, format="png", dpi=100, bbox_inches="tight")
        picture = np.asarray(Image.open(buffer).convert("L" if grey else "RGB"))
        buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "png", optimize=True)
    write(path, buffer.getvalue())


def save_sheet(path, picture, title="", columns=(), rows=(), fontsize=14):
    """Draw a picture of greys, dot for dot, with labels above its columns and beside its rows."""
    height, width = picture.shape
    figure = Figure(figsize=(width / 100, height / 100))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_xticks((np.arange(len(columns)) + 0.5) * width / max(len(columns), 1), columns)
    axes.set_yticks((np.arange(len(rows)) + 0.5) * height / max(len(rows), 1), rows)
    axes.tick_params(length=0, labelsize=fontsize, top=True, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    axes.set_title(title)
    save_png(path, figure, grey=True)


def save_losses(path, table, epochs, curves, title):
    """Draw losses.csv, a panel for each of curves: raw values pale, their moving mean strong."""
    with open(table) as file:
        columns = file.readline().strip().split(",")
        data = np.loadtxt(file, delimiter=",", ndmin=2)
    at = np.arange(1, len(data) + 1) * epochs / len(data)
    window = math.ceil(len(data) / 50)
    figure = Figure(figsize=(9, 3.2 * len(curves)), layout="constrained")
    panels = figure.subplots(len(curves), sharex=True, squeeze=False)[:, 0]
    for axes, (label, names) in zip(panels, curves.items()):
        drawn = data[:, [columns.index(name) for name in names]]
        for values, name, colour in zip(drawn.T, names, ("tab:blue", "tab:orange")):
            axes.plot(at, values, color=colour, alpha=0.25, linewidth=0.6)
            mean = np.convolve(values, np.ones(window) / window, "valid")
            axes.plot(at[window // 2 :][: len(mean)], mean, color=colour, label=name)
        low, high = np.percentile(drawn, [0.2, 99.8])  # a few spikes must not flatten the rest
        axes.set_ylim(low - (high - low) / 20 - 1e-3, high + (high - low) / 20 + 1e-3)
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        axes.legend(loc="upper right")
    panels[0].set_title(title)
    panels[-1].set_xlabel("epoch")
    panels[-1].xaxis.get_major_locator().set_params(integer=True)
    save_png(path, figure)


# ---- a run's folder


def restore_optimizer(optimizer, averages):
    """Give an optimizer its averages back. Learning rate and the like are this command's."""
    with warnings.catch_warnings():  # of what is refused below
        warnings.simplefilter("ignore")
        optimizer.load_state_dict(optimizer.state_dict() | {"state": averages})
    names = {"Adam": {"step", "exp_avg", "exp_avg_sq"}, "RMSprop": {"step", "square_avg"}}
    for parameter, state in optimizer.state.items():
        shapes = {tensor.shape for name, tensor in state.items() if name != "step"}
        same = state.keys() == names[type(optimizer).__name__] and shapes == {parameter.shape}
        if not same or state["step"].numel() != 1:
            raise ValueError("the averages of another optimizer, or of other weights")


def finite(network):
    return all(tensor.isfinite().all() for tensor in network.state_dict().values())


def spread(z_dim):
    """Five positions over the whole of z: 0 20 40 60 80 of 100."""
    return sorted({z_dim * part // 5 for part in range(5)})


class Run:
    """The folder of a run and all that is written there; it knows no network, no loss, no loop.

    `steps` are those of an epoch. `curves` names what a step returns, in order: a dict from a
    panel of losses.png to its columns. `state` is all that --resume needs.
    """

    def __init__(self, model, args, checkpoint, images, steps, curves, state):
        self.model, self.args, self.steps = model, args, steps
        self.curves, self.state = curves, state
        self.epoch, self.rows, self.safe, self.losses = 0, 0, 0, []
        self.out = self.board = None
        self.columns = [name for names in curves.values() for name in names]
        self.milestones = {round(args.epochs * quarter / 4) for quarter in range(5)}
        noise = torch.Generator().manual_seed(stream(args.seed, -1))  # no epoch's, nor the weights'
        self.z = torch.randn(64, args.z_dim, generator=noise).to(images.device)
        self.real = images[:8] / 127.5 - 1
        if args.tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise UserError("--tensorboard needs `pip install tensorboard`") from None
        if checkpoint:
            self.restore(args.out, checkpoint)
        elif RANK == 0:
            self.out = new_folder(args.out, script_name() + DRY * args.dry_run)
            with open(self.out / "losses.csv", "x") as table:  # fails if another run began here
                print("epoch", "step", *self.columns, sep=",", file=table)
        if args.tensorboard and RANK == 0:
            self.board = SummaryWriter(self.out / "tensorboard", purge_step=self.rows + 1)
        for network in (state["G"], state["D"]):
            say(f"{network}\n{sum(p.numel() for p in network.parameters()):,} parameters\n")
        if not checkpoint and RANK == 0:
            self.save()
        if self.epoch < args.epochs:
            say(
                f"training on {images.device} from epoch {self.epoch + 1}; results go to {self.out}"
            )
        else:
            say(f"{self.out} has its {self.epoch} epochs: give --epochs more to train it further")

    def restore(self, out, checkpoint):
        try:
            for name, part in self.state.items():
                if name.startswith("opt"):
                    restore_optimizer(part, checkpoint[name]["state"])
                else:
                    part.load_state_dict(checkpoint[name])
                    if not finite(part):
                        raise ValueError("not finite")
        except Exception:  # noqa: BLE001  what does not fit can raise nearly anything
            raise UserError(f"{out / 'ckpt.pt'} is damaged: {name} does not fit") from None
        self.out, self.rows = out, checkpoint["rows"]
        self.epoch = self.safe = checkpoint["epoch"]
        if self.rows != self.epoch * self.steps:
            raise UserError(f"{out} was trained on another number of images: mind --data-dir")
        lines = (out / "losses.csv").read_bytes().splitlines(keepends=True)
        if RANK == 0:
            write(out / "losses.csv", b"".join(lines[: self.rows + 1]))  # no epoch that was cut off

    def __enter__(self):
        done, total = self.epoch * self.steps, self.args.epochs * self.steps
        hidden = RANK > 0 or not sys.stderr.isatty()
        self.bar = tqdm(initial=done, total=total, unit="step", dynamic_ncols=True, disable=hidden)
        self.began = time.monotonic()
        return self

    def __exit__(self, kind, error, _):
        self.bar.close()
        if re.search("input should be between 0 and 1|device-side assert", str(error)):
            raise self.diverged(len(self.losses) + 1) from None  # D says NaN, which BCE refuses
        if kind and kind is not UserError:
            python = "python" if WORLD == 1 else f"torchrun --nproc-per-node {ALL_HERE}"
            command = f"{python} {sys.argv[0]} --resume {shlex.quote(str(self.out))}"
            say(f"\nstopped; epoch {self.safe} is safe. To go on: {command}")

    def log(self, losses):
        """Keep a step's losses, unread: reading them at once would be waiting for the device."""
        self.losses.append(losses)
        self.bar.update()
        if len(self.losses) % 100 == 0 and losses.device.type == "cpu":  # nothing to wait for
            self.show(torch.stack(self.losses))

    def show(self, losses):
        """Mean losses, all of them as a text, and beside the bar the two that everybody wants."""
        means = {n: f"{mean:.3f}" for n, mean in zip(self.columns, losses.mean(0).tolist())}
        self.bar.set_postfix_str(f"loss_D {means['loss_D']}  loss_G {means['loss_G']}")
        return "  ".join(f"{name} {mean}" for name, mean in means.items())

    def end_epoch(self):
        """Write the epoch down, or stop before NaN replaces a good checkpoint."""
        losses = torch.stack(self.losses)
        if WORLD > 1:  # every process has the means of its share of each batch
            distributed.all_reduce(losses)
        losses, self.losses = losses.cpu() / WORLD, []
        bad = (~losses.isfinite()).any(1).nonzero().flatten().tolist()
        if bad or not finite(self.state["G"]) or not finite(self.state["D"]):
            raise self.diverged(bad[0] + 1 if bad else len(losses))
        self.epoch += 1
        self.rows += len(losses)
        if RANK == 0:
            self.keep(losses)

    def keep(self, losses):
        with open(self.out / "losses.csv", "a") as table:
            for row, values in enumerate(losses.tolist(), self.rows - len(losses) + 1):
                print(self.epoch, row, *map("{:.6g}".format, values), sep=",", file=table)
                for name, value in zip(self.columns, values if self.board else ()):
                    self.board.add_scalar(f"{self.model}/{name}", value, row)
        self.save()
        took, self.began = time.monotonic() - self.began, time.monotonic()
        say(f"epoch {self.epoch}/{self.args.epochs}  {self.show(losses)}  {took:.1f} s")

    def diverged(self, step):
        return UserError(
            f"losses or weights are no longer finite at step {self.rows + step}; "
            f"{self.out}/ckpt.pt of epoch {self.safe} is the last good one; "
            "try a new run with a smaller --lr"
        )

    def save(self):
        """Save the state, ckpt.pt last: whatever it speaks of is then on the disk."""
        if self.epoch in self.milestones or self.epoch % (self.args.sample_every or math.inf) == 0:
            self.draw_samples()
        args = {name: value for name, value in vars(self.args).items() if name != "out"}
        del args["resume"]
        lasting = {name: args[name] for name in args if name not in MAY_CHANGE - {"epochs"}}
        about = {"script": script_name(), "arch": args["arch"], "z_dim": args["z_dim"]}
        about |= {"epoch": self.epoch, "args": lasting}
        save(self.out / "g.pt", about | {"state_dict": self.state["average"].network.state_dict()})
        about["args"] = args | {"data_dir": args["data_dir"] and str(args["data_dir"].resolve())}
        state = {name: part.state_dict() for name, part in self.state.items()}
        save(self.out / "ckpt.pt", about | {"rows": self.rows} | state)
        self.safe = self.epoch

    def generate(self):
        """What the average of G makes of the run's own 64 z."""
        with torch.inference_mode():
            return self.state["average"].network(self.z)

    def sample_path(self):
        return self.out / "samples" / f"epoch_{self.epoch:03d}.png"

    def draw_samples(self):
        picture = grid(self.generate(), 8)
        (self.out / "samples").mkdir(exist_ok=True)
        save_png(self.sample_path(), picture)
        if 0 < self.epoch < self.args.epochs:  # finish() draws the last
            self.draw_losses()
        if self.board:
            self.board.add_image(f"{self.model}/samples", picture[None], self.epoch)

    def draw_losses(self):
        title = f"{self.model}: {script_name()}.py --arch {self.args.arch}, {self.args.dataset}"
        save_losses(
            self.out / "losses.png", self.out / "losses.csv", self.epoch, self.curves, title
        )

    def finish(self):
        """Draw the figures of the whole run, and say where things are and what to type next."""
        if RANK > 0:
            return
        if not self.sample_path().exists():
            self.draw_samples()
        drawn = {int(p.stem[6:]): p for p in (self.out / "samples").glob("epoch_*.png")}
        shown = {min(drawn, key=lambda epoch: abs(epoch - wish)) for wish in self.milestones}
        sheets = [np.asarray(Image.open(drawn[epoch]))[::3, ::3] for epoch in sorted(shown)]
        strip = np.concatenate([np.pad(s, 4, constant_values=255) for s in sheets], axis=1)
        labels = [f"epoch {epoch}" for epoch in sorted(shown)]
        save_sheet(self.out / "progress.png", strip.repeat(2, 0).repeat(2, 1), "", labels, (), 28)
        pair = grid(torch.cat([self.real, self.generate()[:8]]), 8)
        save_sheet(self.out / "real_vs_fake.png", pair, rows=["real", "generated"])
        self.draw_losses()
        if self.board:
            self.board.close()
        say(
            f"\nfinished epoch {self.epoch}. In {self.out}:\n"
            "  progress.png real_vs_fake.png samples/  what it draws\n"
            "  losses.png losses.csv                   how it learned\n"
            "  g.pt ckpt.pt                            the generator; all that --resume needs\n"
            f"next: python {Path(sys.argv[0]).with_name('perturb.py')} "
            f"--ckpt {shlex.quote((self.out / 'g.pt').as_posix())} "
            f"--positions {' '.join(map(str, spread(self.args.z_dim)))} --values -1 5 10"
        )
