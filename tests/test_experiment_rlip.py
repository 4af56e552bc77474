"""Variants of RLIP, their results over seeds, and what is drawn of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import sem
from scripts import parse
from table_policy import table_crystals

from crystaljax.conditions import Condition
from crystaljax.data.dataset import load
from crystaljax.evaluation.rates import Rate
from crystaljax.experiment.rlip import tables
from crystaljax.experiment.rlip.figures import (
    composition_features,
    composition_map,
    figures_of,
    principal_components,
    space_group_series,
)
from crystaljax.experiment.rlip.results import lines_of, over
from crystaljax.experiment.rlip.samples import Samples
from crystaljax.experiment.rlip.study import (
    CURVE,
    Arm,
    ExamConfig,
    RlipSetup,
    Study,
    models_of,
)
from crystaljax.experiment.rlip.variants import (
    BASE,
    FLAGSHIP,
    PANELS,
    VARIANTS,
    VariantName,
    check_variants,
)
from crystaljax.experiment.run_results import write_result
from crystaljax.policies.base import SamplingConfig
from crystaljax.policies.loading import read_metadata
from crystaljax.settings import flat, plain
from crystaljax.training.iteration_files import Iteration
from crystaljax.training.rlip import RlipConfig
from crystaljax.training.tiers import KINDS, UNKNOWN, UNSTABLE

MODELS = [Path("one"), Path("other")]
EXAM = ExamConfig(groups=(225, 1), unseen_groups=(62,))


def test_variants_change_what_they_say_and_nothing_else() -> None:
    config = RlipConfig(n_iterations=3)
    assert set(VARIANTS) == set(get_args(VariantName))
    flagship = flat(plain(asdict(config)))
    for name, variant in VARIANTS.items():
        changed = flat(plain(asdict(variant.of(config, seed=5))))
        different = {key for key, value in changed.items() if flagship[key] != value}
        assert different - {"seed"} <= set(variant.changes)
        assert different - {"seed"} or name in (FLAGSHIP, "temperature-0.2")
        assert changed["seed"] == 5 and variant.panel in PANELS


def test_a_language_model_is_the_default() -> None:
    """As PLaID++ has it, and with the learning rate of the presets."""
    assert read_metadata(Path(RlipSetup().model)).format == "wyckoff-text"


def test_variants_that_cannot_be_trained_are_named() -> None:
    config = RlipConfig(n_per_group=0)

    def check(*names: VariantName, condition: Condition | None = None) -> None:
        check_variants(names, config, condition or Condition(), SamplingConfig())

    check("joint", "unconditional", condition=Condition(space_group=225))
    with pytest.raises(ValueError, match="the variant conditional cannot be trained: no samples"):
        check("joint", "conditional")
    cold = replace(config, temperature_step=-0.6)
    with pytest.raises(ValueError, match=r"joint .* iteration 5 .* --variants"):
        check_variants(["constant-temperature", "joint"], cold, Condition(), SamplingConfig())


@pytest.mark.parametrize(
    ("preset", "given", "message"),
    [
        ("small", "--rlip.n-per-group 0", "the variant conditional cannot be trained: no samples"),
        ("small", "--rlip.groups", "the variant conditional cannot be trained: no samples"),
        ("ablations", "--rlip.n-unconditional 0", "the variant unconditional cannot be trained"),
        ("small", "--setup.n-parts 3", "cannot be split"),
        ("small", "--setup.condition.space-group 225", "leave it out"),
        ("small", "--rlip.temperature-step -0.5", "would sample at temperature -0.3"),
        ("small", "--exam.groups 62", "in which RLIP draws no samples"),
    ],
)
def test_mistakes_are_told_before_anything_is_computed(
    preset: str, given: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse("plaid.py", [preset, *given.split()])
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())


class Refusing:
    """A bench whose model cannot be asked for two things at once."""

    def __init__(self, setup: RlipSetup) -> None:
        self.policy = self

    def __enter__(self) -> Refusing:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def check(self, conditions: Sequence[Condition], sampling: SamplingConfig) -> None:
        for condition in conditions:
            if len(condition.asked) > 1:
                raise ValueError(f"no template has {', '.join(sorted(condition.asked))}")


@pytest.mark.parametrize("exam", [ExamConfig(), ExamConfig(unseen_groups=())])
def test_what_a_model_cannot_be_asked_for_is_told_before_the_base_is_evaluated(
    exam: ExamConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once of the evaluation, once of training alone."""
    monkeypatch.setattr("crystaljax.experiment.rlip.study.Bench", Refusing)
    setup = RlipSetup(model=MODELS[0], condition=Condition(formula="NaCl"))
    experiment: Any = SimpleNamespace(folder=tmp_path)
    study = Study(experiment, setup, RlipConfig(), exam)
    with pytest.raises(ValueError, match="no template has formula, space_group"):
        study.work({MODELS[0]: [Arm(MODELS[0], BASE, 0), Arm(MODELS[0], FLAGSHIP, 0)]})
    assert not list(tmp_path.iterdir())


