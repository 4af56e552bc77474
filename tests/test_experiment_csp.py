"""A study of structure prediction: what is asked, what cannot be, results over seeds, memory."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from scripts import load_script, parse
from small import SMALL
from table_policy import TablePolicy

from crystaljax.composition import formulas
from crystaljax.conditions import Condition
from crystaljax.data.dataset import load
from crystaljax.data.writers import write
from crystaljax.evaluation.attempts import Known
from crystaljax.evaluation.rates import Measure, Rate
from crystaljax.experiment.csp.preferences import (
    example_table,
    preference_table,
    rows_of_pairs,
    systems_of,
)
from crystaljax.experiment.csp.questions import (
    Questions,
    formulas_asked,
    propose,
    read_questions,
    refused,
)
from crystaljax.experiment.csp.resources import TuningMemory
from crystaljax.experiment.csp.results import all_tables, figures_of, gains, headline, lines_of
from crystaljax.experiment.csp.setup import CSPSetup, ExamConfig, RowName, TextRowsConfig
from crystaljax.experiment.csp.study import Arm, Study, arms_of
from crystaljax.experiment.run_results import write_result
from crystaljax.policies.base import Rollout, SamplingConfig
from crystaljax.policies.wyckoff import WyckoffPolicy
from crystaljax.rewards.prediction import PredictionRewardConfig
from crystaljax.symmetry.orbits import n_atoms
from crystaljax.text.prompts import load_template
from crystaljax.tokenizations.registry import create_format
from crystaljax.tracking import wandb_name
from crystaljax.training.optimizer import fine_tuning
from crystaljax.training.reinforce import ReinforceConfig


def test_formulas_are_asked_with_their_units(tmp_path: Path) -> None:
    data = load("prototypes").crystals
    rutile = data[np.flatnonzero((data.space_group == 136) & (data.n_sites == 2))[:1]]
    two = np.asarray(n_atoms(data, primitive=True)) == 2
    salt = data[np.flatnonzero((data.space_group == 225) & two)[:1]]
    both = type(data).concatenate([rutile, salt, salt])
    names = formulas(both)
    asked = formulas_asked(both)
    assert set(asked) == {
        Condition(formula=names[0], formula_units=2),  # rutile: two formula units
        Condition(formula=names[1], formula_units=1),
    }
    assert {x.formula_units for x in formulas_asked(both, fixed_units=False)} == {None}
    assert len(formulas_asked(both, n=1, seed=3)) == 1
    assert [x.formula for x in formulas_asked(both, max_atoms=3)] == [names[1]]
    with pytest.raises(ValueError, match="none of 3 crystals has at most 1 atoms"):
        formulas_asked(both, max_atoms=1)
    write(both, tmp_path / "test.csv", {"material_id": np.array(["a", "b", "c"])})
    truth, conditions, max_atoms = read_questions(str(tmp_path / "test.csv"))
    assert max_atoms == 6  # rutile
    assert sorted(truth.ids) == ["a", "b", "c"]
    for name, condition in zip(truth.ids, conditions, strict=True):
        assert condition.formula == names["abc".index(name)]
        assert condition.formula_units == (2 if name == "a" else 1)
    assert len(read_questions(str(tmp_path / "test.csv"), n=2).truth) == 2


def test_formulas_that_a_model_cannot_be_asked_are_told() -> None:
    """One that no space group holds on 6 sites, and a property, beside one that goes."""
    policy = WyckoffPolicy(SMALL, load("prototypes").space_group_counts)
    conditions = [
        Condition(formula="LiNaKRbCsCaSr", formula_units=1),
        Condition(formula="NaCl", formula_units=1),
        Condition(formula="NaCl", properties={"band_gap": 1.0}),
    ]
    why = refused(policy, conditions, SamplingConfig())
    assert why[1] is None and why[0] and why[2] and "band_gap" in why[2]


def test_what_cannot_be_asked_costs_itself_alone() -> None:
    policy = TablePolicy()
    params, sampling = policy.init(0), SamplingConfig()
    salt = Condition(elements=("Na", "K", "Cl", "Br"))
    conditions = [Condition(formula="NaCl"), salt, Condition(formula="KBr"), salt]
    found = propose(policy, params, conditions, 2, 0, sampling)
    refusal = "the table cannot be asked for formula"
    assert found.reasons == [refusal, refusal, None, None] * 2
    assert found.not_asked == 2 and found.dead_ends == 0
    alone = policy.sample(params, [salt, salt], 0, sampling, 2).crystals
    asked = [2, 3, 6, 7]
    np.testing.assert_array_equal(found.crystals.species[asked], alone.species)
    assert not np.delete(np.asarray(found.crystals.space_group), asked).any()
    with pytest.raises(ValueError, match="asked for none of 1 formulas; of the first: the table"):
        propose(policy, params, conditions[:1], 2, 0, sampling)
    with pytest.raises(ValueError, match="no formula is asked for"):
        propose(policy, params, [], 2, 0, sampling)


def test_attempts_have_prompts_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The space groups that a Wyckoff transformer draws are not one for all attempts."""
    policy, drawn = WyckoffPolicy(SMALL, load("prototypes").space_group_counts), []

    def sample(*arguments: Any) -> Rollout:
        drawn.append(replace(WyckoffPolicy.sample(policy, *arguments), dead_ends=3))
        return drawn[0]

    monkeypatch.setattr(policy, "sample", sample)
    asked = [Condition(formula="NaCl", formula_units=1)]
    found = propose(policy, policy.init(0), asked, 40, 0, SamplingConfig(batch_size=40))
    assert found.dead_ends == 3 and found.not_asked == 0
    assert len(set(drawn[0].prompt.tolist())) > 5


