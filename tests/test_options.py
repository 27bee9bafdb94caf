"""Any combination of options, sensible or not: a complete run, or a message and exit code 2."""

import contextlib
import importlib
import io
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest
from conftest import ARCHS, HERE
from test_runs import FILES

import common

pytest.importorskip("hypothesis", reason="pip install hypothesis")
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.slow

number = st.one_of(
    st.integers(1, 40).map(str),
    st.sampled_from(["0.3", "1", "2", "-1"]),
    st.floats().map(str),
    st.sampled_from(["", "0", "1e-3", "-0.0", "1e400", "10" * 30, "five", "\N{SUPERSCRIPT TWO}"]),
)
RUN = {
    "--epochs": st.sampled_from(["1", "2", "0", "-5", "1.5", "many"]),
    "--batch-size": st.one_of(st.sampled_from(["4", "16"]), number),
    "--lr": number,
    "--z-dim": st.one_of(st.sampled_from(["1", "100"]), number),
    "--seed": number,
    "--sample-every": number,
    "--device": st.sampled_from(["cpu", "auto", "tpu", "cuda:7", "", "cpu:0"]),
    "--dataset": st.sampled_from(["fashion-mnist", "mnist", "other"]),
    "--out": st.sampled_from(["new", "new/below", "full", "full/file", "/proc/no", "."]),
    "--resume": st.sampled_from(["", "full", "nowhere"]),
    "--dry-run": st.none(),
    "--ema": number,
    "--bf16": st.none(),
    "--no-bf16": st.none(),
}
OPTIONS = {script: dict(RUN) for script in ARCHS}
for script, archs in ARCHS.items():
    OPTIONS[script]["--arch"] = st.sampled_from([*archs, "none"])
    OPTIONS[script] |= (
        {"--clip": number, "--n-critic": st.sampled_from(["1", "2", "0", "99"]), "--gp": number}
        if script == "wgan"
        else {"--beta1": number, "--r1": number}
    )
OPTIONS["gan_mlp"]["--beta2"] = number
several = st.lists(number, max_size=3).map(" ".join)
OPTIONS["perturb"] = {
    "--ckpt": st.sampled_from(["g.pt", "full", "full/g.pt", "full/file", "nowhere.pt", ""]),
    "--positions": several,
    "--values": several,
    "--scale": several,
    "--seed": several,
    "--samples": number,
    "--interpolate": number,
    "--add": st.none(),
    "--out": st.sampled_from(["new/figure.png", "figure.jpg", "full/g.pt", "/proc/no.png"]),
}


@st.composite
def command_line(draw, script):
    """Up to three of a script's options, each with some value, after those that keep it small."""
    names = draw(st.lists(st.sampled_from(sorted(OPTIONS[script])), max_size=3, unique=True))
    words = ["--batch-size", "4", "--epochs", "1", "--device", "cpu"]
    if script == "perturb":
        words = ["--ckpt", "full/g.pt"]
    for name in names:
        value = draw(OPTIONS[script][name])
        words += [name] if value is None else [name, *value.split(" ")]
    return words


def type_in(script, *words):
    """The same as the fixture of that name, which hypothesis cannot call again and again."""
    module, out, err, code = importlib.import_module(script), io.BytesIO(), io.StringIO(), 0
    sys.argv = [str(HERE / f"{script}.py"), *words]
    stdout = io.TextIOWrapper(out, "utf-8")
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(err):
        try:
            common.run(module.main)
        except SystemExit as exit:
            code = exit.code
    stdout.flush()
    return code, out.getvalue().decode(), err.getvalue()


@pytest.mark.parametrize("script", OPTIONS)
def test_any_command_line(script, home, monkeypatch):
    monkeypatch.setattr(common, "DATA", Path("../data").resolve())
    monkeypatch.setattr(sys, "argv", [])
    before = signal.getsignal(signal.SIGTERM)
    kept = "gan_mlp" if script == "perturb" else script
    small = ["--batch-size", "4", "--dry-run", "--data-dir", "../data"]
    assert type_in(kept, *small)[0] == 0
    Path("runs", f"{kept}-dry-run").rename("kept")

    @settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @given(command_line(script))
    def check(words):
        for folder in ("new", "full", "runs"):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree("kept", "full")
        Path("full", "file").write_text("some text")
        code, out, err = type_in(script, *words)
        assert code in (0, 2), (words, out, err)
        assert "Traceback" not in err
        if code:
            assert not Path("runs").exists() or "infinite" in err, words
            return
        complete.append(words)
        if script == "perturb":
            assert list(Path().rglob("*.csv")), words
        else:
            (folder,) = re.findall("finished: (.+)", out)
            assert all((Path(folder) / name).exists() for name in FILES), words

    complete = []
    check()
    assert len(complete) >= 5  # or this test would be about mistakes alone
    print(f"{script}: {len(complete)} of the runs were complete")
    signal.signal(signal.SIGTERM, before)
