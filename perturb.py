"""What single entries of the noise z do to the picture: the experiment in which every report ends.

    python perturb.py --ckpt g.pt --positions 0 20 40 60 80 --values -1 5 10
    python perturb.py --values 0.3 10 --seed 1 3 30 810 114514    # a figure for each seed
    python perturb.py --add --values -3 3                         # add to the entry, do not set it
    python perturb.py --scale 0.3 1 3                             # the whole z, smaller and larger
    python perturb.py --interpolate 9                             # walk from the first z to the last

Without --ckpt, or if g.pt is not in this folder, the newest run's generator is taken; before there
is any run, the one in data.
"""

import csv
import importlib
import io
import itertools
from pathlib import Path

import numpy as np
import torch

import common

SCRIPTS = ("gan_mlp", "gan_cnn", "dcgan", "wgan")
SHIPPED = common.DATA / "g.pt"


def find_generator(given):
    """The file or folder given; a bare name that is not here, or none, means the newest run's."""
    path = Path(given or "g.pt")
    if given and path.is_dir():
        path = path / "g.pt"
    if given and path.exists():
        return path
    for known in [*common.newest("*/*.pt"), SHIPPED]:
        if str(path) == known.name:
            return known
    known = ", ".join(map(str, [*common.newest("*/g.pt"), SHIPPED]))
    raise common.UserError(f"there is no file {path}. Known generators: {known}")


def load_generator(path):
    """The generator in a g.pt (or a ckpt.pt), ready to draw on the CPU, and what is said of it."""
    saved = common.load(path)
    if saved["script"] not in SCRIPTS:  # imports nothing that a file names but our own scripts
        raise common.UserError(f"{path} is from {saved['script']!r}, none of {', '.join(SCRIPTS)}")
    archs = importlib.import_module(saved["script"]).ARCHS
    if saved["arch"] not in archs:
        raise common.UserError(f"{saved['script']}.py has no --arch {saved['arch']} as {path} says")
    try:
        G = archs[saved["arch"]][0](saved["z_dim"])
        weights = saved.get("state_dict") or saved["average"]  # whose names a ckpt.pt prefixes
        weights = {name.removeprefix("network."): weights[name] for name in weights}
        weights.pop("steps", None)
        G.load_state_dict(weights)
    except Exception:  # noqa: BLE001  what does not fit can raise nearly anything
        raise common.UserError(f"the weights in {path} do not fit {saved['arch']}") from None
    if not all(weight.isfinite().all() for weight in G.state_dict().values()):
        raise common.UserError(f"{path} has weights that are not finite numbers")
    return G.eval(), saved


def make_rows(args, z):
    """The rows of the figure, the unchanged one first: each a label and a z of its own."""
    if args.interpolate:
        first, last = z[0], z[-1]
        angle = torch.arccos(torch.cosine_similarity(first, last, dim=0))
        # Along the sphere: a straight line would pass too near to 0, where G has seldom been.
        for t in np.linspace(0, 1, args.interpolate).tolist():
            between = torch.sin((1 - t) * angle) * first + torch.sin(t * angle) * last
            between = between / torch.sin(angle)
            if torch.sin(angle) < 1e-3:  # no sphere to speak of: z has one entry, or two are equal
                between = torch.lerp(first, last, t)
            yield f"{t:.2f}", between[None]
        return
    yield "unchanged", z
    for factor in args.scale or ():
        yield f"z * {factor:g}", z * factor
    if not args.scale:
        for position, value in itertools.product(args.positions, args.values):
            changed = z.clone()  # a copy for every row, or each would keep the changes before it
            if args.add:
                changed[:, position] += value
                yield f"z[{position}] {'-' if value < 0 else '+'} {abs(value):g}", changed
            else:
                changed[:, position] = value
                yield f"z[{position}] = {value:g}", changed