def test_the_examples_of_the_prompt_are_rock_salt_and_rutile() -> None:
    template = load_template("csp_two_examples")
    (message,) = template.messages({"formula": "CaPd2"})
    text = message["content"]
    assert text.count("CaPd2") == 2
    texts = [part.split(":\n", 1)[1].split("\n\n")[0] for part in text.split("Example ")[1:]]
    decoded = create_format("coordinates").decode(texts)
    assert decoded.ok.all() and decoded.crystals.space_group.tolist() == [225, 136]
    assert formulas(decoded.crystals) == ["NaCl", "TiO2"]
    assert create_format("coordinates").encode(decoded.crystals)[0] == texts[0]


def test_rows_and_settings_by_name() -> None:
    arms = arms_of(["substitution", "model"], (0, 1))
    assert [arm.name for arm in arms] == ["substitution-seed0", "model-seed0", "model-seed1"]
    with pytest.raises(ValueError, match=r"does not take --setup.reward.*--reward.terms"):
        CSPSetup(reward="mine.py:function")
    refused_names = ("reward", "condition", "metrics", "reference")
    for config in (PredictionRewardConfig, TextRowsConfig, ExamConfig):  # their help
        assert not [x for x in refused_names if f"--setup.{x}" in inspect.getsource(config)]


RELAXED = ("@1", "@2", "@1 (formula-disjoint)", "@2 (formula-disjoint)")


def finish(arm: Any, output: Path, count: int) -> None:
    """The files of a finished run."""
    metrics = [
        *(Rate(f"relaxed match rate {x}", count, 10, "x") for x in RELAXED),
        Rate("match rate @1", count, 10, "x"),
        Rate("match rate @2", 2 * count, 10, "x"),
        Rate("match rate @1 (formula-disjoint)", 1, 5, "x"),
        Measure("matching attempts", 10.0 * count, 2.0, "%", 10, "x"),
        Measure("structure diversity", 9.0 + count, 0.5, "σ of x", 10, "x"),
        Rate("crystal", 18, 20, "x"),
        Rate("metastable as asked", count, 10, "x"),
        Measure("median energy above hull", 0.1 * count, 0.01, "eV/atom", 9, "x"),
    ]
    folder = arm.folder(output)
    result = {"metrics": [x.to_dict() for x in metrics], "n": 20, "lost": 2 + count}
    result |= {"reasons": {"no text": count, "too long": 2}, "not_asked": 1, "dead_ends": count}
    write_result(folder / "result.json", result)
    lines = [{"step": step, "reward/mean": 0.1 * step} for step in (1, 2)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))


