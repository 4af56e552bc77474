"""Language models that write crystals: prompts, grammars, choice of candidates, folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

pytest.importorskip("transformers")
pytest.importorskip("safetensors")
pytest.importorskip("qwix")

from small_crystal_text import crystal_text_policy, small_crystals, small_metadata

from crystaljax.composition import element_counts, formulas
from crystaljax.conditions import Condition, marked
from crystaljax.models.llm.lora import LoraConfig
from crystaljax.policies.base import SamplingConfig
from crystaljax.policies.crystal_text import CrystalTextPolicy
from crystaljax.policies.loading import load_policy
from crystaljax.policies.text_prompts import CrystalPrompts, around
from crystaljax.text.packing import plan_completions
from crystaljax.text.prompts import PromptTemplate, load_template


@pytest.fixture(scope="module")
def policy() -> CrystalTextPolicy:
    return crystal_text_policy()


@pytest.fixture(scope="module")
def folder(policy: CrystalTextPolicy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "model"
    policy.save(folder, policy.texts.start)
    return folder


def test_rows_are_for_texts_like_the_typical_ones(policy: CrystalTextPolicy) -> None:
    """Longer texts than those get more rows, with the same log-probabilities."""
    params = policy.texts.start
    every = policy.encode(small_crystals())
    by_length = np.argsort(every.sequences.lengths, kind="stable")
    short, long = (policy.encode(small_crystals()[x]) for x in (by_length[:16], by_length[-16:]))
    assert long.sequences.lengths.sum() > 1.3 * short.sequences.lengths.sum()
    rng, shapes = np.random.default_rng(0), []
    for rollout in (short, short, long):
        rows = rng.permutation(16)
        parts = policy.parts(rollout, rows, 2, lambda n: short)
        shapes.append(jax.tree.map(np.shape, parts))
        for part, some in enumerate(rows.reshape(2, 8)):
            one = jax.tree.map(lambda x, part=part: x[part], parts)
            logp, is_action = policy.log_probs(params, policy.frozen, one, 8)
            expected = policy.log_prob(params, rollout)[some]
            total = np.where(is_action, logp, 0).sum(axis=-1)
            np.testing.assert_allclose(total, expected, rtol=1e-4)
    assert shapes[0] == shapes[1]
    texts, sizes = short.sequences, (policy.texts.config.width, 1)
    unknown = plan_completions(int(texts.prompt_lengths.min()), texts.longest, 8, *sizes)
    blocks = policy.parts(short, np.arange(16), 2, lambda n: short)
    places = sum(int(x.segment.size) for x in blocks)
    assert texts.lengths.sum() < places < 2 * sum(rows * length for rows, length in unknown)


def prompts(*names: str) -> CrystalPrompts:
    metadata, _ = small_metadata(names, "wyckoff-text")
    return CrystalPrompts(metadata.generating, metadata.values)


def test_the_template_of_which_most_is_given() -> None:
    names = ("formula", "unconditional", "space_group", "formula_space_group", "e_above_hull")
    asked = prompts(*names)
    for condition, name, values in (
        (Condition(), "unconditional", {}),
        (Condition(formula="Ti2O4"), "formula", {"formula": "TiO2"}),
        (Condition(space_group=136), "space_group", {"space_group": 136}),
        (Condition(space_group=(136, 139)), "unconditional", {}),
        (
            Condition(formula="TiO2", space_group=136),
            "formula_space_group",
            {"formula": "TiO2", "space_group": 136},
        ),
        (Condition(properties={"e_above_hull": 0.0}), "e_above_hull", {"e_above_hull": 0.0}),
    ):
        request = asked.request(condition)
        assert (request.template.name, request.given, request.open) == (name, values, ())
    with pytest.raises(ValueError, match="no prompt template asks for e_above_hull, formula"):
        asked.request(Condition(formula="TiO2", properties={"e_above_hull": 0.0}))
    with pytest.raises(ValueError, match="cannot be asked for formula: prompts have space_group"):
        prompts("space_group").request(Condition(formula="TiO2"))


def test_any_properties_are_asked_by_one_template() -> None:
    """All clauses of which the fields are given are said, at least one, and no others."""
    asked = prompts("unconditional", "properties", "infilling")
    assert "masked" not in asked.fields
    gap, energy = {"band_gap": 1.0}, {"e_above_hull": 0.05}
    for condition, prompt in (
        (Condition(), "A crystal:"),
        (Condition(formula="Ti2O4"), "A crystal, formula TiO2:"),
        (Condition(space_group=136), "A crystal, space group 136:"),
        (Condition(properties=gap), "A crystal, band gap 1.00 eV:"),
        (
            Condition(formula="TiO2", space_group=136, properties=gap | energy),
            "A crystal, formula TiO2, space group 136, energy above hull 0.050 eV/atom,"
            " band gap 1.00 eV:",
        ),
    ):
        request = asked.request(condition)
        assert request.open == ()
        assert request.template.prompt(request.given) == prompt + "\n"
    with pytest.raises(ValueError, match="cannot be asked for colour: prompts have band_gap, e_ab"):
        asked.request(Condition(properties={"colour": 1.0}))
    # Of several space groups one is drawn, if it has to be told.
    request = asked.request(Condition(space_group=(136, 139)), frozenset({"space_group"}))
    assert request.open == ("space_group",)
    # A template that has to ask for something asks for what is known of the training data.
    alone = prompts("properties")
    assert alone.request(Condition()).open == ("formula",)
    assert alone.least({"formula": "TiO2", "space_group": 136}) == Condition(formula="TiO2")
    with pytest.raises(ValueError, match="needs e_above_hull: give conditions"):
        prompts("e_above_hull").least({"formula": "TiO2"})
    with pytest.raises(ValueError, match="no prompt template asks for a crystal"):
        prompts("infilling")


def test_samples_by_properties(tmp_path: Path) -> None:
    """Sampled, scored, saved and loaded again; the folder says that there is infilling too."""
    policy = crystal_text_policy(("unconditional", "properties", "infilling"))
    formula = formulas(small_crystals())[0]
    asked = [
        Condition(space_group=225, properties={"e_above_hull": 0.0}),
        Condition(formula=formula, properties={"band_gap": 2.0}),
        Condition(),
    ]
    rollout = policy.sample(policy.texts.start, asked, 0, SamplingConfig(grammar=True), repeat=2)
    np.testing.assert_allclose(
        policy.log_prob(policy.texts.start, rollout), rollout.logp_model, atol=1e-3
    )
    told = policy.texts.tokenizer.decode(
        [x.tokens[: x.n_prompt] for x in rollout.sequences.sequences]
    )
    assert "space group 225, energy above hull 0.000 eV/atom" in told[0]
    assert f"formula {formula}, band gap 2.00 eV" in told[2]
    policy.save(tmp_path / "model", policy.texts.start)
    again, params = load_policy(tmp_path / "model")
    assert again.identity == policy.identity
    same = again.sample(params, asked, 0, SamplingConfig(grammar=True), repeat=2)
    assert same.sequences.texts == rollout.sequences.texts


def test_what_is_open_is_drawn_from_the_training_data() -> None:
    """As often as there, and as the condition has it."""
    asked, crystals = prompts("formula_space_group"), small_crystals()
    request = asked.request(Condition())
    assert request.open == ("formula", "space_group")
    uniform = np.random.default_rng(0).random(2000)
    rows = [asked.drawn(Condition(), request.open, u) for u in uniform]
    pairs = set(zip(formulas(crystals), crystals.space_group.tolist(), strict=True))
    assert {(row["formula"], row["space_group"]) for row in rows} == pairs
    found = np.array([row["space_group"] for row in rows])
    for group in (139, 225):
        expected = (crystals.space_group == group).mean()
        assert abs((found == group).mean() - expected) < 0.05
    for condition in (Condition(space_group=(225, 139)), Condition(required=("Si",))):
        for u in uniform[:50]:
            row = asked.drawn(condition, request.open, u)
            assert row["space_group"] in (condition.space_groups or range(231))
            assert all(name in row["formula"] for name in condition.required)
    with pytest.raises(ValueError, match="no crystal of the training data is as"):
        asked.drawn(Condition(required=("Og",)), request.open, 0.0)


@pytest.mark.slow
def test_grammars_hold_groups_and_elements(policy: CrystalTextPolicy) -> None:
    elements = ("Si", "Al", "Sm")
    asked = [Condition(space_group=(139, 225)), Condition(elements=elements)]
    rollout = policy.sample(policy.texts.start, asked, 0, SamplingConfig(), repeat=12)
    assert rollout.ok[:12].any() and rollout.ok[12:].any()
    np.testing.assert_array_equal(rollout.met, rollout.ok)
    np.testing.assert_array_equal(np.isfinite(rollout.log_weight), rollout.ok)
    counts = element_counts(rollout.crystals[12:])
    assert not (counts > 0)[:, ~marked(elements)].any()
    free = policy.sample(policy.texts.start, [Condition()] * 12, 0)
    assert not free.ok.any()  # of random weights, without a grammar
    assert np.isfinite(free.log_weight).all()


def test_required_elements_are_found_by_choice(policy: CrystalTextPolicy) -> None:
    """The first of the candidates that has them is kept, whatever the others are."""
    condition = Condition(elements=("Si", "Al"), required=("Si",))
    met = []
    for n in (1, 8):
        sampling = SamplingConfig(max_candidates=n)
        rollout = policy.sample(policy.texts.start, [condition] * 24, 0, sampling)
        np.testing.assert_array_equal(np.isfinite(rollout.log_weight), rollout.met)
        np.testing.assert_allclose(
            policy.log_prob(policy.texts.start, rollout), rollout.logp_model, atol=1e-3
        )
        met.append(rollout.met)
    assert met[0][met[0]].size < met[1].sum()
    assert met[1][met[0]].all()


def test_cut_off_texts_are_no_crystals(policy: CrystalTextPolicy) -> None:
    sampling = SamplingConfig(max_new_tokens=5, grammar=True)
    rollout = policy.sample(policy.texts.start, [Condition()] * 3, 0, sampling)
    assert rollout.reasons == ["not ended after 5 tokens"] * 3


def test_formats_without_symmetry_have_to_be_told_the_space_group() -> None:
    told = crystal_text_policy(("formula", "space_group"), "coordinates")
    told.check([Condition(space_group=225)], SamplingConfig())
    untold = crystal_text_policy(("formula",), "coordinates")
    with pytest.raises(ValueError, match="cannot be asked for space_group: prompts have formula"):
        untold.check([Condition(space_group=225)], SamplingConfig())


def test_completions_with_something_around_the_crystal() -> None:
    template = PromptTemplate("fenced", "{formula}?", "It is {{\n{text}\n}}")
    assert around(template) == ("It is {\n", "\n}")
    for completion in ("{text} {text}", "none", "{text} of {formula}", "{text:10}"):
        with pytest.raises(ValueError, match=r"must have the field \{text\}, once and no other"):
            CrystalPrompts((PromptTemplate("odd", "a", completion),), prompts("formula").values)


def test_an_adapter_finds_its_base(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = crystal_text_policy(lora=LoraConfig(rank=2))
    adapter.texts.name = str(folder)
    adapter.save(tmp_path / "adapter", adapter.texts.start)
    found, _ = load_policy(tmp_path / "adapter")
    assert found.identity == adapter.identity
    # Both moved elsewhere, the base by its name beside the adapter.
    shutil.copytree(folder, tmp_path / "adapter" / "base")
    for name in ("adapter_config.json", "crystals.json"):
        path = tmp_path / "adapter" / name
        path.write_text(path.read_text().replace(str(folder), "base"))
    monkeypatch.chdir(tmp_path)
    assert load_policy(tmp_path / "adapter")[0].identity == adapter.identity
    shutil.rmtree(tmp_path / "adapter" / "base")
    for name in ("adapter_config.json", "crystals.json"):
        path = tmp_path / "adapter" / name
        path.write_text(path.read_text().replace(': "base"', ': "./no/such/base"'))
    with pytest.raises(FileNotFoundError, match=r"the base of the adapter in .* is in none of"):
        load_policy(tmp_path / "adapter")


def test_any_model_with_a_format_and_templates(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "model")
    (tmp_path / "model" / "crystals.json").unlink()
    with pytest.raises(ValueError, match=r"has no crystals\.json.*give a format and prompt templ"):
        load_policy(tmp_path / "model")
    policy, params = load_policy(tmp_path / "model", "wyckoff-text", ["formula"])
    with pytest.raises(ValueError, match="the prompt 'formula' needs formula"):
        policy.sample(params, [Condition()], 0)
    sampling = SamplingConfig(max_new_tokens=20)
    name = formulas(small_crystals())[0]
    assert len(policy.sample(params, [Condition(formula=name)], 0, sampling)) == 1


def test_folders_that_are_no_models(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"neither metadata\.json .* nor crystals\.json"):
        load_policy(tmp_path)
    for change, message in (
        ({"kind": "other"}, "another kind of model"),
        ({"templates": None}, "does not describe texts of crystals"),
        ({"space_group_counts": [1]}, "space_group_counts has 1 entries, not 230"),
        ({"vocabulary_digest": "0"}, "has another tokenizer than the one"),
        ({"format": "mine.py:Mine"}, "code and only run if you say so"),
        ({"format": "cif"}, "the options of the format cif|takes"),
    ):
        broken = tmp_path / "broken"
        shutil.copytree(folder, broken)
        content = json.loads((broken / "crystals.json").read_text())
        (broken / "crystals.json").write_text(json.dumps(content | change))
        if "format" not in change or ":" in change["format"]:
            with pytest.raises(ValueError, match=message):
                load_policy(broken)
        shutil.rmtree(broken)
    with pytest.raises(ValueError, match="has the tokenization wyckoff-text, not wyckoff"):
        load_policy(folder, "wyckoff")
    with pytest.raises(ValueError, match="wyckoff-text:coordinate_decimals=4, not"):
        load_policy(folder, "wyckoff-text:coordinate_decimals=3")


def test_a_tokenizer_that_does_not_fit(folder: Path, tmp_path: Path) -> None:
    from small_text import bpe

    shutil.copytree(folder, tmp_path / "model")
    bpe().save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"has \d+ tokens, and the model \d+: they do not belong"):
        load_policy(tmp_path / "model")


def test_templates_are_kept_whole(folder: Path) -> None:
    """A user's template need not be found again."""
    content = json.loads((folder / "crystals.json").read_text())
    assert content["templates"][0] == load_template("formula").content
    assert content["max_new_tokens"] > 20
    assert sum(content["space_group_counts"]) == len(small_crystals())
