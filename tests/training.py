"""Run main() of a script with two small networks, and see all that it does."""

import copy
import sys
from dataclasses import dataclass, field

import pytest
import torch
from small import SCRIPTS, small_D, small_G
from torch import nn

import common

IMAGES = torch.arange(43 * 4).view(43, 1, 2, 2).byte()  # no two pixels are alike
SEED = 7
SETTINGS = {  # those of a kind differ, so that none can be taken for another
    "epochs": 3,
    "batch_size": 4,
    "optimizer": "adam",
    "lr": 0.01,
    "lr_falls_after": 2,
    "beta1": 0.3,
    "beta2": 0.9,
    "r1": 0.2,
    "r1_grows_after": 1,
    "ema": 0.4,
    "new_z": True,
    "bf16": False,
    "init": "dcgan",
    "n_critic": 2,  # IMAGES are counted for it
    "clip": 0.02,
    "gp": 0.0,
}


@dataclass
class Step:
    """What reached a training step, and the weights before and after it."""

    seed: int  # of torch's random numbers, in this epoch
    G: nn.Module
    D: nn.Module
    opt_G: torch.optim.Optimizer
    opt_D: torch.optim.Optimizer
    real: torch.Tensor
    z: torch.Tensor
    settings: dict
    rates: set
    G_before: dict
    D_before: dict
    G_after: dict


@dataclass
class Run:
    """What main() did."""

    line: str  # as typed
    script: str
    steps: list = field(default_factory=list)
    # For each epoch: may its steps be recorded?
    recorded: list = field(default_factory=list)
    # By their epochs, what was drawn.
    pictures: dict = field(default_factory=dict)
    # By their names, what is in g.pt and ckpt.pt.
    files: dict = field(default_factory=dict)
    # For several processes: how they talk, and broadcast_buffers of G and D.
    wrapped: list = field(default_factory=list)

    def epoch(self, number):
        """The steps of an epoch, which is the end of its seed."""
        return [step for step in self.steps if step.seed % 10_000 == number]


def train(
    folder,
    line,
    images=IMAGES,
    G=small_G,
    D=small_D,
    settings=SETTINGS,
    train_step=None,
    rank=0,
    processes=1,
):
    """Run main() in a folder, as if this line had been typed, and these were its data."""
    script, *options = line.split()
    module = SCRIPTS[script]
    run = Run(line, script)
    own_step = train_step or module.train_step
    own_save = common.save
    own_settings = {name: settings[name] for name in module.PLAIN}

    def watched_step(G, D, opt_G, opt_D, real, z, **settings):
        assert G.training, "G does not train"
        assert D.training, "D does not train"
        G_before = copy.deepcopy(G.state_dict())
        D_before = copy.deepcopy(D.state_dict())
        groups = opt_G.param_groups + opt_D.param_groups
        losses = own_step(G, D, opt_G, opt_D, real, z, **settings)
        step = Step(
            seed=torch.initial_seed(),
            G=G,
            D=D,
            opt_G=opt_G,
            opt_D=opt_D,
            real=real,
            z=z,
            settings=settings,
            rates={group["lr"] for group in groups},
            G_before=G_before,
            D_before=D_before,
            G_after=copy.deepcopy(G.state_dict()),
        )
        run.steps.append(step)
        return losses

    def watched_recorded(step, device, graph):
        run.recorded.append(graph)
        return step

    def watched_save(path, content):
        run.files[path.name] = copy.deepcopy(content)
        own_save(path, content)

    def keep_pictures(folder, epoch, fakes, images, quarters):
        run.pictures[epoch] = fakes.clone()

    def wrap(network, broadcast_buffers):
        run.wrapped.append(broadcast_buffers)
        return nn.Sequential(network)

    def start_processes(backend):
        run.wrapped.append(backend)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        words = [script, "--device", "cpu", "--seed", str(SEED), *options]
        patch.setattr(sys, "argv", words)
        patch.setattr(module, "ARCHS", dict.fromkeys(module.ARCHS, (G, D)))
        row = (own_settings, own_settings)
        patch.setattr(module, "SETTINGS", dict.fromkeys(module.SETTINGS, row))
        patch.setattr(module, "train_step", watched_step)
        patch.setattr(module, "DistributedDataParallel", wrap)
        patch.setattr(torch.distributed, "init_process_group", start_processes)
        patch.setattr(common, "RANK", rank)
        patch.setattr(common, "WORLD", processes)
        patch.setattr(common, "recorded", watched_recorded)
        patch.setattr(common, "prepare_device", torch.device)
        patch.setattr(common, "load_images", lambda *_: (images, "test"))
        patch.setattr(common, "save", watched_save)
        patch.setattr(common, "save_samples", keep_pictures)
        patch.setattr(common, "save_losses", lambda *_: None)  # drawing takes long
        module.main()
    return run


def read_options(monkeypatch, line):
    """A script's options, if this line is typed."""
    script, *options = line.split()
    monkeypatch.setattr(sys, "argv", [script, *options])
    args, _ = SCRIPTS[script].read_options()
    return vars(args)