def test_space_groups_of_the_evaluation_are_those_of_rlip() -> None:
    config = RlipConfig(groups=(225, 1))
    found = ExamConfig().of(config)
    assert found.groups == (225, 1) and 225 not in found.unseen_groups
    assert found.unseen_groups == (2, 14, 62, 139, 166)
    assert ExamConfig(groups=(1,)).of(config).groups == (1,)
    assert found.of(config) == found
    with pytest.raises(ValueError, match=r"62, in which RLIP draws no samples: .*unseen-groups"):
        ExamConfig(groups=(225, 62)).of(config)
    none = ExamConfig().of(replace(config, n_per_group=0))
    assert none.groups == () and 225 in none.unseen_groups


@pytest.mark.parametrize("guard", ["seen-compositions", "seen-structures:3", "copies"])
def test_discounts_are_refused(guard: str) -> None:
    RlipSetup(guards=("sparse-hull", "too-good:0.2"))
    with pytest.raises(ValueError, match=f"{guard} discounts rewards.*--rlip.distinct"):
        RlipSetup(guards=("sparse-hull", guard))


def test_models_have_names_of_their_own() -> None:
    shipped = Path(__file__).parents[1] / "checkpoints" / "wyckoff-mp20bt"
    assert models_of(Path("a/x"), [shipped, Path("a/x")]) == [Path("a/x"), shipped]
    with pytest.raises(FileNotFoundError, match="no model in b/y"):
        models_of(Path("a/x"), [Path("b/y")])
    with pytest.raises(ValueError, match="the same name"):
        models_of(Path("a/x"), [Path("b/x")])


def finish(arm: Arm, output: Path, sun: int) -> None:
    """The files of a finished run, of 10 samples."""
    found = {"S.U.N.": sun, "metastable S.U.N.": sun + 1, "stable": 4, "decoded": 8}
    found["believable metastable S.U.N."] = sun - 1
    rates = [Rate(name, n, 10, "x").to_dict() for name, n in found.items()]
    group = {"S.S.U.N.": 2, "believable S.S.U.N.": 1, "space group met": 3}

    def by_group(groups: tuple[int, ...]) -> dict[str, Any]:
        return {k: [Rate(k, n, 4, "x").to_dict() for _ in groups] for k, n in group.items()}

    result = {
        "metrics": rates,
        "seconds_per_sample": 0.5,
        "context": ["10 samples", "a hull"],
        "groups": by_group(EXAM.groups),
        "unseen_groups": by_group(EXAM.unseen_groups),
    }
    folder = arm.folder(output)
    write_result(folder / "result.json", result)
    of_model = {"notes": ["a note"], "resources": [{"caption": "GB", "rows": [["", "GB"]]}]}
    write_result(folder.parent / "about.json", of_model)
    crystals = load("prototypes").crystals[np.arange(10)].to_numpy()
    Samples(crystals, np.zeros(10), np.arange(10) < sun).save(folder / "samples.npz")
    if arm.variant == BASE:
        return
    write_result(folder / CURVE / "0001.json", {"metrics": [Rate("S.U.N.", 1, 5, "x").to_dict()]})
    lines = [{"step": step, "seconds/reward": 45.0} for step in (1, 2)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text)
    none, every = np.zeros(10, int), np.arange(10)
    for number in range(2):
        Iteration(
            *(number, 0.7, crystals, 225 * (every < 5), none, none, np.zeros(10)),
            *(np.where(every < 3, "no energy", ""), np.where(every < 3, UNKNOWN, UNSTABLE)),
            *(none > 0, every, np.array([[0, 1]]), none[:1]),
        ).save(folder)


