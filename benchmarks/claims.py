"""Every claim of the five reports: trained, measured, and judged by one rule.

    python benchmarks/claims.py --list             # what is trained, how long it takes, what is done
    python benchmarks/claims.py                    # trains what is missing, measures, judges
    python benchmarks/claims.py --only D E3        # the claims of report D, and one of E's
    python benchmarks/claims.py --epochs 5         # trains no further than that, for a start
    python benchmarks/claims.py --measure          # trains nothing: measures what is there
    python benchmarks/claims.py --table --only A   # report A's verdicts, as Markdown
    python benchmarks/claims.py --figures          # draws the reports' figures into docs
    python benchmarks/claims.py --dry-run          # tries it all, with trainings of two steps

Trainings are kept in runs/claims, with a copy of G and D at each epoch that is looked at. One that
was stopped goes on there. The numbers go to benchmarks/claims.json, each with its seeds and epochs;
those of trainings that are not on this machine stay in it.

The rule: each training says yes or no to what stands in the table as a condition.

holds           yes in at least seven of eight trainings, or in all of at least three
does not hold   no in as many
no rule         between the two
points that way, points the other way    all say the same, but they are only one or two
"""

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import mean

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
import evidence
import figures
import speed
from evidence import Claim, Part, Training
from measures import (
    bright,
    bright_at,
    change,
    falls,
    gradient,
    half_of_loss_D,
    images,
    jumps,
    largest_step,
    loop,
    losses,
    middle_at,
    nearly_black,
    position_or_value,
    same_way,
    scaled,
    scores,
    seconds,
    settles,
    stays,
    strength,
    stretched,
    swing,
    thirds,
    trousers,
    values_compared,
    walk,
)

import common

RESULTS = HERE / "claims.json"
FOLDER = Path("runs", "claims")


# ---- what is trained
EIGHT = tuple(range(8))
# fmt: off
# name: Training(command, epochs at which it is looked at, seconds of an epoch on one core, seeds);
# without seeds: 0, 1 and 2
TRAININGS = {
    # reports A, B and C
    "basic": Training("gan_mlp.py --report", (3, 10), 5, EIGHT),
    "basic-noise-0.3": Training(
        "benchmarks/edits.py basic-noise-0.3 --report", (3,), 5, EIGHT),
    "basic-noise-3": Training(
        "benchmarks/edits.py basic-noise-3 --report", (3,), 5, EIGHT),
    "conv7": Training("gan_cnn.py --arch conv7 --report", (3,), 120),
    "tiny": Training(
        "gan_cnn.py --arch tiny --report", (10, 20), 37, EIGHT),
    # that its optimizer is the notebook's is only likely, so Adam, too
    "tiny-adam": Training(
        "gan_cnn.py --arch tiny --report --optimizer adam --lr 2e-4", (10, 20), 37),
    "conv4": Training("gan_cnn.py --arch conv4 --report --bf16", (5, 20), 141),
    # for the time of an epoch alone
    "conv4-1": Training("gan_cnn.py --arch conv4 --report", (1,), 198, (0,)),
    "separable": Training("gan_cnn.py --arch separable --report", (1,), 130, (0,)),
    # reports A and D
    "upsample": Training(
        "dcgan.py --arch upsample --report --bf16", (2, 5, 20, 50, 200), 250),
    "upsample-noise-0.3": Training(
        "benchmarks/edits.py upsample-noise-0.3 --report --bf16", (2,), 250),
    "upsample-noise-3": Training(
        "benchmarks/edits.py upsample-noise-3 --report --bf16", (2,), 250),
    # report D
    "deep": Training("gan_mlp.py --arch deep --report", (2, 5, 20, 50, 200), 23),
    "deep-no-bn": Training("benchmarks/edits.py deep-no-bn --report", (5,), 23),
    "deep-generator-first": Training(
        "benchmarks/edits.py deep-generator-first --report", (5, 20), 23),
    # report E
    "hidden": Training(
        "gan_mlp.py --arch hidden --report", (1, 5, 30), 8, (0, 1, 2, 3)),
    # with seed 1 D is stuck in its first epoch, which ends the training
    "hidden-2e-3": Training(
        "gan_mlp.py --arch hidden --report --lr 2e-3", (1, 5), 8, (0, 1, 2, 3)),
    "hidden-relu": Training("benchmarks/edits.py hidden-relu --report", (5, 30), 8),
    "transpose": Training("dcgan.py --report --bf16", (3, 5, 10, 30), 93),
    "transpose-no-bn": Training(
        "benchmarks/edits.py transpose-no-bn --report --bf16", (3, 10, 30), 93),
    "transpose-bn-in-d": Training(
        "benchmarks/edits.py transpose-bn-in-d --report --bf16", (3, 10, 30), 93),
    "transpose-2e-3": Training("dcgan.py --report --bf16 --lr 2e-3", (3, 10, 30), 93),
    "transpose-no-bn-2e-3": Training(
        "benchmarks/edits.py transpose-no-bn --report --bf16 --lr 2e-3", (3, 10, 30), 93),
    "wgan": Training("wgan.py --report --bf16", (5, 25, 50, 150), 52),
    "wgan-2e-5": Training("wgan.py --report --bf16 --lr 2e-5", (12,), 52),
}
# fmt: on


# ---- what is claimed, how it is measured, and when it holds
def multiply_adds():
    """For one image, of both networks, in millions: as speed.py --count."""
    numbers = {}
    for name in ("conv4", "separable"):
        _, count = speed.cost(f"gan_cnn --arch {name}")
        numbers[f"million multiply-adds of {name}"] = count / 1e6
    return numbers


