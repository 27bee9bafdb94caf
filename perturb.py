"""What single entries of z do to the picture: the experiment of reports A to D.

python perturb.py --ckpt g.pt --positions 0 20 40 60 80 --values -1 5 10
python perturb.py --values 0.3 10 --seed 1 3 30 810 114514  # a figure for each seed
python perturb.py --add --values -3 3                       # add, instead of setting
python perturb.py --scale 0.3 1 3                           # the whole z
python perturb.py --interpolate 9                           # walk from one z to another
python perturb.py --live                                    # a window of sliders

Without --ckpt, or with a bare name that is not in this folder, the newest run's
generator is taken; before there is any run, the one in data.

The table is in grey levels, from 0 for black to 255 for white, and saved as .csv beside
the figure:
brightness      mean of all pixels of the row
change          mean difference of a pixel from the unchanged row
                (in a walk: from the last step)
pixels moved %  how many pixels differ by more than 25.5, a tenth of that range
sharpness       mean difference of neighbouring pixels: small if blurred,
                large if grainy
diversity       mean difference of a pixel between two samples of the row
"""

import argparse
import ast
import importlib.util
import itertools
import os
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
ROWS_SHOWN = 16  # of a table on the screen: as many as the example has
# matplotlib's backends that open no window: no display, a browser, a notebook
NO_WINDOW = ("agg", "webagg", "inline", "module://matplotlib_inline.backend_inline")


# ---- the generator
def find_generator(given):
    """The path that is given, or the g.pt in it if it is a folder.

    Nothing, or a bare name that is not in this folder, means the newest run's.
    """
    path = Path(given or "g.pt")
    if given:
        # os.path says no of a name that is too long; pathlib would raise
        if os.path.isdir(path):
            path = path / "g.pt"
        if os.path.exists(path):
            return path
    known = [*common.newest("*/*.pt"), SHIPPED]
    for file in known:
        if file.name == str(path):
            return file
    names = ", ".join(str(file) for file in known)
    raise common.UserError(f"there is no file {path}. Known generators: {names}")


def find_archs(script):
    """ARCHS of a script beside this one, or in the current folder."""
    beside = Path(__file__).resolve().parent
    if Path(script).name == script:  # a name, not a way to another folder
        for folder in (beside, Path.cwd()):
            path = folder / f"{script}.py"
            if os.path.isfile(path) and assigns_archs(path):
                return import_script(path).ARCHS
    missing = f"there is no {script}.py with ARCHS"
    raise common.UserError(f"{missing} beside perturb.py or here")


def assigns_archs(path):
    """Whether a script has ARCHS = ... or ARCHS: dict = ... at its top level.

    It is read, and not run: a g.pt may name any file.
    """
    for statement in ast.parse(path.read_bytes(), filename=path).body:
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign) and statement.value:
            targets = [statement.target]
        else:
            continue
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        if "ARCHS" in names:
            return True
    return False