def measure(images, walk=False):
    """For each row of images [rows, columns, ...]: what the reports judge by eye, in grey levels.

    Changes are against the first row, which is the unchanged one; in a walk, against the last step.
    """
    grey = images.clamp(-1, 1).add(1).mul(127.5).flatten(2)
    moved = (grey - (torch.cat([grey[:1], grey[:-1]]) if walk else grey[0])).abs()
    columns = {
        "brightness": grey.mean((1, 2)),
        "change": moved.mean((1, 2)),
        "pixels moved %": moved.gt(25.5).float().mean((1, 2)) * 100,
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
        for factor, value in zip(args.scale, table.get("diversity", [])[1:]):
            share = value / max(table["diversity"][0], 1e-9)
            yield f"z * {factor:g}: diversity {share:.2f} of the unchanged row's"
        return
    shape = len(args.positions), len(args.values)
    bright, change = np.reshape(bright[1:], shape), np.reshape(change[1:], shape)
    for index, value in enumerate(args.values):
        line = f"value {value:g}: brightness {bright[:, index].mean():.1f}"
        yield (
            line
            + f" ({table['brightness'][0]:.1f} unchanged), change {change[:, index].mean():.1f}"
        )
    for index, position in enumerate(args.positions):
        yield f"position {position}: change {change[index].mean():.1f}"
    yield f"the position that moves the picture most: {args.positions[change.mean(1).argmax()]}"
    if len(args.values) > 1:
        growing = (np.diff(bright[:, np.argsort(args.values)], axis=1) > 0).all(1)
        yield f"brightness grows with the value at {growing.sum()} of {len(growing)} positions"


def output_paths(args, folder):
    """The table's path and a figure's for each seed: of --out, or the next free perturb in folder."""
    for count in itertools.count(1):
        stem = folder / ("perturb" + f"-{count}" * (count > 1))
        stem = args.out.with_suffix("") if args.out else stem
        table = stem.with_name(stem.name + ".csv")
        ends = [f"-seed{seed}.png" for seed in args.seed] if len(args.seed) > 1 else [".png"]
        figures = [stem.with_name(stem.name + end) for end in ends]
        taken = [path for path in (table, *figures) if path.exists()]
        if not taken:
            return table, figures
        if args.out:
            raise common.UserError(f"{taken[0]} exists already: give another --out")


def parse_args():
    parser, number = common.Parser(__doc__), common.number
    add, real = parser.add_argument, number(float, -1e6)
    add("--ckpt", help="the generator: a g.pt, or a run's folder (default: the newest run's)")
    add(
        "--positions",
        type=number(int, -(10**6)),
        nargs="+",
        help="entries of z (default: 0 20 40 60 80)",
    )
    add("--values", type=real, nargs="+", help="what each is set to in turn (default: -1 5 10)")
    add("--add", action="store_true", help="add the value to the entry instead of setting it")
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--scale", type=real, nargs="+", help="multiply the whole z instead")
    other.add_argument(
        "--interpolate", type=number(int, 2, 50), metavar="N", help="walk, in N pictures"
    )
    add("--samples", type=number(int, 1, 64), default=8, help="columns (default: 8)")
    add(
        "--seed",
        type=number(int, 0, 2**32 - 1),
        nargs="+",
        default=[23231],
        help="of z; a figure for each (23231)",
    )
    add("--out", type=Path, help="the figure, .png (default: perturb.png beside the generator)")
    args = parser.parse_args()
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
    args.positions = args.positions or common.spread(z_dim)
    if not 0 <= min(args.positions) <= max(args.positions) < z_dim:
        raise common.UserError(f"--positions go from 0 to {z_dim - 1} in {path}")
    rows = len(args.scale or ()) or len(args.positions) * len(args.values)
    if rows > 500 or rows * args.samples > 8000:
        raise common.UserError(f"{rows} rows of {args.samples} do not fit into a figure: draw less")
    table_path, figure_paths = output_paths(args, path.parent)
    about = f"{saved['script']}.py --arch {saved['arch']}, epoch {saved['epoch']}"
    common.say(f"generator: {path} ({about}, trained on {saved['args'].get('dataset')})")

    lines, drawings = [], []
    for seed, figure_path in zip(args.seed, figure_paths):
        z = torch.randn(args.samples, z_dim, generator=torch.Generator().manual_seed(seed))
        names, zs = zip(*make_rows(args, z))
        with torch.inference_mode():
            images = torch.stack([G(z) for z in zs])
        table = measure(images, walk=bool(args.interpolate))
        common.say(f"\nseed {seed}\n{'':16}" + "".join(f"{name:>16}" for name in table))
        for name, values in zip(names, zip(*table.values())):
            common.say(f"{name:16}" + "".join(f"{value:16.2f}" for value in values))
            lines.append([seed, name, *(f"{value:.4f}" for value in values)])
        for line in summary(args, table):
            common.say(line)
        picture = common.grid(
            images.flatten(0, 1), len(names) if args.interpolate else args.samples
        )
        labels = {"columns" if args.interpolate else "rows": names}
        drawings.append((figure_path, picture, f"{about}, seed {seed}", labels))

    table_path.parent.mkdir(parents=True, exist_ok=True)
    for figure_path, picture, title, labels in drawings:
        common.save_sheet(figure_path, picture, title, **labels)
    with io.StringIO(newline="") as text:
        csv.writer(text).writerows([["seed", "row", *table], *lines])
        common.write(table_path, text.getvalue().encode())
    common.say("\nsaved " + " ".join(map(str, [*figure_paths, table_path])))


if __name__ == "__main__":
    common.run_main(main)