# A Part is a label, the trainings, what is measured of them, and a condition.
#
# "basic@3" is the training called basic, after 3 epochs. Without @, it is judged at the look that
# most of its seeds have reached; if several looks have as many seeds, at the last. "deep<=50" is
# not looked at beyond 50 epochs. "deep upsample" are two trainings at the same age.
#
# A difference must be larger than 0.01 of a loss, 1 grey level, or 5 % of any other number, unless
# a label says how large. Grain, sharpness and outlines are shares of those of real images.
A = [
    Claim(
        "A1",
        "Randomlist: D is much improved (大量的优化), with more layers",
        unmeasured="not a claim that a training can test",
    ),
    Claim(
        "A2",
        "larger noise: more noise and irregularity in the images (更多的噪声和不规则性)",
        [
            Part(
                "basic GAN, trained with 3 times the noise: more grain",
                "basic@3 basic-noise-3@3",
                images("grain"),
                "grain of basic-noise-3 > 1.05 * grain of basic",
            ),
            Part(
                "Randomlist, trained with 3 times the noise: more grain",
                "upsample@2 upsample-noise-3@2",
                images("grain"),
                "grain of upsample-noise-3 > 1.05 * grain of upsample",
            ),
            Part(
                "Randomlist, trained as usual, then z times 3: more grain",
                "upsample",
                scaled(3, "grain"),
                "grain with 3 > 1.05 * grain with 1",
            ),
        ],
    ),
    Claim(
        "A3",
        "larger noise: blurred images (更加模糊)",
        [
            Part(
                "basic GAN, trained with 3 times the noise: blurred outlines",
                "basic@3 basic-noise-3@3",
                images("outlines"),
                "outlines of basic-noise-3 < 0.95 * outlines of basic",
            ),
            Part(
                "Randomlist, trained with 3 times the noise: blurred outlines",
                "upsample@2 upsample-noise-3@2",
                images("outlines"),
                "outlines of upsample-noise-3 < 0.95 * outlines of upsample",
            ),
            Part(
                "Randomlist, trained as usual, then z times 3: blurred outlines",
                "upsample",
                scaled(3, "outlines"),
                "outlines with 3 < 0.95 * outlines with 1",
            ),
        ],
    ),
    Claim(
        "A4",
        "larger noise: flat images (扁平), which lose detail and texture, "
        "because the network attends too much to very noisy regions",
        [
            Part(
                "basic GAN, trained with 3 times the noise: more grey squares without texture",
                "basic@3 basic-noise-3@3",
                images("without texture"),
                "without texture of basic-noise-3 > without texture of basic + 0.01",
            ),
            Part(
                "Randomlist, trained with 3 times the noise: more grey squares without texture",
                "upsample@2 upsample-noise-3@2",
                images("without texture"),
                "without texture of upsample-noise-3 > without texture of upsample + 0.01",
            ),
            Part(
                "Randomlist, trained as usual, then z times 3: more grey squares without texture",
                "upsample",
                scaled(3, "without texture"),
                "without texture with 3 > without texture with 1 + 0.01",
            ),
            Part(
                "Randomlist, trained as usual, then z times 3: more black or white pixels",
                "upsample",
                scaled(3, "saturated"),
                "saturated with 3 > 1.05 * saturated with 1",
            ),
        ],
        unmeasured="the cause: no number says what a network attends to",
    ),
    Claim(
        "A5",
        "smaller noise: G is disturbed less and learns fast (迅速拟合出图像)",
        [
            Part(
                "basic GAN, trained with 0.3 times the noise: a lower FD at the same age",
                "basic@3 basic-noise-0.3@3",
                images("FD"),
                "FD of basic-noise-0.3 < 0.95 * FD of basic",
            ),
            Part(
                "Randomlist, trained with 0.3 times the noise: a lower FD at the same age",
                "upsample@2 upsample-noise-0.3@2",
                images("FD"),
                "FD of upsample-noise-0.3 < 0.95 * FD of upsample",
            ),
        ],
    ),
    Claim(
        "A6",
        "smaller noise: less diversity",
        [
            Part(
                "basic GAN, trained with 0.3 times the noise: images differ less",
                "basic@3 basic-noise-0.3@3",
                images("diversity"),
                "diversity of basic-noise-0.3 < 0.95 * diversity of basic",
            ),
            Part(
                "Randomlist, trained with 0.3 times the noise: images differ less",
                "upsample@2 upsample-noise-0.3@2",
                images("diversity"),
                "diversity of upsample-noise-0.3 < 0.95 * diversity of upsample",
            ),
            Part(
                "Randomlist, trained as usual, then z times 0.3: images differ less",
                "upsample",
                scaled(0.3, "diversity"),
                "diversity with 0.3 < 0.95 * diversity with 1",
            ),
        ],
    ),
    Claim(
        "A7",
        "smaller noise: details of collars and sleeves vanish",
        [
            Part(
                "basic GAN, trained with 0.3 times the noise: blurred outlines",
                "basic@3 basic-noise-0.3@3",
                images("outlines"),
                "outlines of basic-noise-0.3 < 0.95 * outlines of basic",
            ),
            Part(
                "Randomlist, trained with 0.3 times the noise: blurred outlines",
                "upsample@2 upsample-noise-0.3@2",
                images("outlines"),
                "outlines of upsample-noise-0.3 < 0.95 * outlines of upsample",
            ),
            Part(
                "Randomlist, trained as usual, then z times 0.3: blurred outlines",
                "upsample",
                scaled(0.3, "outlines"),
                "outlines with 0.3 < 0.95 * outlines with 1",
            ),
        ],
        unmeasured="collars and sleeves were not counted",
    ),
    Claim(
        "A8",
        "noise should have a sensible distribution, such as that of the data",
        unmeasured="no network was trained with noise of another distribution",
    ),
    Claim(
        "A9",
        "depthwise convolutions need much less computing (大大减少了计算量)",
        [
            Part(
                "multiply-adds for an image, at most half",
                "",
                multiply_adds,
                "million multiply-adds of separable < 0.5 * million multiply-adds of conv4",
            ),
            Part(
                "time for an epoch, at most half",
                "conv4-1@1 separable@1",
                seconds,
                "seconds for an epoch of separable < 0.5 * seconds for an epoch of conv4-1",
            ),
        ],
    ),
    Claim(
        "A10",
        "its own GAN: the losses fall on the whole, with nearly the same trend (接近相同的趋势)",
        [
            Part(
                "G's falls",
                "conv4",
                losses("loss_G", epochs=(1, "last")),
                "loss_G in the last epoch < loss_G in epoch 1 - 0.01",
            ),
            Part(
                "D's falls",
                "conv4",
                losses("loss_D", epochs=(1, "last")),
                "loss_D in the last epoch < loss_D in epoch 1 - 0.01",
            ),
            Part(
                "from epoch to epoch they mostly go the same way",
                "conv4",
                same_way,
                "share of epochs in which both go the same way > 0.5",
            ),
        ],
    ),
    Claim(
        "A11",
        "its own GAN: it converges fast, then becomes more and more steady",
        [
            Part(
                "the last change of D's mean is at most a quarter of the first",
                "conv4",
                settles("loss_D"),
                "change of loss_D at last < 0.25 * change of loss_D at first",
            ),
            Part(
                "the last change of G's mean is at most a quarter of the first",
                "conv4",
                settles("loss_G"),
                "change of loss_G at last < 0.25 * change of loss_G at first",
            ),
        ],
    ),
]

