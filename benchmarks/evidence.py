"""How claims.py trains, measures and judges: its table says what."""

import json
import math
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
import measures
import quality

import common


@dataclass
class Training:
    command: str  # what is typed after python
    looks: tuple  # the epochs at which a copy of g.pt is kept; the last is the report's
    seconds: int  # an epoch takes on one core
    seeds: tuple = (0, 1, 2)


@dataclass
class Part:
    what: str  # the part of the claim that this condition is about
    trained: str  # such as "basic@3 deep<=50 upsample": claims.py explains it
    measure: callable  # gives names and numbers: see measures.py
    holds: str  # a condition on them, for each training


@dataclass
class Claim:
    name: str
    said: str
    parts: list = field(default_factory=list)
    unmeasured: str = ""  # what no number here can test, and why


# ---- the rule
def verdict(answers):
    """The one rule, for what each training says: True or False."""
    yes = sum(answers)
    no = len(answers) - yes
    if not answers:
        return "not trained yet"
    if len(answers) >= 3:
        enough = 7 / 8 * len(answers)  # of three to seven trainings, that is all
        if yes >= enough:
            return "holds"
        return "does not hold" if no >= enough else "no rule"
    if yes and no:
        return "no rule"
    return "points that way" if yes else "points the other way"


def is_met(condition, numbers):
    """Whether numbers meet a condition, such as "FD of tiny < 0.95 * FD of basic - 1"."""
    for one in condition.split(" and "):
        left, sign, right = re.split(" ([<>]) ", one)
        smaller, larger = (left, right) if sign == "<" else (right, left)
        if not value(smaller, numbers) < value(larger, numbers):
            return False
    return True


def value(text, numbers):
    """A sum of products, in which a word is the name of a number."""
    total = 0
    for term in re.split(r" (?=[+-] )", text):
        sign = -1 if term.startswith("- ") else 1
        product = 1
        for word in term.removeprefix("- ").removeprefix("+ ").split(" * "):
            product *= numbers[word] if word in numbers else float(word)
        total += sign * product
    return total


# ---- training
def folder_of(name, seed, root):
    return root / f"{name}-seed{seed}"


def looked_at(name, seed, root):
    """The epochs of which there is a copy of the generator."""
    copies = folder_of(name, seed, root).glob("g-*.pt")
    return sorted(int(path.stem[2:]) for path in copies)


def missing(name, seed, last, args):
    """The epochs still to be reached, up to the last that is asked for, and how many epochs of
    training they take."""
    last = min(last, args.epochs)
    done = max(looked_at(name, seed, args.root), default=0)
    looks = [look for look in args.trainings[name].looks if done < look <= last]
    return looks, (looks[-1] - done if looks else 0)


def train(name, seed, last, args, bar):
    """Train to each epoch that is looked at, and keep a copy of the networks there."""
    folder = folder_of(name, seed, args.root)
    looks, _ = missing(name, seed, last, args)
    for look in looks:
        checkpoint = folder / "ckpt.pt"
        done = common.load(checkpoint)["epoch"] if checkpoint.exists() else 0
        if done > look:
            continue  # it went past without a copy
        if done < look:  # or else it was stopped just before the copy
            train_until(look, name, seed, args, bar)
        keep_networks(folder, look)


def keep_networks(folder, look):
    """A copy of the generator, and of both networks as they are in training."""
    saved = common.load(folder / "ckpt.pt")
    for name in ("average", "opt_G", "opt_D"):  # what only a training needs
        saved.pop(name, None)
    common.save(folder / f"ckpt-{look:03d}.pt", saved)
    shutil.copy(folder / "g.pt", folder / f"g-{look:03d}.pt")


def train_until(look, name, seed, args, bar):
    folder = folder_of(name, seed, args.root)
    script, *options = args.trainings[name].command.split()
    command = [sys.executable, HERE.parent / script]
    if script.endswith("edits.py"):  # the name of the edit comes first, also to resume
        edit, *options = options
        command.append(edit)
    command += ["--epochs", look, "--device", args.device]
    if args.data_dir:
        command += ["--data-dir", args.data_dir]
    if (folder / "ckpt.pt").exists():
        command += ["--resume", folder]
    else:
        shutil.rmtree(folder, ignore_errors=True)  # it was stopped in its first epoch
        command += options
        command += ["--dataset", "fashion-mnist", "--seed", seed, "--out", folder]
    run_and_log(command, Path(f"{folder}.log"), bar, args.trainings[name].seconds)