def import_script(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_generator(path):
    """The generator in a g.pt or a ckpt.pt, ready to draw, and the rest of the file."""
    saved = common.load(path)
    script = saved["script"]
    arch = saved["arch"]
    archs = find_archs(script)
    if arch not in archs:
        raise common.UserError(f"{script}.py has no --arch {arch} as {path} says")
    Generator = archs[arch][0]
    G = Generator(saved["z_dim"])
    with common.refuse_misfit(path):
        if "state_dict" in saved:
            G.load_state_dict(saved["state_dict"])
        else:  # a ckpt.pt
            G.load_state_dict(saved["average"])
    for weights in G.state_dict().values():
        if not weights.isfinite().all():
            raise common.UserError(f"{path} has weights that are not finite numbers")
    return G.eval(), saved


def describe(saved):
    return f"{saved['script']}.py --arch {saved['arch']}, epoch {saved['epoch']}"


# ---- the experiment
def draw_z(seed, samples, z_dim):
    return torch.randn(samples, z_dim, generator=torch.manual_seed(seed))


def spread(z_dim):
    """Five positions over the whole of z: 0 20 40 60 80 of 100."""
    return sorted({z_dim * part // 5 for part in range(5)})


def make_rows(args, z):
    """The rows of the figure, the unchanged one first: a label and a z for each."""
    if args.interpolate:
        return walk(z[0], z[-1], args.interpolate)
    rows = [("unchanged", z)]
    if args.scale:
        for factor in args.scale:
            rows.append((f"z * {factor:g}", z * factor))
        return rows
    for position, value in itertools.product(args.positions, args.values):
        changed = z.clone()  # a copy: no row keeps the changes of the others
        if args.add:
            changed[:, position] += value
            sign = "-" if value < 0 else "+"
            label = f"z[{position}] {sign} {abs(value):g}"
        else:
            changed[:, position] = value
            label = f"z[{position}] = {value:g}"
        rows.append((label, changed))
    return rows


def walk(first, last, steps):
    """From one z to another along the sphere.

    A straight line would pass too near to 0, where G never was in its training.
    """
    cosine = torch.cosine_similarity(first, last, dim=0).clamp(-1, 1)
    angle = torch.arccos(cosine)
    if torch.sin(angle) < 1e-3:  # z of one entry, or equal z: they span no sphere
        angle = torch.tensor(1e-3)  # so small an arc is a straight line
    rows = []
    for t in np.linspace(0, 1, steps).tolist():
        of_first = torch.sin((1 - t) * angle) * first
        of_last = torch.sin(t * angle) * last
        z = (of_first + of_last) / torch.sin(angle)
        rows.append((f"{t:.2f}", z.unsqueeze(0)))
    return rows


def generate(G, zs):
    """The images of several z, as [rows, samples, channels, height, width]."""
    with torch.inference_mode():
        return torch.stack([G(z) for z in zs])


def measure(images, is_walk=False):
    """The table that is described at the top: for each column, a number for each row.

    A row is compared with the first, the unchanged one; in a walk, with the one before.
    """
    grey = (images.clamp(-1, 1) + 1) * 127.5
    first = grey[:1]
    if is_walk:
        compared = torch.cat([first, grey[:-1]])
    else:
        compared = first
    change = (grey - compared).abs()
    has_moved = (change > 25.5).float()
    across = grey.diff(dim=-1).abs()
    down = grey.diff(dim=-2).abs()
    table = {
        "brightness": mean_of_row(grey),
        "change": mean_of_row(change),
        "pixels moved %": mean_of_row(has_moved) * 100,
        "sharpness": (mean_of_row(across) + mean_of_row(down)) / 2,
    }
    samples = grey.shape[1]
    if samples > 1:
        table["diversity"] = torch.stack([diversity(row) for row in grey])
    return {name: numbers.tolist() for name, numbers in table.items()}


def mean_of_row(pixels):
    return pixels.mean(dim=(1, 2, 3, 4))


def diversity(images):
    """Mean difference of a pixel between two images, over all pairs of them."""
    pixels = images.flatten(1)
    distances = torch.pdist(pixels, p=1)  # of each pair, a sum over the pixels
    return distances.mean() / pixels.shape[1]


def mean_of_tables(tables):
    means = {}
    for name in tables[0]:
        columns = [table[name] for table in tables]
        means[name] = np.mean(columns, axis=0)
    return means


# ---- what is printed
def summary(args, table):
    """What the table says about the reports' claims, in a few lines."""
    if args.interpolate:
        return summary_of_walk(table)
    if args.scale:
        return summary_of_scale(table, args.scale)
    return summary_of_entries(table, args.positions, args.values)


def summary_of_walk(table):
    steps = table["change"][1:]
    return [f"changes from step to step: {min(steps):.1f} to {max(steps):.1f}"]


def summary_of_scale(table, factors):
    lines = []
    for row, factor in enumerate(factors, start=1):
        shares = []
        for name in ("sharpness", "diversity"):
            if name in table:  # one sample has no diversity
                unchanged = max(table[name][0], 1e-9)
                shares.append(f"{name} {table[name][row] / unchanged:.2f}")
        lines.append(f"z * {factor:g}: {', '.join(shares)} of the unchanged row's")
    return lines


def summary_of_entries(table, positions, values):
    shape = (len(positions), len(values))
    brightness = np.reshape(table["brightness"][1:], shape)
    change = np.reshape(table["change"][1:], shape)
    brightness_of_value = brightness.mean(axis=0)
    change_of_value = change.mean(axis=0)
    change_of_position = change.mean(axis=1)

    lines = [f"unchanged: brightness {table['brightness'][0]:.1f}"]
    for value, bright, changed in zip(values, brightness_of_value, change_of_value):
        lines.append(f"value {value:g}: brightness {bright:.1f}, change {changed:.1f}")
    for position, changed in zip(positions, change_of_position):
        lines.append(f"position {position}: change {changed:.1f}")
    most = positions[change_of_position.argmax()]
    lines.append(f"the position that moves the picture most: {most}")
    if len(values) > 1:
        by_value = brightness[:, np.argsort(values)]
        steps = np.diff(by_value, axis=1)
        growing = (steps > 0).all(axis=1).sum()
        where = f"at {growing} of {len(positions)} positions"
        lines.append(f"brightness grows with the value {where}")
    return lines


def print_table(names, table):
    """As much of the table as a screen holds."""
    print(" " * 16 + "".join(f"{title:>16}" for title in table))
    for row, name in enumerate(names[:ROWS_SHOWN]):
        numbers = [column[row] for column in table.values()]
        print(f"{name:16}" + "".join(f"{number:16.2f}" for number in numbers))
    if len(names) > ROWS_SHOWN:
        more = len(names) - ROWS_SHOWN
        print(f"... and {more} more rows in the table that is saved")


# ---- what is saved
def draw_figures(args, G, saved, folder):
    """The experiment: for each seed a figure and a summary, and one table of all."""
    table_path, figure_paths = choose_paths(args, folder)
    make_folder(table_path.parent)
    is_walk = args.interpolate is not None
    tables = []
    for seed, figure_path in zip(args.seed, figure_paths):
        rows = make_rows(args, draw_z(seed, args.samples, saved["z_dim"]))
        names = [name for name, _ in rows]
        images = generate(G, [z for _, z in rows])
        title = f"{describe(saved)}, seed {seed}"
        save_figure(figure_path, images, names, title, is_walk=is_walk)
        table = measure(images, is_walk=is_walk)
        print(f"\nseed {seed}", *summary(args, table), sep="\n  ")
        print_table(names, table)
        tables.append(table)
    if len(tables) > 1:
        means = mean_of_tables(tables)
        print("\nmean over the seeds", *summary(args, means), sep="\n  ")
    save_table(table_path, args.seed, names, tables)
    print("\nsaved", *figure_paths, table_path)


def choose_paths(args, folder):
    """The paths of the table and the figures: --out, or the next free in folder."""
    if args.out:
        table, figures = name_files(args.out.with_suffix(""), args.seed)
        for path in (table, *figures):
            if os.path.exists(path):
                raise common.UserError(f"{path} exists already: give another --out")
        return table, figures
    for count in itertools.count(1):
        name = "perturb" if count == 1 else f"perturb-{count}"
        table, figures = name_files(folder / name, args.seed)
        if not any(path.exists() for path in (table, *figures)):
            return table, figures


def name_files(start, seeds):
    """The paths of the table and the figures, from what all of them start with."""
    table = Path(f"{start}.csv")
    if len(seeds) == 1:
        return table, [Path(f"{start}.png")]
    return table, [Path(f"{start}-seed{seed}.png") for seed in seeds]


def make_folder(folder):
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise common.UserError(f"no folder for the figure: {error}") from None


def save_figure(path, images, names, title, is_walk):
    """A row of images for each name; in a walk, one row, with a name above each."""
    rows, samples = images.shape[:2]
    if is_walk:
        picture = common.grid(images.flatten(0, 1), columns=rows)
        common.save_sheet(path, picture, title, columns=names)
    else:
        picture = common.grid(images.flatten(0, 1), columns=samples)
        common.save_sheet(path, picture, title, rows=names)


def save_table(path, seeds, names, tables):
    lines = [",".join(["seed", "row", *tables[0]])]
    for seed, table in zip(seeds, tables):
        for row, name in enumerate(names):
            numbers = [f"{column[row]:.4f}" for column in table.values()]
            cells = [str(seed), name, *numbers]
            lines.append(",".join(cells))
    text = "\n".join(lines) + "\n"
    common.write(path, text.encode())


# ---- with sliders
class Live:
    """A figure in which sliders change entries of z."""

    def __init__(self, G, z, positions):
        self.G = G
        self.before = z.clone()  # what "back" goes back to
        self.now = z.clone()
        self.chosen = None  # the sample that the sliders move; None: all of them

        self.figure, axes = make_panels(positions)
        self.image_axes = axes["images"]
        images = generate(G, [z])[0]
        self.picture = self.image_axes.imshow(
            common.grid(images, columns=len(z), zoom=1),
            cmap="gray",
            vmin=0,
            vmax=255,
        )
        self.sliders = {}
        for position in positions:
            self.sliders[position] = self.add_slider(axes[position], position)
        self.scale = Slider(axes["scale"], "scale", valmin=0, valmax=5, valinit=1)
        self.scale.on_changed(self.redraw)
        self.new_button = Button(axes["new z"], "new z")
        self.new_button.on_clicked(self.draw_new_z)
        self.back_button = Button(axes["back"], "back")
        self.back_button.on_clicked(self.go_back)
        self.figure.canvas.mpl_connect("button_press_event", self.choose)
        self.figure.live = self  # widgets work while somebody keeps them
        self.redraw()

    def add_slider(self, axes, position):
        slider = Slider(
            axes,
            label=f"z[{position}]",
            valmin=-10,
            valmax=10,
            valinit=self.mean_before(position),
        )
        slider.on_changed(partial(self.move, position))
        return slider

    def mean_before(self, position):
        return self.before[:, position].mean().item()

    def redraw(self, _=None):
        """The images of z as it is now, and how much they differ from those before."""
        z = self.now * self.scale.val
        images = generate(self.G, [self.before, z])
        self.picture.set_data(common.grid(images[1], columns=len(z), zoom=1))
        table = measure(images)
        numbers = [f"{name} {column[1]:.1f}" for name, column in table.items()]
        self.image_axes.set_xlabel("   ".join(numbers))
        which = "all samples" if self.chosen is None else f"sample {self.chosen + 1}"
        remark = "(click on one, or beside them for all)"
        self.image_axes.set_title(f"the sliders move {which} {remark}")
        self.figure.canvas.draw_idle()

    def move(self, position, value):
        if self.chosen is None:
            self.now[:, position] = value
        else:
            self.now[self.chosen, position] = value
        self.redraw()

    def choose(self, event):
        """The sample that was clicked on. All, if the click was beside everything."""
        if event.inaxes is self.image_axes:
            _, width = self.picture.get_size()
            self.chosen = int(event.xdata * len(self.now) / width)
            self.redraw()
        elif event.inaxes is None:
            self.chosen = None
            self.redraw()

    def draw_new_z(self, _):
        self.before.normal_()
        self.go_back()

    def go_back(self, _=None):
        """All sliders, and z, to where they were."""
        for position, slider in self.sliders.items():
            slider.set_val(self.mean_before(position))
        self.scale.set_val(1)
        self.now.copy_(self.before)  # last: the sliders have just written means into it
        self.redraw()


def make_panels(positions):
    """A figure with places for the images, the sliders and the buttons."""
    rows = [["images", "images"]]
    for position in positions:
        rows.append([position, position])
    rows.append(["scale", "scale"])
    rows.append(["new z", "back"])
    figure, axes = plt.subplot_mosaic(
        rows,
        layout="constrained",
        figsize=(11, 2.5 + 0.3 * len(rows)),
        height_ratios=[8] + [1] * (len(rows) - 1),
    )
    axes["images"].set(xticks=[], yticks=[])
    return figure, axes


def show_live(G, z, positions):
    """Sliders in a window, or on a page, until somebody closes it."""
    page = None
    if plt.get_backend().lower() in NO_WINDOW:
        page = start_page()
    Live(G, z, positions)
    plt.show()
    if page and not page.started:
        raise KeyboardInterrupt  # WebAgg has stopped on Ctrl-C and kept it to itself


def start_page():
    """Have pyplot show its figures in a browser. Returns the server."""
    try:
        from matplotlib.backends.backend_webagg import WebAggApplication
    except RuntimeError:  # so matplotlib says that there is no tornado
        remedy = "for a browser: pip install tornado"
        raise common.UserError(f"no window opens here; {remedy}") from None
    plt.switch_backend("webagg")
    plt.rcParams["webagg.open_in_browser"] = False
    WebAggApplication.initialize(address="127.0.0.1")
    port = WebAggApplication.port
    question = "Is that on another machine?"
    print(f"no window opens here: open the page below in a browser. {question}")
    print(f"Then first type there: ssh -L {port}:127.0.0.1:{port} THIS_MACHINE")
    return WebAggApplication


# ---- options
def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    number = common.number
    position = number(int, -(10**6))  # below 0, too: refuse_impossible says the range
    value = number(float, -1e6)
    seed = number(int, 0, 2**32 - 1)
    add("--ckpt", help="the generator: a g.pt, or a run's folder (the newest run's)")
    add("--positions", type=position, nargs="+", help="entries of z (0 20 40 60 80)")
    add("--values", type=value, nargs="+", help="what each is set to in turn (-1 5 10)")
    add(
        "--add",
        action="store_true",
        help="add the value to the entry instead of setting it",
    )
    add_one = parser.add_mutually_exclusive_group().add_argument
    add_one("--scale", type=value, nargs="+", help="multiply the whole z instead")
    add_one(
        "--interpolate",
        type=number(int, 2, 50),
        metavar="N",
        help="walk, in N pictures",
    )
    add_one("--live", action="store_true", help="sliders, in a window or a browser")
    add("--samples", type=number(int, 1, 64), default=8, help="columns (%(default)s)")
    add(
        "--seed",
        type=seed,
        nargs="+",
        default=[23231],  # as in report C
        help="of z; a figure for each (23231)",
    )
    add("--out", type=Path, help="the figure, .png (perturb.png beside the generator)")
    args = parser.parse_args(read_words(parser))
    refuse_contradictions(parser, args)  # it asks which options were typed
    args.values = args.values or [-1.0, 5.0, 10.0]
    return args


def read_words(parser):
    """The words of the command line, as argparse can take them."""
    words = []
    for word in sys.argv[1:]:
        if re.fullmatch(r"[-+.\d]*,[-+.,\d]*", word):
            parser.error(f"{word}: put spaces between numbers, no commas")
        if re.fullmatch(r"-[\d.]+[eE][+-]?\d+", word):
            word = f" {word}"  # argparse takes "-1e1" for an option, " -1e1" not
        words.append(word)
    return words


def refuse_contradictions(parser, args):
    changes_all = args.scale or args.interpolate
    if changes_all and (args.positions or args.values or args.add):
        what = "--scale and --interpolate change the whole z"
        parser.error(f"{what}: leave --positions, --values and --add out")
    if args.live and (args.values or args.add or args.out or len(args.seed) > 1):
        what = "--live has sliders, and saves nothing"
        parser.error(f"{what}: leave --values, --add, --out and further seeds out")
    if args.interpolate and args.samples < 2:
        what = "--interpolate walks from the first sample to the last"
        parser.error(f"{what}: --samples 2 or more")
    if args.out and args.out.suffix != ".png":
        parser.error(f"--out {args.out} does not end in .png")
    for option in ("positions", "seed"):
        given = getattr(args, option) or []
        if len(set(given)) < len(given):
            words = " ".join(str(number) for number in given)
            parser.error(f"--{option} has an entry twice: {words}")


def refuse_impossible(args, z_dim, path):
    """What cannot be drawn: a position that this z has not, or too many rows."""
    for position in args.positions:
        if not 0 <= position < z_dim:
            raise common.UserError(f"--positions go from 0 to {z_dim - 1} in {path}")
    if args.scale:
        rows = len(args.scale)
    else:
        rows = len(args.positions) * len(args.values)
    if rows > 500 or rows * args.samples > 8000:
        size = f"{rows} rows of {args.samples}"
        raise common.UserError(f"{size} do not fit into a figure: draw less")


def main():
    args = parse_args()
    path = find_generator(args.ckpt)
    G, saved = load_generator(path)
    z_dim = saved["z_dim"]
    args.positions = args.positions or spread(z_dim)
    refuse_impossible(args, z_dim, path)
    dataset = saved["args"].get("dataset")
    print(f"generator: {path} ({describe(saved)}, trained on {dataset})")
    if args.live:
        z = draw_z(args.seed[0], args.samples, z_dim)
        show_live(G, z, args.positions)
    else:
        draw_figures(args, G, saved, path.parent)


if __name__ == "__main__":
    common.run(main)