B = [
    Claim(
        "B1",
        "the loss of a GAN says little, for it swings strongly",
        [
            Part(
                "within an epoch, both losses swing by more than 0.1",
                "basic@3",
                swing("loss_D", "loss_G", epochs=(3,)),
                "swing of loss_D in epoch 3 > 0.1 and swing of loss_G in epoch 3 > 0.1",
            ),
            Part(
                "so D's mean shows no trend",
                "basic@3",
                losses("loss_D", epochs=(1, 3)),
                "loss_D in epoch 3 < loss_D in epoch 1 + 0.01 and "
                "loss_D in epoch 3 > loss_D in epoch 1 - 0.01",
            ),
            Part(
                "so G's mean shows no trend",
                "basic@3",
                losses("loss_G", epochs=(1, 3)),
                "loss_G in epoch 3 > loss_G in epoch 1 - 0.01 and "
                "loss_G in epoch 3 < loss_G in epoch 1 + 0.01",
            ),
        ],
    ),
    Claim(
        "B2",
        "0.3 at one position changes almost nothing, often nothing visible, at every position",
        [
            Part(
                "MLP: less than 10 grey levels at the strongest position",
                "basic@3",
                change(0.3, over=max),
                "change with 0.3 < 10",
            ),
            Part(
                "CNN: less than 10 grey levels at the strongest position",
                "conv7@3",
                change(0.3, over=max),
                "change with 0.3 < 10",
            ),
        ],
    ),
    Claim(
        "B3",
        "10 at one position changes the image very clearly",
        [
            Part(
                "MLP: more than 25 grey levels, the mean of five positions",
                "basic@3",
                change(10, over=mean),
                "change with 10 > 25",
            ),
            Part(
                "CNN: more than 25 grey levels, the mean of five positions",
                "conv7@3",
                change(10, over=mean),
                "change with 10 > 25",
            ),
        ],
    ),
    Claim(
        "B4",
        "10 at position 80 makes two pairs of trousers (or two garments) of one; "
        "10 at position 60 does not",
        unmeasured="it is one picture of the author's trained network, which we do not have",
    ),
    Claim(
        "B5",
        "0.3 changes the number of trousers, and so does a value that is too large (10)",
        [
            Part(
                "with 0.3, less than 0.9 stay trousers",
                "basic@3",
                trousers(0.3),
                "stay trousers with 0.3 < 0.9",
            ),
            Part(
                "with 10, less than 0.9 stay trousers",
                "basic@3",
                trousers(10),
                "stay trousers with 10 < 0.9",
            ),
        ],
    ),
    Claim(
        "B6",
        "0.3 makes images darker, some nearly black",
        [
            Part(
                "darker by 1 grey level",
                "basic@3",
                bright(0.3),
                "brightness(0.3) < brightness(unchanged) - 1",
            ),
            Part(
                "the share of nearly black images grows by 0.01",
                "basic@3",
                nearly_black(0.3),
                "nearly black(0.3) > nearly black(unchanged) + 0.01",
            ),
        ],
    ),
    Claim(
        "B7",
        "10 makes images darker, some nearly black",
        [
            Part(
                "darker by 1 grey level",
                "basic@3",
                bright(10),
                "brightness(10) < brightness(unchanged) - 1",
            ),
            Part(
                "the share of nearly black images grows by 0.01",
                "basic@3",
                nearly_black(10),
                "nearly black(10) > nearly black(unchanged) + 0.01",
            ),
        ],
    ),
    Claim(
        "B8",
        "values in between make brighter and better images",
        [
            Part(
                "with 5 brighter than with 0.3 and with 10",
                "basic@3",
                bright(0.3, 5, 10),
                "brightness(5) > brightness(0.3) + 1 and "
                "brightness(5) > brightness(10) + 1",
            ),
            Part(
                "with 5 better, by FD, than with 0.3 and with 10",
                "basic@3",
                values_compared(0.3, 5, 10),
                "FD(5) < 0.95 * FD(0.3) and FD(5) < 0.95 * FD(10)",
            ),
            Part(
                "with 1 brighter than with 0.3 and with 10",
                "basic@3",
                bright(0.3, 1, 10),
                "brightness(1) > brightness(0.3) + 1 and "
                "brightness(1) > brightness(10) + 1",
            ),
            Part(
                "with 1 better, by FD, than with 0.3 and with 10",
                "basic@3",
                values_compared(0.3, 1, 10),
                "FD(1) < 0.95 * FD(0.3) and FD(1) < 0.95 * FD(10)",
            ),
        ],
    ),
]

BRIGHTER = "brightness(5) > brightness(-1) + 1 and brightness(10) > brightness(5) + 1"