def test_results_over_seeds(tmp_path: Path) -> None:
    rows: list[RowName] = ["substitution", "rl", "model", "model-rl"]
    arms = arms_of(rows, (0, 1, 2))
    for arm in arms:
        if arm.row not in ("rl",) and (arm.row, arm.seed) != ("model", 2):
            arm.folder(tmp_path).mkdir(parents=True)
            finish(arm, tmp_path, 1 + arm.seed)
    every = lines_of(rows, {"model": "mine", "model-rl": "mine + RL"}, arms, tmp_path)
    assert [x for line in every for x in line.missing] == [
        *(
            f"rl-seed{seed} is not finished (it takes a model, --texts.pretrained)."
            for seed in range(3)
        ),
        "model-seed2 is not finished.",
    ]
    lines = [line for line in every if line.results]
    one, two, three = (line.number("match rate @1") for line in lines)
    assert one and one.standard_error == Rate("", 1, 10, "").standard_error  # Wilson's
    # Over seeds: 1, 2 and 3 of the same 10 crystals, of which one seed tells as much as several.
    of_one = [Rate("", count, 10, "").standard_error for count in (1, 2, 3)]
    assert two and two.value == pytest.approx(0.15)
    assert two.standard_error == pytest.approx(np.mean(of_one[:2]))
    assert three and three.standard_error == pytest.approx(np.mean(of_one))
    rate = f"20.0 ± {100 * np.mean(of_one):.1f} %"
    matches, stability, validity, variety, lost = all_tables(lines, ExamConfig(k=2))
    assert matches.rows[0][1:] == [
        "match rate @1",
        "match rate @2",
        "match rate @1 (formula-disjoint)",
        "matching attempts",
    ]
    assert matches.rows[2][-1] == f"15.0 ± {stats.sem([10, 20]):.1f} %"
    assert matches.rows[3][:2] == ["mine + RL", rate]
    assert stability.rows[0][2] == "median energy above hull (eV/atom)"
    assert stability.rows[3][1:] == [rate, "0.200 ± 0.058"]
    assert validity.rows[0] == ["", "crystal"] and validity.rows[1][1].startswith("90.0")
    assert variety.rows[0] == ["", "structure diversity (σ of x)"]
    assert variety.rows[2][1] == "10.500 ± 0.500"
    assert lost.rows[0][1:4] == ["attempts lost", "formulas not asked", "dead ends"]
    assert lost.rows[1][1:] == ["3 of 20", "1", "1", "2 × too long; 1 × no text"]
    assert lost.rows[3][1:] == ["12 of 60", "3", "6", "6 × no text; 6 × too long"]
    for judged, names in ((1, RELAXED[::2]), (2, RELAXED), (5, RELAXED)):
        exam = ExamConfig(k=2, judged=judged, relax_steps=9)
        header = all_tables(lines, exam)[1].rows[0]
        assert [x for x in header if x.startswith("relaxed")] == [
            f"relaxed match rate {x}" for x in names
        ]
    assert set(figures_of(lines, 2)) == {"matches", "rewards"}
    best = headline(lines, 2)
    assert best[wandb_name("model-rl", "match rate @1")] == pytest.approx(0.2)


def test_changes_by_rl_are_of_the_same_test_crystals(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arms = arms_of(["model", "model-rl"], (0, 1))
    matched = {arm: 100.0 * rng.integers(0, 2, 30) for arm in arms}
    for arm in arms:
        found = {"metrics": [], "percent_by_test_crystal": {"match rate @1": matched[arm].tolist()}}
        write_result(arm.folder(tmp_path) / "result.json", found)

    def row(seeds: tuple[int, ...]) -> list[str]:
        some = [arm for arm in arms if arm.seed in seeds]
        (table,) = gains(lines_of(["model", "model-rl"], {}, some, tmp_path))
        assert table.rows[0][1:] == ["match rate @1"]
        return list(table.rows[1])

    before, after = (matched[Arm(row, 0)] for row in ("model", "model-rl"))
    t = stats.ttest_rel(after, before)
    error = (after - before).mean() / t.statistic
    assert row((0,)) == ["model-rl", f"{(after - before).mean():+.1f} ± {error:.1f}"]
    changes = np.array([matched[Arm("model-rl", i)] - matched[Arm("model", i)] for i in (0, 1)])
    error = max(stats.sem(changes.mean(axis=0)), stats.sem(changes.mean(axis=1)))
    assert row((0, 1)) == ["model-rl", f"{changes.mean():+.1f} ± {error:.1f}"]
    assert gains(lines_of(["model-rl"], {}, arms[1:2], tmp_path)) == []


def test_seeds_that_happen_to_agree_do_not_hide_the_error_of_few_crystals(tmp_path: Path) -> None:
    """Three seeds with the same changes tell of the test crystals what one does."""
    arms = arms_of(["model", "model-rl"], (0, 1, 2))
    after = 100.0 * np.arange(20) % 3
    for arm in arms:
        values = after if arm.row == "model-rl" else np.zeros(20)
        found = {"metrics": [], "percent_by_test_crystal": {"match rate @1": values.tolist()}}
        write_result(arm.folder(tmp_path) / "result.json", found)
    (table,) = gains(lines_of(["model", "model-rl"], {}, arms, tmp_path))
    assert table.rows[1][1] == f"{after.mean():+.1f} ± {stats.sem(after):.1f}"


@pytest.mark.parametrize(("given", "expected"), [(0, 44), (7, 7)])
def test_random_search_fits_the_largest_test_cell(given: int, expected: int) -> None:
    pytest.importorskip("pyxtal")
    questions = Questions(Known("test", [], []), [], 44)
    study: Any = SimpleNamespace(setup=CSPSetup(max_atoms=given), questions=questions)
    search: Any = Study._baseline(study, "random")
    assert search.max_atoms == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--setup.n-parts 3", "rl: batch_size 80 cannot be split into n_parts 3"),
        ("--texts.sft.n-parts 7", "texts.sft: batch_size"),
    ],
)
def test_batches_that_cannot_be_split_are_refused(
    given: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse("csp.py", ["small", *given.split()])
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())