def test_results_over_seeds(tmp_path: Path) -> None:
    variants = {MODELS[0]: (BASE, FLAGSHIP, "sft"), MODELS[1]: (FLAGSHIP,)}
    lines = lines_of(MODELS, variants, (0, 1), tmp_path)
    assert [line.label for line in lines] == ["base", "joint", "iterated SFT", "other"]
    for line in lines:
        for arm in line.arms:
            if (line.label, arm.seed) != ("iterated SFT", 1):
                finish(arm, tmp_path, sun=2 + arm.seed)
    lines = lines_of(MODELS, variants, (0, 1), tmp_path)
    base, joint, sft, other = lines
    rate = joint.rate("S.U.N.")
    assert rate is not None and (rate.count, rate.total) == (5, 20)
    assert {k: x.fraction for k, x in joint.curve("S.U.N.").items()} == {1: "2 / 10", 2: "5 / 20"}
    assert {k: x.fraction for k, x in base.curve("S.U.N.").items()} == {0: "5 / 20"}
    assert [x.fraction for x in joint.groups("groups", "S.S.U.N.")] == ["4 / 8", "4 / 8"]
    assert sft.unfinished == ["one/sft-seed1 is not finished."] and not other.unfinished
    assert list(joint.lacks())[:5] == [
        "one/joint-seed0, iteration 1, 2: none of the 5 samples drawn freely is stable.",
        "one/joint-seed0, iteration 1, 2: none of the 5 samples drawn freely is metastable.",
        "one/joint-seed0, iteration 1, 2: none of the 5 samples asked for a space group is stable.",
        "one/joint-seed0, iteration 1, 2: none of the 5 samples asked for a space group is"
        " metastable.",
        "one/joint-seed0, iteration 1, 2: none of the 5 samples asked for space group 225 has it.",
    ]
    assert list(joint.lacks())[5:7] == [
        "one/joint-seed0: 6 of 20 samples could not be judged; most frequent reasons:"
        " 6 × no energy.",
        "one/joint-seed1, iteration 1, 2: none of the 5 samples drawn freely is stable.",
    ]
    assert len(list(joint.lacks())) == 12 and not list(base.lacks())

    assert joint.origins == ["a note", "10 samples", "a hull"]
    first, valid, seeds, *rest = tables.all_tables(lines, EXAM)
    row = dict(zip(first.rows[0], first.rows[2], strict=True))
    assert row["S.U.N. per minute"] == "30.0" and row["S.U.N. / stable"].startswith("62.5")
    row = dict(zip(valid.rows[0], valid.rows[2], strict=True))
    assert row["S.U.N."].startswith("31.2")  # 5 of 16
    assert seeds.rows[2][1:] == ["20.0 %", "30.0 %", "30.0 %", "40.0 %", "10.0 %", "20.0 %"]
    assert seeds.rows[3][1:] == ["20.0 %", "–", "30.0 %", "–", "10.0 %", "–"]
    assert seeds.rows[0][5] == "believable metastable S.U.N., seed 0"
    *groups, by_iteration, times, gigabytes = rest
    assert [table.caption for table in groups] == [
        f"{name} in space groups that RLIP was {which}"
        for which in ("asked for", "not asked for")
        for name in ("S.S.U.N.", "believable S.S.U.N.", "space group met")
    ]
    assert [table.rows[2][1][:4] for table in groups[:3]] == ["50.0", "25.0", "75.0"]
    last = dict(zip(by_iteration.rows[0], by_iteration.rows[2], strict=True))
    assert last["believable metastable S.U.N."].startswith("15.0")  # 3 of 20
    assert gigabytes.caption == "GB"
    minutes = dict(zip(times.rows[0], times.rows[2], strict=True))
    assert minutes == {"": "joint", "reward": "1.50", "all": "1.50", "1,000 samples": "8.33"}
    assert tables.headline(lines) == {"SUN": 0.25, "metastable_SUN": 0.35}

    reference = load("prototypes").crystals
    drawn = figures_of(lines, reference, EXAM.groups, EXAM.unseen_groups)
    assert set(drawn) == {
        *("iterations_training", "iterations_models", "groups_ssun", "unseen_groups_ssun"),
        *("unseen_groups_met", "space_groups", "compositions", "energies"),
    }
    assert figures_of([], reference, (), ()) == {}