C = [
    Claim(
        "C1",
        "MLP: D's loss rises in the end",
        [
            Part(
                "from epoch 2 to 3",
                "basic@3",
                losses("loss_D", epochs=(1, 2, 3)),
                "loss_D in epoch 3 > loss_D in epoch 2 + 0.01",
            ),
            Part(
                "from epoch 3 to 10",
                "basic@10",
                losses("loss_D", epochs=(3, 10)),
                "loss_D in epoch 10 > loss_D in epoch 3 + 0.01",
            ),
        ],
    ),
    Claim(
        "C2",
        "MLP: G's loss is not steady in the first epochs, then falls",
        [
            Part(
                "within epoch 1, up and down by 0.1",
                "basic@3",
                thirds("loss_G"),
                "second third > first third + 0.1 and second third > last third + 0.1",
            ),
            Part(
                "then down, from epoch 1 to 3",
                "basic@3",
                losses("loss_G", epochs=(1, 2, 3)),
                "loss_G in epoch 3 < loss_G in epoch 1 - 0.01",
            ),
            Part(
                "and further, from epoch 3 to 10",
                "basic@10",
                losses("loss_G", epochs=(3, 10)),
                "loss_G in epoch 10 < loss_G in epoch 3 - 0.01",
            ),
        ],
    ),
    Claim(
        "C3",
        "MLP: both mean that the images become more real (可以以假乱真)",
        [
            Part(
                "they do become better, by FD",
                "basic@3 basic@10",
                images("FD"),
                "FD, later < 0.95 * FD, earlier",
            ),
            Part(
                "they pass for real: D(x) is above D(G(z)) by less than 0.1",
                "basic@10",
                losses("D(x)", "D(G(z))", epochs=(10,)),
                "D(x) in epoch 10 < D(G(z)) in epoch 10 + 0.1",
            ),
        ],
    ),
    Claim(
        "C4",
        "position 0: the larger the value, the brighter; columns 3 and 5 (第三列、第五列) change "
        "their style much: black becomes white",
        [
            Part("its loop, which sets all five: brighter", "basic@3", loop, BRIGHTER),
            Part("position 0 alone: brighter", "basic@3", bright_at(0), BRIGHTER),
            Part(
                "position 0 alone: less than 0.9 stay of their kind",
                "basic@3",
                stays(10, 0),
                "stay of their kind with 10 < 0.9",
            ),
        ],
    ),
    Claim(
        "C5",
        "position 20: brighter; no clear change of style (没有明显改变)",
        [
            Part("brighter", "basic@3", bright_at(20), BRIGHTER),
            Part(
                "more than 0.9 stay of their kind",
                "basic@3",
                stays(10, 20),
                "stay of their kind with 10 > 0.9",
            ),
        ],
    ),
    Claim(
        "C6",
        "position 40: brighter; hardly any change of style",
        [
            Part("brighter", "basic@3", bright_at(40), BRIGHTER),
            Part(
                "more than 0.9 stay of their kind",
                "basic@3",
                stays(10, 40),
                "stay of their kind with 10 > 0.9",
            ),
        ],
    ),
    Claim(
        "C7",
        "position 60: brighter, but not clearly; hardly any change of style",
        [
            Part("brighter", "basic@3", bright_at(60), BRIGHTER),
            Part(
                "not clearly: 10 is brighter than -1, but by less than 25 grey levels",
                "basic@3",
                bright_at(60),
                "brightness(10) > brightness(-1) + 1 and "
                "brightness(10) < brightness(-1) + 25",
            ),
            Part(
                "more than 0.9 stay of their kind",
                "basic@3",
                stays(10, 60),
                "stay of their kind with 10 > 0.9",
            ),
        ],
    ),
    Claim(
        "C8",
        "position 80: brighter; black in the middle of the garment becomes white",
        [
            Part("brighter", "basic@3", bright_at(80), BRIGHTER),
            Part(
                "the middle becomes brighter by 25 grey levels",
                "basic@3",
                middle_at(80),
                "middle(10) > middle(-1) + 25",
            ),
        ],
    ),
    Claim(
        "C9",
        "in sum: the position mainly decides the style",
        [
            Part(
                "the share that stays of its kind differs more between positions than values",
                "basic@3",
                position_or_value,
                "kind between positions > kind between values",
            ),
        ],
    ),
    Claim(
        "C10",
        "in sum: the value mainly decides the grey, perhaps nothing else",
        [
            Part(
                "the brightness differs more between values than between positions",
                "basic@3",
                position_or_value,
                "brightness between values > brightness between positions",
            ),
            Part(
                "nothing else: with 10, more than 0.9 stay of their kind",
                "basic@3",
                stays(10),
                "stay of their kind with 10 > 0.9",
            ),
        ],
    ),
    Claim(
        "C11",
        "CNN: D's loss rises in the end, so the images become more real",
        [
            Part(
                "from epoch 15 to 20",
                "tiny@20",
                losses("loss_D", epochs=(15, 20)),
                "loss_D in epoch 20 > loss_D in epoch 15 + 0.01",
            ),
            Part(
                "with Adam, from epoch 5 to the last",
                "tiny-adam",
                losses("loss_D", epochs=(5, "last")),
                "loss_D in the last epoch > loss_D in epoch 5 + 0.01",
            ),
            Part(
                "the images become better, by FD, from epoch 10 to 20",
                "tiny@10 tiny@20",
                images("FD"),
                "FD, later < 0.95 * FD, earlier",
            ),
        ],
    ),
    Claim(
        "C12",
        "the CNN's images are darker than the MLP's",
        [
            Part(
                "by 1 grey level",
                "tiny basic@3",
                images("brightness"),
                "brightness of tiny < brightness of basic - 1",
            ),
            Part(
                "drawn stretched, as the report does",
                "tiny basic@3",
                stretched,
                "brightness of tiny < brightness of basic - 1",
            ),
            Part(
                "with Adam",
                "tiny-adam basic@3",
                images("brightness"),
                "brightness of tiny-adam < brightness of basic - 1",
            ),
            Part(
                "with Adam, drawn stretched",
                "tiny-adam basic@3",
                stretched,
                "brightness of tiny-adam < brightness of basic - 1",
            ),
        ],
    ),
    Claim(
        "C13",
        "the CNN shows more detail, such as sleeves",
        [
            Part(
                "neighbouring pixels differ more",
                "tiny basic@3",
                images("sharpness"),
                "sharpness of tiny > 1.05 * sharpness of basic",
            ),
            Part(
                "and that is detail, not grain: no more grain than 1.25 of real images",
                "tiny",
                images("grain"),
                "grain < 1.25",
            ),
            Part(
                "with Adam, neighbouring pixels differ more",
                "tiny-adam basic@3",
                images("sharpness"),
                "sharpness of tiny-adam > 1.05 * sharpness of basic",
            ),
            Part(
                "with Adam, no more grain than 1.25 of real images",
                "tiny-adam",
                images("grain"),
                "grain < 1.25",
            ),
        ],
        unmeasured="sleeves were not counted",
    ),
    Claim(
        "C14",
        "the CNN is better at key features (提取关键特征)",
        unmeasured="no number of ours shows this alone: see C15",
    ),
    Claim(
        "C15",
        "the CNN is better all in all",
        [
            Part(
                "its own, by FD",
                "tiny basic@3",
                images("FD"),
                "FD of tiny < 0.95 * FD of basic",
            ),
            Part(
                "its own with Adam, by FD",
                "tiny-adam basic@3",
                images("FD"),
                "FD of tiny-adam < 0.95 * FD of basic",
            ),
            Part(
                "report B's, by FD",
                "conv7@3 basic@3",
                images("FD"),
                "FD of conv7 < 0.95 * FD of basic",
            ),
        ],
    ),
]