RUNNING = []  # the processes of the trainings


def run_and_log(command, path, bar, seconds, cwd=None):
    """Run a script; each of its lines on an epoch moves the bar."""
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [str(word) for word in command]
    with (
        open(path, "a") as log,
        subprocess.Popen(
            command, cwd=cwd, stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        RUNNING.append(process)
        for line in process.stdout:
            log.write(line)
            log.flush()
            if line.startswith("epoch "):
                bar.update(seconds / 60)
    RUNNING.remove(process)
    if process.returncode:
        raise common.UserError(f"{' '.join(command)} ended early: see {path}")


def train_dry(name, seed, _, args, bar):
    """One epoch of two steps, which then stands for all epochs."""
    folder = folder_of(name, seed, args.root)
    script, *options = args.trainings[name].command.split()
    command = [sys.executable, HERE.parent / script, *options, "--seed", seed]
    command += ["--dataset", "sample", "--device", args.device, "--dry-run"]
    command += ["--lr", 1e-6]  # after two large steps D may be stuck, which ends a run
    with tempfile.TemporaryDirectory() as elsewhere:
        run_and_log(command, Path(f"{folder}.log"), bar, 60, cwd=elsewhere)
        (found,) = Path(elsewhere, "runs").iterdir()
        shutil.move(found, folder)
    for look in args.trainings[name].looks:
        keep_networks(folder, look)
    head, *rows = (folder / "losses.csv").read_text().splitlines()
    lines = [head]
    for epoch in range(1, args.trainings[name].looks[-1] + 1):
        # three times the two steps, for a measure that needs thirds of an epoch
        lines += [re.sub("^1,", f"{epoch},", row) for row in rows] * 3
    (folder / "losses.csv").write_text("\n".join(lines) + "\n")


def train_all(trainings, args):
    """Train what is missing, some at once. A script that ends early does not stop the others.

    trainings: {(name, seed): the last epoch that is asked for}
    """
    if args.dry_run:
        minutes = len(trainings)
    else:
        minutes = sum(minutes_left(*key, last, args) for key, last in trainings.items())
    failed = []
    one = train_dry if args.dry_run else train
    with (
        tqdm(
            total=minutes, unit="min", bar_format="{l_bar}{bar}| {elapsed}<{remaining}"
        ) as bar,
        ThreadPoolExecutor(args.jobs) as pool,
    ):
        jobs = [
            pool.submit(one, name, seed, last, args, bar)
            for (name, seed), last in trainings.items()
        ]
        try:
            for job in jobs:
                if isinstance(job.exception(), common.UserError):
                    failed.append(str(job.exception()))
                else:
                    job.result()
        except BaseException:
            for process in RUNNING:  # they do not hear of a kill of this program
                process.terminate()
            pool.shutdown(cancel_futures=True)
            raise
    for message in failed:
        print(f"* {message}", file=sys.stderr)
    if args.dry_run and failed:
        raise common.UserError("the dry run failed")


def minutes_left(name, seed, last, args):
    _, epochs = missing(name, seed, last, args)
    return epochs * args.trainings[name].seconds / 60


# ---- measuring
def parse(trained):
    """Each training's name, and the lowest and highest epoch at which it may be looked at."""
    found = []
    for word in trained.split():
        name, sign, epoch = re.fullmatch(r"(.+?)(@|<=|$)(\d*)", word).groups()
        lowest = int(epoch) if sign == "@" else 0
        highest = int(epoch) if sign else 9999
        found.append((name, lowest, highest))
    return found


def seeds_of(part, args):
    names = [name for name, _, _ in parse(part.trained)]
    if args.seeds:
        return args.seeds
    return sorted(
        set.intersection(*(set(args.trainings[name].seeds) for name in names))
    )


def comparisons(part, seed, root):
    """The epochs at which a part can be measured, one for each of its trainings. Those that are not
    told an epoch are compared at the same age."""
    told, free = [], []
    for name, lowest, highest in parse(part.trained):
        looks = [
            look for look in looked_at(name, seed, root) if lowest <= look <= highest
        ]
        is_told = lowest == highest
        if is_told and not looks:
            return []
        told.append(looks[0] if is_told else None)
        if not is_told:
            free.append(set(looks))
    ages = sorted(set.intersection(*free)) if free else [None]
    found = []
    for age in ages:
        epochs = tuple(age if epoch is None else epoch for epoch in told)
        names = [name for name, _, _ in parse(part.trained)]
        is_one_training = len(set(names)) == 1  # then an earlier and a later age
        if not is_one_training or list(epochs) == sorted(set(epochs)):
            found.append(epochs)
    return found


def best(counted):
    """Of {epochs: count}: what most seeds have; of those, the latest epochs."""
    return max(counted, key=lambda epochs: (counted[epochs], epochs))


def measure(part, args, judge):
    """A list of what was measured: the trainings, the seed, the numbers."""
    if not part.trained:
        return [{"of": "", "seed": None, "numbers": six_digits(part.measure())}]
    counted = {}
    for seed in seeds_of(part, args):
        for epochs in comparisons(part, seed, args.root):
            counted.setdefault(epochs, []).append(seed)
    if not counted:
        return []
    epochs = best({each: len(seeds) for each, seeds in counted.items()})
    names = [name for name, _, _ in parse(part.trained)]
    of = " ".join(f"{name}@{epoch}" for name, epoch in zip(names, epochs))
    found = []
    for seed in counted[epochs]:
        runs = []
        for name, epoch in zip(names, epochs):
            runs.append(
                measures.Run(name, folder_of(name, seed, args.root), epoch, judge)
            )
        numbers = six_digits(part.measure(*runs))
        if any(math.isnan(number) for number in numbers.values()):
            numbers = {}  # it draws no trousers, or D has no lead: neither yes nor no
        found.append({"of": of, "seed": seed, "numbers": numbers})
    return found


def six_digits(numbers):
    return {name: float(f"{number:.6g}") for name, number in numbers.items()}


def merge(old, new):
    """What was measured now, and what was measured before of other trainings."""
    now = {(each["of"], each["seed"]) for each in new}
    kept = [each for each in old if (each["of"], each["seed"]) not in now]
    return sorted(kept + new, key=lambda each: (each["of"], each["seed"] or 0))


def make_judge(args):
    device = common.prepare_device(args.device)
    if args.dry_run:
        torch.manual_seed(0)
        net = quality.Classifier().eval()
        few = common.read_idx(common.SAMPLE)[:400].float() / 127.5 - 1
        return measures.Judge(net, real=few[:200], training=few[200:], count=200)
    net, _ = quality.load_classifier(False, args.data_dir, device)
    real, _ = quality.read("t10k", args.data_dir)
    training, _ = quality.read("train", args.data_dir)
    return measures.Judge(net, real=real, training=training)


def measure_all(claims, args):
    """Measure what there is, add it to the results, and write them."""
    results = read_results(args.results)
    judge = make_judge(args)
    with tqdm(total=sum(len(claim.parts) for claim in claims), unit="part") as bar:
        for claim in claims:
            before = {each["what"]: each for each in results.get(claim.name, [])}
            parts = []
            for part in claim.parts:
                old = before.get(part.what, {"measured": []})["measured"]
                record = {"what": part.what, "holds if": part.holds}
                record["measured"] = merge(old, measure(part, args, judge))
                record["verdict"] = conclude(part, record["measured"]).verdict
                parts.append(record)
                bar.update()
            results[claim.name] = parts
            text = json.dumps(in_order(results), indent=1, ensure_ascii=False)
            common.write(args.results, f"{text}\n".encode())
    return results


def in_order(results):
    """A1, A2, ..., A10, not A1, A10, A2."""
    return dict(
        sorted(results.items(), key=lambda each: (each[0][0], int(each[0][1:])))
    )


def read_results(path):
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


# ---- what it comes to
@dataclass
class Conclusion:
    verdict: str
    answers: list  # what each training says: True or False
    numbers: dict  # name: the numbers of all trainings
    of: str  # which trainings, and at which epochs
    seeds: list


def conclude(part, measured, seeds=None):
    """The verdict on a part: by the epochs that most seeds have."""
    groups = {}
    for each in measured:
        if not each["numbers"]:
            continue
        if each["seed"] is None or not seeds or each["seed"] in seeds:
            groups.setdefault(each["of"], []).append(each)
    if not groups:
        return Conclusion("not trained yet", [], {}, "", [])
    epochs = {of: tuple(map(int, re.findall(r"@(\d+)", of))) for of in groups}
    of = max(groups, key=lambda of: (len(groups[of]), epochs[of]))
    group = groups[of]
    answers = [is_met(part.holds, each["numbers"]) for each in group]
    numbers = {}
    for each in group:
        for name, number in each["numbers"].items():
            numbers.setdefault(name, []).append(number)
    if part.trained:
        said = verdict(answers)
    else:  # it is counted, not trained: once is enough
        said = "holds" if answers[0] else "does not hold"
    return Conclusion(said, answers, numbers, of, [each["seed"] for each in group])


def rounded(number):
    """As many digits as a reader needs."""
    size = abs(number)
    if size >= 100:
        digits = 0
    elif size >= 10:
        digits = 1
    elif size >= 0.1:
        digits = 2
    else:
        digits = 3
    text = f"{number:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text  # 0.000, not -0.000


def span(numbers):
    """A number, or the lowest and the highest of several."""
    low, high = rounded(min(numbers)), rounded(max(numbers))
    return low if low == high else f"{low} to {high}"


def conclusions(claim, results, seeds=None):
    """Each part of a claim, and what it comes to."""
    measured = {each["what"]: each["measured"] for each in results.get(claim.name, [])}
    for part in claim.parts:
        yield part, conclude(part, measured.get(part.what, []), seeds)


def verdict_text(claim, results, seeds=None):
    """A verdict and its numbers, in words."""
    said = []
    for part, found in conclusions(claim, results, seeds):
        text = f"{part.what}: **{found.verdict}**"
        if found.seeds and part.trained:
            text += f" ({sum(found.answers)} of {len(found.answers)})"
        if found.numbers:
            shown = [f"{name} {span(values)}" for name, values in found.numbers.items()]
            text += f": {', '.join(shown)}"
        said.append(text)
    if claim.unmeasured:
        said.append(f"not measured: {claim.unmeasured}")
    return "; ".join(said)


def rests_on(claim, results, seeds=None):
    """The trainings, their epochs and seeds."""
    said = []
    for part, found in conclusions(claim, results, seeds):
        if not found.seeds or not part.trained:
            continue
        names = []
        for word in found.of.split():
            name, epoch = word.split("@")
            names.append(f"{name} ({epoch} {'epoch' if epoch == '1' else 'epochs'})")
        text = f"{', '.join(names)}: {seeds_text(found.seeds)}"
        if text not in said:
            said.append(text)
    return "; ".join(said)


def seeds_text(seeds):
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    is_row = seeds == list(range(seeds[0], seeds[0] + len(seeds)))
    if is_row and len(seeds) > 2:
        return f"seeds {seeds[0]} to {seeds[-1]}"
    return f"seeds {', '.join(map(str, seeds))}"


def table(claims, results, seeds=None):
    """The verdicts as Markdown."""
    yield "| | claim | verdict | rests on |"
    yield "|---|---|---|---|"
    for claim in claims:
        cells = [claim.name, claim.said]
        cells.append(verdict_text(claim, results, seeds))
        cells.append(rests_on(claim, results, seeds))
        yield f"| {' | '.join(cells)} |"


def listing(claims, trainings, args):
    """What is trained and how far it is, then what is claimed of it."""
    yield f"{'training':22}{'epochs done, for each seed':44}{'of':>4}{'minutes left':>14}  command"
    total = 0
    for name in dict.fromkeys(name for name, _ in trainings):
        seeds = [seed for each, seed in trainings if each == name]
        done = [max(looked_at(name, seed, args.root), default=0) for seed in seeds]
        cells = " ".join(f"{seed}: {epochs}" for seed, epochs in zip(seeds, done))
        target = max(trainings[name, seed] for seed in seeds)
        minutes = sum(
            minutes_left(name, seed, trainings[name, seed], args) for seed in seeds
        )
        yield f"{name:22}{cells:44}{target:4}{minutes:14.0f}  {args.trainings[name].command}"
        total += minutes
    yield f"minutes left, on one core: {total:.0f} ({total / 60:.1f} hours)"
    for claim in claims:
        yield f"\n{claim.name}  {claim.said}"
        for part in claim.parts:
            yield f"    {part.what}"
            yield f"        holds if {part.holds}"
            yield f"        of {part.trained or 'no training'}"
        if claim.unmeasured:
            yield f"    not measured: {claim.unmeasured}"
