"""What single entries of the noise z do to the picture: the experiment in which every report ends.

python perturb.py --ckpt g.pt --positions 0 20 40 60 80 --values -1 5 10
python perturb.py --values 0.3 10 --seed 1 3 30 810 114514    # a figure for each seed
python perturb.py --add --values -3 3                         # add to the entry, do not set it
python perturb.py --scale 0.3 1 3                             # the whole z, smaller and larger
python perturb.py --interpolate 9                             # walk from the first z to the last
python perturb.py --live                                      # sliders, in a window or a browser

Without --ckpt, or if g.pt is not in this folder, the newest run's generator is taken; before there
is any run, the one in data.

The table is in grey levels, from 0 for black to 255 for white, and saved as .csv beside the figure:
brightness      mean of all pixels of the row
change          mean difference of a pixel from the unchanged row (in a walk: from the last step)
pixels moved %  how many pixels differ by more than 25.5, a tenth of that range
sharpness       mean difference of neighbouring pixels: small if blurred, large if grainy
diversity       mean difference of a pixel between two samples of the row
"""

import argparse
import importlib.util
import itertools
import re
import sys
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.widgets import Button, Slider

import common

SHIPPED = common.DATA / "g.pt"
ROWS_SHOWN = 16  # of a table on the screen: the example's
# matplotlib's backends that open no window: without a display, for a browser, in a notebook
NO_WINDOW = ("agg", "webagg", "inline", "module://matplotlib_inline.backend_inline")


# ---- the generator
def find_generator(given):
    """The file or folder given; a bare name that is not here, or none, means the newest run's."""
    path = Path(given or "g.pt")
    if given and path.is_dir():
        path = path / "g.pt"
    if given and path.exists():
        return path
    known = [*common.newest("*/*.pt"), SHIPPED]
    for file in known:
        if file.name == str(path):
            return file
    known = ", ".join(map(str, known))
    raise common.UserError(f"there is no file {path}. Known generators: {known}")


def find_archs(script):
    """ARCHS of a script beside this one or in the current folder. Nothing else is imported."""
    for folder in (Path(__file__).resolve().parent, Path.cwd()):
        path = folder / f"{script}.py"
        is_name = Path(script).name == script
        if is_name and path.exists() and "\nARCHS = {" in path.read_text("utf-8"):
            spec = importlib.util.spec_from_file_location(script, path)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module.ARCHS
    raise common.UserError(f"there is no {script}.py with ARCHS beside perturb.py or here")


def load_generator(path):
    """The generator in a g.pt (or a ckpt.pt), ready to draw on the CPU, and what is said of it."""
    saved = common.load(path)
    archs = find_archs(saved["script"])
    if saved["arch"] not in archs:
        raise common.UserError(f"{saved['script']}.py has no --arch {saved['arch']} as {path} says")
    G = archs[saved["arch"]][0](saved["z_dim"])
    with common.refuse_misfit(path):
        G.load_state_dict(saved["state_dict"] if "state_dict" in saved else saved["average"])
    if not all(weight.isfinite().all() for weight in G.state_dict().values()):
        raise common.UserError(f"{path} has weights that are not finite numbers")
    return G.eval(), saved