D = [
    Claim(
        "D1",
        "GAN: the losses swing at first, then become steady",
        [
            Part(
                "D's swing is half as large in the end",
                "deep",
                swing("loss_D", epochs=(1, "last")),
                "swing of loss_D in the last epoch < 0.5 * swing of loss_D in epoch 1",
            ),
            Part(
                "G's swing is half as large in the end",
                "deep",
                swing("loss_G", epochs=(1, "last")),
                "swing of loss_G in the last epoch < 0.5 * swing of loss_G in epoch 1",
            ),
            Part(
                "with the source's order of steps, both",
                "deep-generator-first",
                swing("loss_D", "loss_G", epochs=(1, "last")),
                "swing of loss_D in the last epoch < 0.5 * swing of loss_D in epoch 1 and "
                "swing of loss_G in the last epoch < 0.5 * swing of loss_G in epoch 1",
            ),
        ],
    ),
    Claim(
        "D2",
        "GAN: G's loss is slightly above D's",
        [
            Part(
                "above, counted as the source does",
                "deep",
                half_of_loss_D,
                "loss_G > half of loss_D + 0.01",
            ),
            Part(
                "only slightly: by less than 0.2",
                "deep",
                half_of_loss_D,
                "loss_G < half of loss_D + 0.2",
            ),
            Part(
                "with the source's order of steps: above",
                "deep-generator-first",
                half_of_loss_D,
                "loss_G > half of loss_D + 0.01",
            ),
            Part(
                "with the source's order of steps: only slightly",
                "deep-generator-first",
                half_of_loss_D,
                "loss_G < half of loss_D + 0.2",
            ),
        ],
    ),
    Claim(
        "D3",
        "GAN, epoch 50: blurred, with noise points (噪点)",
        [
            Part(
                "blurred: outlines below 0.95 of real images",
                "deep<=50",
                images("outlines"),
                "outlines < 0.95",
            ),
            Part(
                "noise points: grain above 1.25 of real images",
                "deep<=50",
                images("grain"),
                "grain > 1.25",
            ),
        ],
    ),
    Claim(
        "D4",
        "GAN, epoch 200: outline, structure and details are much better, but still a little "
        "blurred, with artefacts (伪影); the modes of the data are caught",
        [
            Part(
                "much better than after 5 epochs: half the FD",
                "deep@5 deep",
                images("FD"),
                "FD, later < 0.5 * FD, earlier",
            ),
            Part(
                "blurred: outlines below 0.95 of real images",
                "deep",
                images("outlines"),
                "outlines < 0.95",
            ),
            Part(
                "artefacts: grain above 1.25 of real images",
                "deep",
                images("grain"),
                "grain > 1.25",
            ),
            Part(
                "modes: more than 9 of 10 kinds",
                "deep",
                images("classes"),
                "classes > 9",
            ),
            Part(
                "modes: a recall above 0.2",
                "deep",
                images("recall"),
                "recall > 0.2",
            ),
        ],
    ),
    Claim(
        "D5",
        "GAN, 连续性和平滑性: the images change step by step, continuously and smoothly",
        [
            Part(
                "an entry from -3 to 3: the largest step is less than 2 mean ones",
                "deep",
                largest_step,
                "largest step < 2",
            ),
            Part(
                "from z to z: the largest step is less than 2 mean ones",
                "deep",
                walk,
                "largest step between two z < 2",
            ),
        ],
    ),
    Claim(
        "D6",
        "GAN, 特征可控性 (control): some columns change in brightness, structure or texture, "
        "so some entries of z have a meaning",
        [
            Part(
                "entries differ: the strongest changes the image at least twice as much as the weakest",
                "deep",
                strength,
                "strongest entry > 2 * weakest entry",
            ),
            Part(
                "they change one property: with 5, more than 0.9 stay of their kind",
                "deep",
                stays(5),
                "stay of their kind with 5 > 0.9",
            ),
        ],
    ),
    Claim(
        "D7",
        "GAN: some columns saturate or blur (第3列和第4列, columns 3 and 4)",
        unmeasured="they are columns of a network that we do not have; other z give other columns",
    ),
    Claim(
        "D8",
        "GAN, 总结: when z changes, there are jumps and outliers (跳变与异常点)",
        [
            Part(
                "an entry from -3 to 3: the largest step is more than 2 mean ones",
                "deep",
                largest_step,
                "largest step > 2",
            ),
            Part(
                "with 5, more than half become another kind",
                "deep",
                stays(5),
                "stay of their kind with 5 < 0.5",
            ),
        ],
    ),
    Claim(
        "D9",
        "GAN, 总结: it easily does not converge, or collapses (不收敛或模式崩溃)",
        [
            Part(
                "no better than after 5 epochs, by FD",
                "deep@5 deep",
                images("FD"),
                "FD, later > 0.95 * FD, earlier",
            ),
            Part(
                "collapse: fewer than 5 of 10 kinds",
                "deep",
                images("classes"),
                "classes < 5",
            ),
            Part(
                "collapse within the kinds: a recall below 0.1",
                "deep",
                images("recall"),
                "recall < 0.1",
            ),
        ],
    ),
    Claim(
        "D10",
        "GAN, 2.1: good on simple images such as MNIST",
        unmeasured="all trainings here are on Fashion-MNIST",
    ),
    Claim(
        "D11",
        "DCGAN: the losses swing much less than the GAN's",
        [
            Part(
                "D's: at most half, at the same age",
                "deep upsample",
                swing("loss_D", epochs=("last",)),
                "swing of loss_D in the last epoch of upsample < "
                "0.5 * swing of loss_D in the last epoch of deep",
            ),
            Part(
                "G's: at most half, at the same age",
                "deep upsample",
                swing("loss_G", epochs=("last",)),
                "swing of loss_G in the last epoch of upsample < "
                "0.5 * swing of loss_G in the last epoch of deep",
            ),
        ],
    ),
    Claim(
        "D12",
        "DCGAN, epoch 200: sharper, with better texture",
        [
            Part(
                "better, by FD, at the same age",
                "deep upsample",
                images("FD"),
                "FD of upsample < 0.95 * FD of deep",
            ),
            Part(
                "better than the GAN of 20 epochs, by FD",
                "deep@20 upsample",
                images("FD"),
                "FD of upsample < 0.95 * FD of deep",
            ),
            Part(
                "sharp: outlines above 0.95 of real images",
                "upsample",
                images("outlines"),
                "outlines > 0.95",
            ),
            Part(
                "sharper outlines than the GAN's, at the same age",
                "deep upsample",
                images("outlines"),
                "outlines of upsample > 1.05 * outlines of deep",
            ),
            Part(
                "texture: less grain than the GAN's",
                "deep upsample",
                images("grain"),
                "grain of upsample < 0.95 * grain of deep",
            ),
        ],
    ),
    Claim(
        "D13",
        "DCGAN, 总结: more varied (样式多样性), and truer to the classes (类别一致性)",
        [
            Part(
                "more varied: a recall higher by 0.01, at the same age",
                "deep upsample",
                images("recall"),
                "recall of upsample > recall of deep + 0.01",
            ),
            Part(
                "more kinds, at the same age",
                "deep upsample",
                images("classes"),
                "classes of upsample > 1.05 * classes of deep",
            ),
            Part(
                "truer: a higher precision, at the same age",
                "deep upsample",
                images("precision"),
                "precision of upsample > 1.05 * precision of deep",
            ),
        ],
    ),
    Claim(
        "D14",
        "DCGAN: different random numbers decide the class",
        [
            Part(
                "different z draw more than 5 kinds",
                "upsample",
                images("classes"),
                "classes > 5",
            ),
        ],
    ),
    Claim(
        "D15",
        "DCGAN: a change of single entries keeps class and outline",
        [
            Part(
                "with 5, more than 0.9 stay of their kind",
                "upsample",
                stays(5),
                "stay of their kind with 5 > 0.9",
            ),
            Part(
                "with 2, more than 0.9 stay of their kind",
                "upsample",
                stays(2),
                "stay of their kind with 2 > 0.9",
            ),
            Part(
                "with 5, more than the GAN's, at the same age",
                "deep upsample",
                stays(5),
                "stay of their kind with 5 of upsample > 1.05 * stay of their kind with 5 of deep",
            ),
        ],
    ),
    Claim(
        "D16",
        "DCGAN: it responds smoothly to changes of z",
        [
            Part(
                "an entry from -3 to 3: the largest step is less than 2 mean ones",
                "upsample",
                largest_step,
                "largest step < 2",
            ),
            Part(
                "from z to z: more even steps than the GAN's, at the same age",
                "deep upsample",
                walk,
                "largest step between two z of upsample < 0.95 * largest step between two z of deep",
            ),
            Part(
                "an entry from -3 to 3: more even steps than the GAN's, at the same age",
                "deep upsample",
                largest_step,
                "largest step of upsample < 0.95 * largest step of deep",
            ),
        ],
    ),
    Claim(
        "D17",
        "DCGAN, 3.1: convolutions in D suppress overfitting",
        [
            Part(
                "of its lead on training images D keeps more on test images than the GAN's, "
                "by 0.01",
                "deep upsample",
                scores("kept of the lead"),
                "kept of the lead of upsample > kept of the lead of deep + 0.01",
            ),
        ],
        unmeasured="Dropout and BatchNorm in D were not separated from the convolutions",
    ),
    Claim(
        "D18",
        "GAN, 2.1, and DCGAN, 3.1: BatchNorm speeds and steadies the training; with LeakyReLU "
        "it much reduces collapse (显著缓解)",
        [
            Part(
                "speeds: the GAN has a lower FD than without, at the same age",
                "deep@5 deep-no-bn@5",
                images("FD"),
                "FD of deep < 0.95 * FD of deep-no-bn",
            ),
            Part(
                "steadies: G's loss swings less",
                "deep@5 deep-no-bn@5",
                swing("loss_G", epochs=(5,)),
                "swing of loss_G in epoch 5 of deep < 0.95 * swing of loss_G in epoch 5 of deep-no-bn",
            ),
            Part(
                "less collapse: more kinds",
                "deep@5 deep-no-bn@5",
                images("classes"),
                "classes of deep > 1.05 * classes of deep-no-bn",
            ),
        ],
        unmeasured="the DCGAN without BatchNorm (report E's was: see there), and LeakyReLU",
    ),
    Claim(
        "D19",
        "DCGAN, 总结: it catches the local structure of the images better (更有效地捕捉图像的局部结构信息)",
        [
            Part(
                "squares of 7 by 7 pixels are nearer to the real ones, at the same age",
                "deep upsample",
                images("local FD"),
                "local FD of upsample < 0.95 * local FD of deep",
            ),
        ],
    ),
    Claim(
        "D20",
        "GAN, 2.2: D and G come to a balance (对抗关系逐步达到平衡)",
        [
            Part(
                "D(x) is above D(G(z)) by less than 0.1",
                "deep",
                losses("D(x)", "D(G(z))", epochs=("last",)),
                "D(x) in the last epoch < D(G(z)) in the last epoch + 0.1",
            ),
        ],
    ),
]

