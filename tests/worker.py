"""What torchrun starts in test_torchrun.py: a script, and in the end its weights in a file.

python -m torch.distributed.run --nproc-per-node 2 tests/worker.py SCRIPT ARGUMENTS
"""

import importlib
import os
import sys
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE))
import common

_, name, *arguments = sys.argv
sys.argv = [str(HERE / f"{name}.py"), *arguments]
Path(f"pid{common.RANK}").write_text(str(os.getpid()))
finish = common.Run.finish


def keep_weights(run):
    weights = [list(run.state[network].parameters()) for network in ("G", "D", "average")]
    torch.save(weights, f"weights{common.RANK}.pt")
    finish(run)


common.Run.finish = keep_weights
common.run_main(importlib.import_module(name).main)
