"""The study of structure prediction runs from its command line to its report, at a tiny size."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from scripts import SCRIPTS, load_script
from small_policy import TINY

from crystaljax.cli import main
from crystaljax.composition import element_counts
from crystaljax.data.dataset import load
from crystaljax.data.writers import write
from crystaljax.experiment.csp.preferences import rows_of_pairs
from crystaljax.policies.loading import load_policy
from crystaljax.tracking import read_metrics

pytestmark = pytest.mark.slow

CHAT = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|over|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
ALIKE = "--setup.train data.csv --setup.test data.csv --setup.judge= --exam.k 2"


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few crystals of two sites in the folder where scripts run; the repository is left alone."""
    pytest.importorskip("chgnet")
    monkeypatch.chdir(tmp_path)
    found = load("prototypes").crystals
    rows = np.flatnonzero((found.n_sites == 2) & np.isin(found.space_group, (221, 225)))[:4]
    write(found[rows], Path("data.csv"), {})


def run(monkeypatch: pytest.MonkeyPatch, *options: str, name: str = "csp.py") -> None:
    """The script as a user starts it, in this process."""
    load_script(name)
    monkeypatch.setattr(sys, "argv", [name, *" ".join(options).split()])
    runpy.run_path(str(SCRIPTS[name]), run_name="__main__")


def test_what_rewards_prefer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of pairs of elements with several formulas; the most stable is what the hull prefers."""
    found = load("prototypes").crystals
    write(found[rows_of_pairs(element_counts(found), 4)], Path("binary.csv"), {})
    run(monkeypatch, "--crystals binary.csv --output out", name="csp_rewards.py")
    tables = json.loads(Path("out/report.json").read_text())["tables"]
    (table,) = (x for title, x in tables.items() if title.startswith("The formula that a reward"))
    assert [row[0] for row in table[1:]] == ["total-energy", "hull", "formation", "relative"]
    assert table[2][3].startswith("100.0")  # the hull's own choice


def test_a_wyckoff_transformer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rl = "--rl.n-steps 1 --rl.batch-size 8 --rl.group-size 4"
    rl += " --setup.guards copies --exam.judged 2 --exam.relax-steps 1"
    small = f"small {ALIKE} {rl} --output out --rows substitution zero-shot model model-rl"
    run(monkeypatch, small, "--only substitution model")
    kept = Path("out/runs/model-seed0/result.json").read_text()
    run(monkeypatch, small)
    assert Path("out/runs/model-seed0/result.json").read_text() == kept
    load_policy("out/runs/model-rl-seed0/model")
    assert "guard/copies" in read_metrics(Path("out/runs/model-rl-seed0"))
    report = json.loads(Path("out/report.json").read_text())
    assert any("it takes a model, --texts.pretrained" in note for note in report["notes"])
    table = next(x for title, x in report["tables"].items() if title.startswith("Structure pred"))
    assert [row[0] for row in table] == [
        *("", "substitution", "wyckoff-mp20bt", "wyckoff-mp20bt + RL")
    ]
    # The crystals themselves are among their prototypes.
    assert dict(zip(*table[:2], strict=True))["match rate @1"].startswith("100.0")
    for name in ("matches", "rewards"):
        assert Path(f"out/{name}.png").stat().st_size > 1000
    # The kept predictions are scored alike by the command line.
    for row in ("substitution", "model"):
        predictions = f"out/runs/{row}-seed0/predictions.csv"
        judged = ["--protocol", "csp", "--truth", "data.csv", "--potential", "none"]
        main(["evaluate", predictions, *judged, "--output", f"again-{row}"])
        again = json.loads(Path(f"again-{row}/report.json").read_text())["evaluations"]
        rates = {m["name"]: m["value"] for x in again.values() for m in x["metrics"]}
        assert row == "model" or rates["match rate @1"] == 1.0
        kept = json.loads(Path(f"out/runs/{row}-seed0/result.json").read_text())["metrics"]
        of_study = {m["name"]: m["value"] for m in kept}
        for name in ("match rate @1", "match rate @2", "matching attempts", "crystal"):
            assert rates[name] == pytest.approx(of_study[name]), (row, name)
    stability = next(x for title, x in report["tables"].items() if title.startswith("Stability"))
    assert {"relaxed match rate @1", "relaxed match rate @2"} <= {*stability[0]}
    (lost,) = (x for title, x in report["tables"].items() if title.startswith("Attempts lost"))
    assert [row[0] for row in lost[1:]] == [row[0] for row in table[1:]]
    with pytest.raises(SystemExit):
        run(monkeypatch, small, "--setup.reward mine.py:f")
    assert "--reward.terms" in capsys.readouterr().err


def test_a_chat_model_as_in_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zero-shot with two examples, RL, SFT, and RL after SFT, of a checkpoint that has learnt one
    crystal by heart, all parameters, with mini-batches."""
    for name in ("tokenizers", "safetensors", "jinja2"):
        pytest.importorskip(name)
    from dataclasses import replace

    from crystaljax.text.loading import TextModelConfig, load_text_policy
    from crystaljax.text.prompts import load_template
    from crystaljax.tokenizations.registry import create_format

    salt = load("data.csv").crystals[np.zeros(3, int)]
    write(salt, Path("salt.csv"), {})
    template = load_template("csp_two_examples")
    texts = create_format("coordinates").encode(salt)
    texts += [message["content"] for message in template.messages({"formula": "NaCl"})]
    tags = ("<|user|>", "<|assistant|>", "<|over|>")
    shape = replace(TINY, max_length=2048, width=64, mlp_width=128, head_size=16)
    config = TextModelConfig(small=shape, n_vocabulary=500, added_tokens=tags)
    policy = load_text_policy(config, texts)
    policy.tokenizer.fast.add_special_tokens({"additional_special_tokens": list(tags)})
    policy.tokenizer.fast.chat_template = CHAT
    policy.save("base", policy.start)

    paper = (
        f"paper {ALIKE.replace('data', 'salt')} --setup.fsdp 1 --setup.n-parts 4"
        " --setup.sampling.max-new-tokens 120"
        " --rl.n-steps 1 --rl.batch-size 20 --rl.std-floor 0.01 --texts.sft.n-parts 1"
        " --setup.sampling.temperature 0.2 --texts.sft.batch-size 2 --exam.relax-steps 0"
        " --texts.sft.optimizer.learning-rate 0.01"
    )
    learn = "--output out --texts.pretrained base --texts.sft.n-epochs 200"
    run(monkeypatch, paper, learn, "--rows sft sft-rl")
    again = "--output again --texts.pretrained out/runs/sft-seed0/model"
    run(monkeypatch, paper, again, "--rows zero-shot rl")
    for output, rows in {"out": ("sft", "sft-rl"), "again": ("zero-shot", "rl")}.items():
        report = json.loads(Path(output, "report.json").read_text())
        assert not [note for note in report["notes"] if "not finished" in note]
        tables = report["tables"]
        (memory,) = (x for title, x in tables.items() if title.startswith("Memory of RL"))
        assert memory[-1][0] == "total"
        before, after = (Path(output, "runs", f"{row}-seed0") for row in rows)
        load_policy(after / "model")
        assert np.isfinite(read_metrics(after)["rl/loss"]).all()
        metrics = json.loads((before / "result.json").read_text())["metrics"]
        assert next(m["value"] for m in metrics if m["name"] == "crystal") > 0