E = [
    Claim(
        "E1",
        "GAN: D's loss falls quickly to nearly 0, G's rises: a collapse",
        [
            Part(
                "D's falls below 0.1, and G's rises, until epoch 3",
                "hidden",
                losses("loss_D", "loss_G", epochs=(1, 3)),
                "loss_D in epoch 3 < 0.1 and loss_G in epoch 3 > loss_G in epoch 1 + 0.01",
            ),
            Part(
                "both stay so, to the end",
                "hidden",
                losses("loss_D", "loss_G", epochs=(3, "last")),
                "loss_D in the last epoch < 0.1 and "
                "loss_G in the last epoch > loss_G in epoch 3 - 0.01",
            ),
            Part(
                "collapse in epoch 5: fewer than 5 of 10 kinds",
                "hidden@5",
                images("classes"),
                "classes < 5",
            ),
            Part(
                "collapse at the end: fewer than 5 of 10 kinds",
                "hidden",
                images("classes"),
                "classes < 5",
            ),
        ],
    ),
    Claim(
        "E2",
        "GAN: some samples are good, but poor diversity, repeated textures",
        [
            Part(
                "poor diversity: a recall below 0.1",
                "hidden",
                images("recall"),
                "recall < 0.1",
            ),
            Part(
                "good samples: more than 0.1 have less grain than the median real image",
                "hidden",
                images("clean images"),
                "clean images > 0.1",
            ),
            Part(
                "repeated: the nearest other image is less than 0.8 as far as in real images",
                "hidden",
                images("distance"),
                "distance < 0.8",
            ),
        ],
    ),
    Claim(
        "E3",
        "GAN: blurred; the cause is a gradient that vanishes (JS散度)",
        [
            Part(
                "blurred: outlines below 0.95 of real images",
                "hidden",
                images("outlines"),
                "outlines < 0.95",
            ),
            Part(
                "the gradient that reaches G, epoch 5: below a tenth of that before training",
                "hidden@5",
                gradient,
                "gradient now < 0.1 * gradient at first",
            ),
        ],
    ),
    Claim(
        "E4",
        'GAN: D overpowers ("压倒") G; the WGAN\'s clipped critic does not',
        [
            Part(
                "GAN: D(x) above 0.95 and D(G(z)) below 0.05 in epoch 3",
                "hidden",
                losses("D(x)", "D(G(z))", epochs=(3,)),
                "D(x) in epoch 3 > 0.95 and D(G(z)) in epoch 3 < 0.05",
            ),
            Part(
                "GAN, epoch 5: of all pairs of a test image and a generated one, D gives the test "
                "image the higher score in 0.99",
                "hidden@5",
                scores("ranked right"),
                "ranked right > 0.99",
            ),
            Part(
                "WGAN: the critic does so in less than 0.99",
                "wgan",
                scores("ranked right"),
                "ranked right < 0.99",
            ),
        ],
    ),
    Claim(
        "E5",
        "GAN: choose the learning rate with care, or gradients explode",
        [
            Part(
                "with ten times the rate, a higher FD",
                "hidden@5 hidden-2e-3@5",
                images("FD"),
                "FD of hidden-2e-3 > 1.05 * FD of hidden",
            ),
            Part(
                "D is sure of every image: its loss is below 0.01",
                "hidden-2e-3@5",
                losses("loss_D", epochs=(5,)),
                "loss_D in epoch 5 < 0.01",
            ),
            Part(
                "gradients explode: after epoch 1, what reaches G is ten times as large as with the usual rate",
                "hidden@1 hidden-2e-3@1",
                gradient,
                "gradient now of hidden-2e-3 > 10 * gradient now of hidden",
            ),
        ],
        unmeasured="with seed 1 and ten times the rate the training ended in epoch 1, as D was stuck",
    ),
    Claim(
        "E6",
        "DCGAN: the losses go up and down in turns, but converge",
        [
            Part(
                "in turns: from epoch to epoch they mostly go opposite ways",
                "transpose",
                same_way,
                "share of epochs in which both go the same way < 0.5",
            ),
            Part(
                "converge: the last change of both means is at most a quarter of the first",
                "transpose",
                settles("loss_D", "loss_G"),
                "change of loss_D at last < 0.25 * change of loss_D at first and "
                "change of loss_G at last < 0.25 * change of loss_G at first",
            ),
        ],
    ),
    Claim(
        "E7",
        "DCGAN: more detail, near the real images",
        [
            Part(
                "nearer than the GAN after all its epochs, by FD",
                "hidden@30 transpose",
                images("FD"),
                "FD of transpose < 0.95 * FD of hidden",
            ),
            Part(
                "detail: outlines above 0.95 of real images",
                "transpose",
                images("outlines"),
                "outlines > 0.95",
            ),
        ],
    ),
    Claim(
        "E8",
        "DCGAN: some regions are too smooth",
        [
            Part(
                "of the grey squares of 4 by 4 pixels, more have no texture than in real images",
                "transpose",
                images("without texture", "without texture, real"),
                "without texture > without texture, real + 0.01",
            ),
        ],
    ),
    Claim(
        "E9",
        "DCGAN: artefacts (不规则斑点, spots), because the game is not balanced",
        [
            Part(
                "spots: grain above 1.25 of real images",
                "transpose",
                images("grain"),
                "grain > 1.25",
            ),
            Part(
                "in more images than among real ones: less than 0.4 have less grain than the median "
                "real image",
                "transpose",
                images("clean images"),
                "clean images < 0.4",
            ),
        ],
        unmeasured="the cause: the balance was not changed on its own",
    ),
    Claim(
        "E10",
        "DCGAN: more BatchNorm reduces noise, too much of it smooths",
        [
            Part(
                "less grain than without BatchNorm in G",
                "transpose transpose-no-bn",
                images("grain"),
                "grain of transpose < 0.95 * grain of transpose-no-bn",
            ),
            Part(
                "with BatchNorm in D, too, still less grain",
                "transpose transpose-bn-in-d",
                images("grain"),
                "grain of transpose-bn-in-d < 0.95 * grain of transpose",
            ),
            Part(
                "and smoother: more grey squares without texture",
                "transpose transpose-bn-in-d",
                images("without texture"),
                "without texture of transpose-bn-in-d > without texture of transpose + 0.01",
            ),
        ],
    ),
    Claim(
        "E11",
        "DCGAN: BatchNorm prevents collapse",
        [
            Part(
                "without it, a collapse: fewer than 5 of 10 kinds",
                "transpose-no-bn",
                images("classes"),
                "classes < 5",
            ),
            Part(
                "with it, more than 5 kinds",
                "transpose",
                images("classes"),
                "classes > 5",
            ),
            Part(
                "with it, a recall higher by 0.01",
                "transpose transpose-no-bn",
                images("recall"),
                "recall of transpose > recall of transpose-no-bn + 0.01",
            ),
        ],
    ),
    Claim(
        "E12",
        "DCGAN: BatchNorm allows larger learning rates and converges faster",
        [
            Part(
                "faster: a lower FD than without it, at the same age",
                "transpose transpose-no-bn",
                images("FD"),
                "FD of transpose < 0.95 * FD of transpose-no-bn",
            ),
            Part(
                "steadier: G's loss swings less within an epoch",
                "transpose transpose-no-bn",
                swing("loss_G", epochs=("last",)),
                "swing of loss_G in the last epoch of transpose < "
                "0.95 * swing of loss_G in the last epoch of transpose-no-bn",
            ),
            Part(
                "with it, ten times the rate makes FD no worse",
                "transpose transpose-2e-3",
                images("FD"),
                "FD of transpose-2e-3 < 1.05 * FD of transpose",
            ),
            Part(
                "without it, ten times the rate makes FD worse",
                "transpose-no-bn transpose-no-bn-2e-3",
                images("FD"),
                "FD of transpose-no-bn-2e-3 > 1.05 * FD of transpose-no-bn",
            ),
        ],
    ),
    Claim(
        "E13",
        "WGAN: the critic's loss and G's fall steadily",
        [
            Part(
                "the printed Loss_D falls in 0.9 of the epochs",
                "wgan",
                falls("loss_D"),
                "share of epochs in which loss_D falls > 0.9",
            ),
            Part(
                "if 'the critic's loss' means the distance, its negative: that falls",
                "wgan",
                falls("distance"),
                "share of epochs in which distance falls > 0.9",
            ),
            Part(
                "G's loss falls in 0.9 of the epochs",
                "wgan",
                falls("loss_G"),
                "share of epochs in which loss_G falls > 0.9",
            ),
        ],
    ),
    Claim(
        "E14",
        "WGAN: the best diversity",
        [
            Part(
                "a recall higher by 0.01 than the DCGAN's and the GAN's, in the end",
                "hidden@30 transpose@30 wgan@150",
                images("recall"),
                "recall of wgan > recall of transpose + 0.01 and "
                "recall of wgan > recall of hidden + 0.01",
            ),
            Part(
                "the same after a sixth of the steps of G",
                "hidden@5 transpose@5 wgan@25",
                images("recall"),
                "recall of wgan > recall of transpose + 0.01 and "
                "recall of wgan > recall of hidden + 0.01",
            ),
        ],
    ),
    Claim(
        "E15",
        "WGAN: sharp, with natural, smooth edges",
        [
            Part(
                "sharp: outlines above 0.95 of real images",
                "wgan",
                images("outlines"),
                "outlines > 0.95",
            ),
            Part(
                "natural: squares of 7 by 7 pixels nearer to the real ones than the DCGAN's, "
                "after as many steps of G",
                "transpose@5 wgan@25",
                images("local FD"),
                "local FD of wgan < 0.95 * local FD of transpose",
            ),
            Part(
                "smooth: no more grain than 1.05 of real images",
                "wgan",
                images("grain"),
                "grain < 1.05",
            ),
        ],
    ),
    Claim(
        "E16",
        "WGAN: a lower learning rate steadies it",
        [
            Part(
                "with 2e-5, smaller jumps of the distance from step to step, against its mean, "
                "after as much learning, rate times epochs: 12 epochs, not 5",
                "wgan@5 wgan-2e-5@12",
                jumps,
                "jump of wgan-2e-5 < 0.95 * jump of wgan",
            ),
        ],
    ),
    Claim(
        "E17",
        "WGAN: the bound on the critic suppresses overfitting",
        [
            Part(
                "of its lead on training images the critic keeps 0.95 on test images",
                "wgan",
                scores("kept of the lead"),
                "kept of the lead > 0.95",
            ),
            Part(
                "more than the DCGAN's D, without a bound, by 0.01, after as many steps of G",
                "transpose@5 wgan@25",
                scores("kept of the lead"),
                "kept of the lead of wgan > kept of the lead of transpose + 0.01",
            ),
        ],
    ),
    Claim(
        "E18",
        "LeakyReLU in D: with ReLU it would stop learning early",
        [
            Part(
                "with ReLU, D tells real from generated less well in epoch 3, by 0.1",
                "hidden hidden-relu",
                losses("loss_D", epochs=(3,)),
                "loss_D in epoch 3 of hidden-relu > loss_D in epoch 3 of hidden + 0.1",
            ),
            Part(
                "and in the last epoch",
                "hidden hidden-relu",
                losses("loss_D", epochs=("last",)),
                "loss_D in the last epoch of hidden-relu > "
                "loss_D in the last epoch of hidden + 0.1",
            ),
            Part(
                "G learns less from it, by FD",
                "hidden hidden-relu",
                images("FD"),
                "FD of hidden-relu > 1.05 * FD of hidden",
            ),
        ],
    ),
    Claim(
        "E19",
        "GAN: the competition makes G better and better (这种竞争迫使生成器不断优化)",
        [
            Part(
                "from epoch 5 to 30, by FD",
                "hidden@5 hidden@30",
                images("FD"),
                "FD, later < 0.95 * FD, earlier",
            ),
        ],
    ),
    Claim(
        "E20",
        "DCGAN: convolutions do not solve the vanishing gradient (未解决梯度消失本质问题)",
        [
            Part(
                "the gradient that reaches G: below a tenth of that before training",
                "transpose@5",
                gradient,
                "gradient now < 0.1 * gradient at first",
            ),
        ],
    ),
]
REPORTS = {"A": A, "B": B, "C": C, "D": D, "E": E}