def test_space_groups_that_are_found_are_drawn() -> None:
    """Rock salt with one element on both sites is simple cubic; its text may say otherwise."""
    crystals = table_crystals()[np.array([0, 2])]
    assert set(np.asarray(crystals.space_group)) == {225}
    drawn = space_group_series(crystals, {"model": crystals.padded(3)})
    assert np.flatnonzero(drawn["training"]) + 1 == [225]
    np.testing.assert_allclose(drawn["model"][[220, 224]], [0.5, 0.5])


def test_a_damaged_result_is_told(tmp_path: Path) -> None:
    arm = Arm(MODELS[0], BASE, 0)
    finish(arm, tmp_path, 1)
    (arm.folder(tmp_path) / "result.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        arm.result(tmp_path)


def test_shares_of_shares() -> None:
    sun, stable = Rate("S.U.N.", 2, 10, "x"), Rate("stable", 4, 10, "x")
    found = over(sun, stable, "stable samples")
    assert found is not None and found.fraction == "2 / 4"
    seeds = [replace(x, runs=((a, 10), (b, 10))) for x, a, b in ((sun, 1, 3), (stable, 4, 4))]
    shares = over(*seeds, "stable samples")
    assert shares and shares.standard_error == pytest.approx(sem([1 / 4, 3 / 4]))
    assert over(None, stable, "") is None and over(sun, None, "") is None


@given(st.integers(3, 30), st.integers(2, 6), st.integers(0, 5))
def test_principal_components_are_those_of_a_singular_value_decomposition(
    n: int, d: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, d)) * np.arange(1, d + 1) + 3
    (first, second), explained = principal_components([rows[:2], rows[2:]])
    u, s, _ = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    expected = (u * s)[:, :2]
    found = np.concatenate([first, second])
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found, signs * expected, atol=1e-6 * s[0])
    np.testing.assert_allclose(explained, s[:2] ** 2 / (s**2).sum(), atol=1e-9)


def test_features_of_compositions() -> None:
    """Of NaCl: rows 3 and 3, groups 1 and 17, electronegativities 0.93 and 3.16 (Pauling)."""
    salt = composition_features(table_crystals()[np.array([2])])[0]
    row, group, _, electronegativity, row_std, group_std, _, spread = salt
    assert (row, group, row_std, group_std) == pytest.approx((3, 9, 0, 8))
    assert (electronegativity, spread) == pytest.approx((2.045, 1.115))


def test_compositions_are_mapped() -> None:
    crystals = load("prototypes").crystals
    some = crystals[np.arange(20)].padded(24)
    figure = composition_map(crystals, {"model": some}, {"model": np.arange(24) < 5})
    (axes,) = figure.axes
    sizes = [len(x.get_offsets()) for x in axes.collections]
    assert sizes == [len(crystals), 20, 5]
    assert axes.get_legend().get_texts()[1].get_text() == "model (20, 5 large)"


def test_samples_are_kept(tmp_path: Path) -> None:
    crystals = load("prototypes").crystals[np.arange(3)].to_numpy()
    samples = Samples(crystals, np.array([0.0, np.nan, 1.0]), np.array([True, False, False]))
    samples.save(tmp_path / "x.npz")
    again = Samples.load(tmp_path / "x.npz")
    np.testing.assert_array_equal(again.e_above_hull, samples.e_above_hull)
    np.testing.assert_array_equal(again.crystals.species, crystals.species)


def test_every_kind_of_pairs_is_in_the_table() -> None:
    (header, *_) = tables.iterations_table([]).rows
    assert {kind.replace("_", " > ") for kind in KINDS} <= set(header)