@pytest.mark.slow
def test_memory_of_full_fine_tuning_by_hand() -> None:
    """7.6 billion parameters: 2 + 4 + 2 + 8 + 4 + 2 bytes each, shared; one GPU has not enough."""
    pytest.importorskip("safetensors")
    presets = load_script("csp.py").PRESETS
    config = presets["paper"][1]
    from qwen_shape import QWEN_7B

    from crystaljax.models.llm.config import LlmConfig

    sampled = config.setup.sampling.batch_size
    memory = TuningMemory(QWEN_7B, config.rl, config.setup.n_parts, 2048, sampled)
    parameters = 7_615_616_512  # of Qwen2.5-7B's card: 7.61 billion
    found = memory.per_device(8)
    for name, size in {
        "reference": 2,
        "float32 copy of trained": 4,
        "working copy of trained": 2,
        "gradients": 4 + 2,
        "optimiser": 8,
    }.items():
        assert found[name] == pytest.approx(size * parameters / 8, rel=1e-3), name
    # Keys and values of 28 layers, 4 heads of 128, bfloat16, 128 sequences of 2,048 a device.
    assert found["keys and values"] == pytest.approx(2 * 2 * 28 * 4 * 128 * 2048 * 128, rel=0.01)
    assert memory.per_device(1)["total"] > 167e9
    n = memory.devices()
    assert n and memory.per_device(n)["total"] <= 72e9 < memory.per_device(n // 2)["total"]
    small = ReinforceConfig(algorithm="grpo", batch_size=80, optimizer=fine_tuning())
    assert TuningMemory(LlmConfig(), small, 1, 256, 80, "float32").devices() == 1
    assert f"needed: {n}" in memory.table(8).caption


def test_the_total_energy_prefers_the_element_of_lower_energy() -> None:
    """A made-up system by hand: W at −13 and Na at −1.3 eV/atom, of which NaW alone is stable."""
    references = np.zeros(119)
    references[[11, 74]] = -1.3, -13.0
    counts = np.zeros((5, 119), int)
    counts[:, 11], counts[:, 74] = [1, 1, 2, 4, 1], [1, 2, 1, 2, 0]
    other = np.zeros((2, 119), int)  # of one formula
    other[:, [12, 8]] = [[1, 1], [2, 2]]
    assert sorted(rows_of_pairs(np.concatenate([counts, other]), 5)) == [0, 1, 2, 3]
    formation = np.array([-0.5, -0.1, -0.2, -0.1, 0.0])
    total = counts @ references / counts.sum(axis=1) + formation
    hull = np.array([0.0, 0.233, 0.133, 0.233, 0.0])
    relative = np.array([0.0, 0.0, 0.0, 0.1, 0.0])
    energies = {"total-energy": total, "hull": hull, "formation": formation, "relative": relative}
    (system,) = systems_of(counts, energies, references)
    assert system.elements == (74, 11) and system.formulas == ["NaW", "NaW2", "Na2W"]
    np.testing.assert_allclose(system.share, [1 / 2, 2 / 3, 1 / 3])
    np.testing.assert_allclose(system.energies["formation"], [-0.5, -0.1, -0.2])  # not −0.1
    found = {name: system.preferred(name).tolist() for name in energies}
    assert found == {
        "total-energy": [0, 1, 0],
        "hull": [1, 0, 0],
        "formation": [1, 0, 0],
        "relative": [pytest.approx(1 / 3)] * 3,
    }
    table = preference_table([system, system])
    assert table.rows[1][1:] == ["100.0 ± 0.0 %"] * 2 + ["0.0 ± 0.0 %", "0.233 ± 0.000"]
    assert table.rows[2][1:] == ["0.0 ± 0.0 %"] * 2 + ["100.0 ± 0.0 %", "0.000 ± 0.000"]
    assert table.rows[4][1].startswith("33.3") and table.rows[4][4].startswith("0.122")
    assert example_table([system]).rows[1][1:] == [
        *("NaW NaW2 Na2W", "NaW2", "NaW", "NaW", "any", "0.233")
    ]