# ---- the program
def choose_claims(only):
    """The claims of the reports, or with the names, that were asked for."""
    chosen = []
    for report, claims in REPORTS.items():
        for claim in claims:
            if not only or report in only or claim.name in only:
                chosen.append(claim)
    known = [*REPORTS, *(claim.name for claims in REPORTS.values() for claim in claims)]
    for word in only or []:
        if word not in known:
            raise common.UserError(
                f"there is no claim {word}: reports are A to E, claims A1, ..."
            )
    return chosen


def choose_trainings(claims, args):
    """What these claims need: {(name, seed): the last epoch that is looked at}."""
    chosen = {}
    for claim in claims:
        for part in claim.parts:
            for name, _, highest in evidence.parse(part.trained):
                last = min(highest, TRAININGS[name].looks[-1])
                for seed in args.seeds or TRAININGS[name].seeds:
                    key = name, seed
                    chosen[key] = max(last, chosen.get(key, 0))
    return chosen


def parse_args():
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    add = parser.add_argument
    number = common.number
    add(
        "--only", nargs="+", metavar="NAME", help="reports (D) or claims (E3); else all"
    )
    add(
        "--seeds",
        type=number(int, 0),
        nargs="+",
        help="of the trainings (as in the table)",
    )
    add("--epochs", type=number(int, 1), default=9999, help="train no further")
    add(
        "--jobs", type=number(int, 1), default=1, help="trainings at once (%(default)s)"
    )
    add("--device", default="auto", help="as of the scripts")
    add("--data-dir", type=Path, help="as of the scripts")
    either = parser.add_mutually_exclusive_group().add_argument
    either("--list", action="store_true", help="what is trained, what is done")
    either(
        "--measure", action="store_true", help="train nothing, measure what is there"
    )
    either("--table", action="store_true", help="print the verdicts, train nothing")
    either(
        "--figures",
        action="store_true",
        help="draw the reports' figures, train nothing",
    )
    either("--dry-run", action="store_true", help="try it all with two steps each")
    args = parser.parse_args()
    args.trainings = TRAININGS
    args.root = FOLDER
    args.results = RESULTS
    return args


def main():
    args = parse_args()
    claims = choose_claims(args.only)
    if args.table:
        results = evidence.read_results(args.results)
        print(*evidence.table(claims, results, args.seeds), sep="\n")
        return
    if args.figures:
        figures.draw_all(args.root)
        return
    if args.dry_run:
        with tempfile.TemporaryDirectory() as folder:
            args.root = Path(folder, "claims")
            args.results = Path(folder, "claims.json")
            args.seeds = args.seeds or [0]
            evidence.train_all(choose_trainings(claims, args), args)
            results = evidence.measure_all(claims, args)
            figures.draw_all(args.root, Path(folder))
        print(*evidence.table(claims, results, args.seeds), sep="\n")
        return
    trainings = choose_trainings(claims, args)
    if args.list:
        print(*evidence.listing(claims, trainings, args), sep="\n")
        return
    if not args.measure:
        evidence.train_all(trainings, args)
    results = evidence.measure_all(claims, args)
    print(*evidence.table(claims, results, args.seeds), sep="\n")


if __name__ == "__main__":
    common.run(main)