def spread(z_dim):
    """Five positions over the whole of z: 0 20 40 60 80 of 100."""
    return sorted({z_dim * part // 5 for part in range(5)})


# ---- the experiment
def make_rows(args, z):
    """The rows of the figure, the unchanged one first: each a label and a z of its own."""
    if args.interpolate:
        return walk(z[0], z[-1], args.interpolate)
    rows = [("unchanged", z)]
    if args.scale:
        return rows + [(f"z * {factor:g}", z * factor) for factor in args.scale]
    for position, value in itertools.product(args.positions, args.values):
        changed = z.clone()  # a copy: no row keeps the changes of the others
        if args.add:
            label = f"z[{position}] {'-' if value < 0 else '+'} {abs(value):g}"
            changed[:, position] += value
        else:
            label = f"z[{position}] = {value:g}"
            changed[:, position] = value
        rows.append((label, changed))
    return rows


def walk(first, last, steps):
    """From z to z along the sphere: a straight line would pass too near to 0, where G never was."""
    angle = torch.arccos(torch.cosine_similarity(first, last, dim=0))
    if torch.sin(angle) < 1e-3:  # no sphere to speak of: z has one entry, or two are equal
        angle = torch.tensor(1e-3)  # so small an arc is a straight line
    for t in np.linspace(0, 1, steps).tolist():
        between = torch.sin((1 - t) * angle) * first + torch.sin(t * angle) * last
        yield f"{t:.2f}", (between / torch.sin(angle))[None]


def measure(images, from_last=False):
    """The table described above, of images [rows, columns, ...]. The first row is the unchanged."""
    pictures = images.clamp(-1, 1).add(1).mul(127.5)
    grey = pictures.flatten(2)
    moved = (grey - (torch.cat([grey[:1], grey[:-1]]) if from_last else grey[0])).abs()
    across, down = (pictures.diff(dim=side).abs().mean((1, 2, 3, 4)) for side in (-1, -2))
    columns = {
        "brightness": grey.mean((1, 2)),
        "change": moved.mean((1, 2)),
        "pixels moved %": moved.gt(25.5).float().mean((1, 2)) * 100,
        "sharpness": (across + down) / 2,
    }
    if grey.shape[1] > 1:  # how far the columns lie from each other, a mean over their pairs
        pairs = [torch.pdist(row, p=1).mean() / grey.shape[2] for row in grey]
        columns["diversity"] = torch.stack(pairs)
    return {name: values.tolist() for name, values in columns.items()}


def summary(args, table):
    """What the table says about the reports' claims, in a few lines."""
    bright, change = table["brightness"], table["change"]
    if args.interpolate:
        yield f"changes from step to step: {min(change[1:]):.1f} to {max(change):.1f}"
        return
    if args.scale:
        measured = {name: table[name] for name in ("sharpness", "diversity") if name in table}
        for row, factor in enumerate(args.scale, start=1):
            shares = [f"{name} {x[row] / max(x[0], 1e-9):.2f}" for name, x in measured.items()]
            yield f"z * {factor:g}: {', '.join(shares)} of the unchanged row's"
        return
    yield f"unchanged: brightness {bright[0]:.1f}"
    shape = len(args.positions), len(args.values)
    bright, change = np.reshape(bright[1:], shape), np.reshape(change[1:], shape)
    for value, b, c in zip(args.values, bright.mean(0), change.mean(0)):
        yield f"value {value:g}: brightness {b:.1f}, change {c:.1f}"
    for position, c in zip(args.positions, change.mean(1)):
        yield f"position {position}: change {c:.1f}"
    yield f"the position that moves the picture most: {args.positions[change.mean(1).argmax()]}"
    if len(args.values) > 1:
        growing = (np.diff(bright[:, np.argsort(args.values)], axis=1) > 0).all(1)
        yield f"brightness grows with the value at {growing.sum()} of {len(growing)} positions"


def show(seed, lines, names, table):
    """Print the summary, and as much of the table as a screen holds."""
    print(f"\nseed {seed}", *lines, sep="\n  ")
    print(f"{'':16}" + "".join(f"{name:>16}" for name in table))
    for name, *values in list(zip(names, *table.values()))[:ROWS_SHOWN]:
        print(f"{name:16}" + "".join(f"{value:16.2f}" for value in values))
    if len(names) > ROWS_SHOWN:
        print(f"... and {len(names) - ROWS_SHOWN} more rows in the table that is saved")


# ---- with sliders
def live(G, z, positions):
    """A figure in which sliders change entries of z."""
    rows = [["images"] * 2, *([p] * 2 for p in positions), ["scale"] * 2, ["new z", "back"]]
    height = {"height_ratios": [8] + [1] * (len(rows) - 1), "figsize": (11, 2.5 + 0.3 * len(rows))}
    figure, axes = plt.subplot_mosaic(rows, layout="constrained", **height)
    before, now = z.clone(), z.clone()
    chosen = slice(None)  # the samples that the sliders move
    top = axes["images"]
    top.set(xticks=[], yticks=[])
    picture = top.imshow(common.grid(G(z).detach(), len(z), zoom=1), "gray", vmin=0, vmax=255)

    def redraw(_=None):
        with torch.inference_mode():
            images = torch.stack([G(before), G(now * scale.val)])
        picture.set_data(common.grid(images[1], len(z), zoom=1))
        top.set_xlabel("   ".join(f"{name} {row[1]:.1f}" for name, row in measure(images).items()))
        which = "all samples" if chosen == slice(None) else f"sample {chosen + 1}"
        top.set_title(f"the sliders move {which} (click on one, or beside them for all)")
        figure.canvas.draw_idle()

    def move(position, value):
        now[chosen, position] = value
        redraw()

    def back(_):
        for position, slider in sliders.items():
            slider.set_val(before[:, position].mean().item())
        scale.set_val(1)
        now.copy_(before)  # after the sliders, which have just written their means into it
        redraw()

    def choose(event):
        nonlocal chosen
        if event.inaxes in (top, None):
            width = picture.get_size()[1]
            chosen = int(event.xdata * len(z) / width) if event.inaxes else slice(None)
            redraw()

    sliders = {p: Slider(axes[p], f"z[{p}]", -10, 10, valinit=z[:, p].mean()) for p in positions}
    for position, slider in sliders.items():
        slider.on_changed(partial(move, position))
    scale = Slider(axes["scale"], "scale", 0, 5, valinit=1)
    scale.on_changed(redraw)
    buttons = {name: Button(axes[name], name) for name in ("new z", "back")}
    buttons["new z"].on_clicked(lambda _: before.normal_())
    for button in buttons.values():
        button.on_clicked(back)
    figure.canvas.mpl_connect("button_press_event", choose)
    redraw()
    figure.widgets = sliders | buttons | {"scale": scale}  # a widget works while somebody keeps it
    return figure


def start_page():
    """Where no window can open, have pyplot show its figures in a browser. Returns the server."""
    try:
        from matplotlib.backends.backend_webagg import WebAggApplication
    except RuntimeError:  # so matplotlib says that there is no tornado
        raise common.UserError("no window opens here; for a browser: pip install tornado") from None
    plt.switch_backend("webagg")
    plt.rcParams["webagg.open_in_browser"] = False
    WebAggApplication.initialize(address="127.0.0.1")
    port = WebAggApplication.port
    print("no window opens here: open the page below in a browser. Is that on another machine?")
    print(f"Then first type there: ssh -L {port}:127.0.0.1:{port} THIS_MACHINE")
    return WebAggApplication


# ---- options
def output_paths(args, folder):
    """The table's path and a figure's for each seed: of --out, or the next free in folder."""
    ends = [f"-seed{seed}.png" for seed in args.seed] if len(args.seed) > 1 else [".png"]
    for count in itertools.count(1):
        stem = folder / ("perturb" + f"-{count}" * (count > 1))
        stem = args.out.with_suffix("") if args.out else stem
        paths = [Path(f"{stem}{end}") for end in (".csv", *ends)]
        taken = [path for path in paths if path.exists()]
        if not taken:
            return paths
        if args.out:
            raise common.UserError(f"{taken[0]} exists already: give another --out")


def parse_args():
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    add, number, real = parser.add_argument, common.number, common.number(float, -1e6)
    add("--ckpt", help="the generator: a g.pt, or a run's folder (the newest run's)")
    add("--positions", type=number(int, -(10**6)), nargs="+", help="entries of z (0 20 40 60 80)")
    add("--values", type=real, nargs="+", help="what each is set to in turn (-1 5 10)")
    add("--add", action="store_true", help="add the value to the entry instead of setting it")
    add_one = parser.add_mutually_exclusive_group().add_argument
    add_one("--scale", type=real, nargs="+", help="multiply the whole z instead")
    add_one("--interpolate", type=number(int, 2, 50), metavar="N", help="walk, in N pictures")
    add_one("--live", action="store_true", help="sliders, in a window or a browser")
    add("--samples", type=number(int, 1, 64), default=8, help="columns (%(default)s)")
    seed = number(int, 0, 2**32 - 1)
    add("--seed", type=seed, nargs="+", default=[23231], help="of z; a figure for each (23231)")
    add("--out", type=Path, help="the figure, .png (perturb.png beside the generator)")
    for word in sys.argv[1:]:
        if re.fullmatch(r"[-+.\d]*,[-+.,\d]*", word):
            parser.error(f"{word}: put spaces between numbers, no commas")
    # argparse takes -1e1 for an option; with a space before it, for what it is
    words = [re.sub(r"^-[\d.]+[eE][+-]?\d+$", r" \g<0>", word) for word in sys.argv[1:]]
    args = parser.parse_args(words)
    if (args.scale or args.interpolate) and (args.positions or args.values or args.add):
        parser.error("--scale and --interpolate change the whole z: leave --positions, ... out")
    if args.interpolate and args.samples < 2:
        parser.error("--interpolate walks from the first sample to the last: --samples 2 or more")
    if args.out and args.out.suffix != ".png":
        parser.error(f"--out {args.out} does not end in .png")
    args.values = args.values or [-1.0, 5.0, 10.0]
    for name, given in ("--positions", args.positions or ()), ("--seed", args.seed):
        if len(set(given)) < len(given):
            parser.error(f"{name} has an entry twice: {' '.join(map(str, given))}")
    return args


def main():
    args = parse_args()
    path = find_generator(args.ckpt)
    G, saved = load_generator(path)
    z_dim = saved["z_dim"]
    args.positions = args.positions or spread(z_dim)
    if not 0 <= min(args.positions) <= max(args.positions) < z_dim:
        raise common.UserError(f"--positions go from 0 to {z_dim - 1} in {path}")
    rows = len(args.scale or ()) or len(args.positions) * len(args.values)
    if rows > 500 or rows * args.samples > 8000:
        raise common.UserError(f"{rows} rows of {args.samples} do not fit into a figure: draw less")
    about = f"{saved['script']}.py --arch {saved['arch']}, epoch {saved['epoch']}"
    print(f"generator: {path} ({about}, trained on {saved['args'].get('dataset')})")
    zs = [torch.randn(args.samples, z_dim, generator=torch.manual_seed(seed)) for seed in args.seed]
    if args.live:
        page = start_page() if plt.get_backend().lower() in NO_WINDOW else None
        live(G, zs[0], args.positions)
        plt.show()
        if page and not page.started:
            raise KeyboardInterrupt  # WebAgg has stopped on Ctrl-C and kept it to itself
        return

    table_path, *figure_paths = output_paths(args, path.parent)
    table_path.parent.mkdir(parents=True, exist_ok=True)
    tables, lines = [], []
    for seed, z, figure_path in zip(args.seed, zs, figure_paths):
        names, changed = zip(*make_rows(args, z))
        with torch.inference_mode():
            images = torch.stack([G(z) for z in changed])
        table = measure(images, from_last=bool(args.interpolate))
        tables.append(table)
        for name, *values in zip(names, *table.values()):
            lines.append(",".join([str(seed), name, *map("{:.4f}".format, values)]))
        columns = len(names) if args.interpolate else args.samples
        labels = {"columns" if args.interpolate else "rows": names}
        picture = common.grid(images.flatten(0, 1), columns)
        common.save_sheet(figure_path, picture, f"{about}, seed {seed}", **labels)
        show(seed, summary(args, table), names, table)
    if len(tables) > 1:
        means = {name: np.mean([table[name] for table in tables], axis=0) for name in table}
        print("\nmean over the seeds", *summary(args, means), sep="\n  ")
    lines.insert(0, ",".join(["seed", "row", *table]))
    common.write(table_path, ("\n".join(lines) + "\n").encode())
    print("\nsaved", *figure_paths, table_path)


if __name__ == "__main__":
    common.run(main)
