"""Sweeps that W&B takes as they are: their format, and the command lines that an agent makes."""

import dataclasses
import itertools
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripts import ROOT, SCRIPTS, options, parse

from crystaljax.data.dataset import load
from crystaljax.evaluation.evaluate import EvaluationConfig, Reference, evaluate
from crystaljax.experiment.comparison.runs import Run
from crystaljax.experiment.comparison.tables import Results
from crystaljax.experiment.comparison.variants import Variant
from crystaljax.settings import flat, plain
from crystaljax.tokenizations.registry import tokenization_names
from crystaljax.tracking import wandb_name

utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
SWEEPS = sorted((ROOT / "experiments" / "sweeps").glob("*.yaml"))
each_sweep = pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)


def loaded(path: Path) -> dict[str, Any]:
    """A sweep as `wandb sweep` reads it."""
    config = utils.load_sweep_config(str(path))
    assert config is not None
    return config


def command_lines(sweep: dict[str, Any]) -> list[list[str]]:
    """Arguments of the program for every point of a grid, as an agent gives them."""
    values = {k: x.get("values", [x.get("value")]) for k, x in sweep["parameters"].items()}
    found = []
    for point in itertools.product(*values.values()):
        args = {k: {"value": x} for k, x in zip(values, point, strict=True)}
        found.append(utils.create_sweep_command_args({"args": args})["args_no_boolean_flags"])
    return found


@each_sweep
def test_it_is_a_sweep(path: Path) -> None:
    sweep = loaded(path)
    known = {"program", "name", "description", "method", "metric", "parameters", "command"}
    assert {"program", "method", "parameters"} <= sweep.keys() <= known
    assert sweep["method"] == "grid"
    assert sweep["metric"].keys() == {"name", "goal"}
    assert sweep["metric"]["goal"] in ("maximize", "minimize")
    for name, parameter in sweep["parameters"].items():
        assert parameter.keys() in ({"value"}, {"values"}), name


@each_sweep
def test_its_parameters_are_options_of_the_script(path: Path) -> None:
    sweep = loaded(path)
    script = Path(sweep["program"])
    assert (ROOT / script) == SCRIPTS[script.name]
    assert {f"--{name}" for name in sweep["parameters"]} <= options(script.name)
    words = " ".join(sweep["command"]).split()
    preset = [word for word in words if word in ("small", "gpu", "paper")]
    lines = command_lines(sweep)
    assert len(lines) > 1
    for line in lines:
        settings = flat(plain(dataclasses.asdict(parse(script.name, [*preset, *line]))))
        for argument in line:
            name, _, value = argument.removeprefix("--").partition("=")
            path = name.replace("-", "_")
            if path not in settings:  # of the run: no prefix on the command line
                path = f"setup.{path}"
            assert str(settings[path]) in (value, f"['{value}']")


@each_sweep
def test_the_agent_s_command(path: Path, tmp_path: Path) -> None:
    """What an agent runs, with a stand-in for Python that prints its arguments."""
    sweep = loaded(path)
    (tmp_path / "python").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "python").chmod(0o755)
    (line, *_) = command_lines(sweep)
    macros = {
        "${env}": ["/usr/bin/env"],
        "${program}": [sweep["program"]],
        "${args_no_boolean_flags}": line,
    }
    words = utils.create_sweep_command(sweep["command"])
    command = [part for word in words for part in macros.get(word, [word])]
    assert not any("${" in word for word in command)
    path_variable = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    environment = {"PATH": path_variable, "WANDB_RUN_ID": "abc123"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    program, *given = done.stdout.splitlines()
    assert program == sweep["program"]
    assert set(line) <= set(given)
    parse(Path(program).name, given)


def test_the_metric_of_ppo_is_one_that_quickstart_logs() -> None:
    crystals = load("prototypes").crystals[:2]
    reference = Reference.of(crystals, "some")
    config = EvaluationConfig(progress=False)
    found = evaluate(crystals, reference, e_above_hull=np.zeros(2), config=config)
    names = {wandb_name("after PPO", metric.name) for metric in found.metrics}
    (sweep,) = [loaded(path) for path in SWEEPS if path.stem == "ppo"]
    assert sweep["metric"]["name"] in names
    assert '"after PPO"' in (ROOT / sweep["program"]).read_text()


def test_the_sweep_over_tokenizations_has_all_and_the_metric_is_logged() -> None:
    sweep = loaded(ROOT / "experiments" / "sweeps" / "tokenizations.yaml")
    assert set(sweep["parameters"]["tokenizations"]["values"]) == set(tokenization_names())
    variant = Variant("wyckoff")
    found = {Run(variant, "train", seed): {"nll": 10.0 + seed} for seed in (0, 1)}
    assert Results([variant], [0, 1], found).headline == {sweep["metric"]["name"]: 10.5}
    assert Results([variant, Variant("cif")], [0, 1], found).headline == {}
