"""Families of alloys: the paper's with a rule more, and another one, from users' files."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from alloy_samples import TRAINING, judged
from alloy_tables import b2, bcc, liquid, sigma, table
from test_alloys_reward import GOOD, POOR, TEMPERATURES, equilibria, mixture

from crystaljax.alloys.baselines.dialogue import verdicts
from crystaljax.alloys.baselines.optimize import SearchConfig, search
from crystaljax.alloys.baselines.shots import KnownPhases, ShotsConfig, shot_prompts
from crystaljax.alloys.baselines.space import Space
from crystaljax.alloys.baselines.tuning import first_instruction
from crystaljax.alloys.composition import (
    TAGS,
    Candidate,
    Tags,
    candidate_pattern,
    master,
    read_candidate,
    write_candidate,
)
from crystaljax.alloys.engines.phase_table import read_phase_table
from crystaljax.alloys.engines.table import composition_key, write_table
from crystaljax.alloys.evaluation.metrics import AlloyReference, duels, evaluate_alloys
from crystaljax.alloys.family import (
    BCC_B2,
    FAMILIES,
    FCC_L12,
    NOT_RULES,
    AlloyRule,
    load_family,
)
from crystaljax.alloys.lattice import FCC
from crystaljax.alloys.reward import AlloyConfig, AlloyReward, EngineConfig, _create_mixture_reward
from crystaljax.alloys.rule_rewards import RulesConfig, rule_rewards
from crystaljax.alloys.rules import VERSION, Part
from crystaljax.rewards.base import RewardBatch, RewardError
from crystaljax.rewards.pool import PoolConfig
from crystaljax.text.prompts import load_template

FIFTH = """
from crystaljax.alloys.family import BCC_B2, AlloyRule

def much(equilibria, lowest, parts):
    return parts.precipitate.amount(equilibria)[:, 1] >= 0.5

def family():
    return BCC_B2.with_rule("much_b2", AlloyRule(much, 5.0, "50 % of B2 at the second temperature"))

def other():
    return 3
"""

NICKEL = '''
from crystaljax.alloys.composition import Tags
from crystaljax.alloys.family import AlloyFamily, AlloyRule
from crystaljax.alloys.rules import Part, Parts, coexist, few_other_phases, matrix_first

def solvus(equilibria, lowest, parts):
    """The precipitate is gone above 1300 K and there at 1000 K."""
    amount = parts.precipitate.amount(equilibria)
    hot = equilibria.temperatures > 1300
    return (amount[:, 0] > 0.01) & (amount[:, hot] < 0.01).all(axis=1)

def family():
    return AlloyFamily(
        Parts(Part(names=("FCC_A1", "FCC_L12"), ordered=False), Part(None, True, ("FCC_L12",))),
        Tags("FCC", "L12", "L12_Volume"),
        {
            "coexist": AlloyRule(coexist, 100.0, "FCC and L1₂ coexist"),
            "fcc_first": AlloyRule(matrix_first, 10.0, "FCC forms first on cooling"),
            "solvus": AlloyRule(solvus, 1.0, "L1₂ dissolves by 1300 K"),
            "few_other_phases": AlloyRule(few_other_phases, 0.5, "few", lowest="others_from"),
        },
    )
'''

PHASES = """\
BCC,B2,B2 Volume,Temperature,Quantity,Phase,IsOrdered,Lattice Parameter
Ni80Cr20,Ni3Al,40,1000,0.6,FCC_L12#1,0,3.58
Ni80Cr20,Ni3Al,40,1000,0.4,FCC_L12#2,1,3.59
Ni80Cr20,Ni3Al,40,1400,0.9,FCC_L12#1,0,3.60
Ni80Cr20,Ni3Al,40,1400,0.1,SIGMA#1,,
Ni80Cr20,Ni3Al,40,1800,1,LIQUID#1,,
Ni80Cr20,Ni3Al,60,1000,0.3,BCC_B2#1,0,2.9
Ni80Cr20,Ni3Al,60,1000,0.7,FCC_L12#2,1,3.59
Ni80Cr20,Ni3Al,60,1400,1,FCC_L12#2,1,3.6
Ni80Cr20,Ni3Al,60,1800,1,LIQUID#1,,
"""


@pytest.fixture
def fifth(tmp_path: Path) -> str:
    path = tmp_path / "fifth.py"
    path.write_text(FIFTH)
    return f"{path}:family"


def test_the_default() -> None:
    assert load_family() is BCC_B2
    assert [rule.cost for rule in BCC_B2.rules.values()] == [1000, 100, 10, 1]
    assert all(rule.broken for rule in BCC_B2.rules.values())
    assert BCC_B2.tags.tokens == ("<BCC>", "</BCC>", "<B2>", "</B2>", "<B2_Volume>", "</B2_Volume>")


def test_a_fifth_rule_from_a_file(fifth: str, tmp_path: Path) -> None:
    path = tmp_path / "table.npz"
    write_table(path, equilibria())
    engine = EngineConfig(str(path), "table")
    texts = [GOOD, POOR]
    with AlloyReward(AlloyConfig(engine, temperatures=TEMPERATURES)) as four:
        known = four.judge_texts(texts)
        costs, celsius = "[1000.0, 100.0, 10.0, 1.0]", list(TEMPERATURES)
        former = f"alloy {VERSION} {four.engine.identity} {RulesConfig()} {costs} {celsius}"
        assert four.identity == f"{former} volume -2000.0 -1500.0"  # as before families
    with AlloyReward(AlloyConfig(engine, temperatures=TEMPERATURES, family=fifth)) as five:
        found, none = five.judge_texts(texts), five.judge_texts(["none"])
        identity = five.identity
    # 30 % of B2 at the second temperature in the one, all in the other.
    np.testing.assert_array_equal(found.info["much_b2"], [0, 1])
    np.testing.assert_allclose(found.value, known.value - [5, 0])
    assert set(none.info) == set(found.info)
    worker = _create_mixture_reward(engine, RulesConfig(), TEMPERATURES, fifth)
    keys = [composition_key(mixture(text)) for text in texts]
    np.testing.assert_array_equal(worker(keys).value, found.value)  # type: ignore[arg-type]
    file = Path(fifth.removesuffix(":family"))
    file.write_text(FIFTH.replace("0.5", "0.2"))
    with AlloyReward(AlloyConfig(engine, temperatures=TEMPERATURES, family=fifth)) as changed:
        assert changed.identity != identity
        assert changed.judge_texts(texts).info["much_b2"].tolist() == [1, 1]


def test_reports_have_the_fifth_rule(fifth: str) -> None:
    family = load_family(fifth)
    training = [Candidate({"Cr": 1.0}, {"Al": 1.0, b: 1.0}, 40.0) for b in ("Ni", "Co")]
    reference = AlloyReference.of("train", training, family=family)
    info = {name: np.array([1.0, 0.0]) for name in family.rules}
    info |= {"mismatch": np.array([0.1, np.nan]), "read": np.ones(2)}
    judged = RewardBatch.from_values(np.array([-0.1, -1116.0]), info)
    found = evaluate_alloys([str(one) for one in training], judged, reference)
    assert found["much_b2"].value == 0.5
    assert found.rules == (*BCC_B2.rules, "much_b2", "all rules")
    assert found["all rules"].description == "all 5 rules are kept"
    told = verdicts(judged, family)[1]
    assert "- it is not so that: 50 % of B2 at the second temperature" in told


def test_a_rule_that_fails_costs_the_item_it_fails_for() -> None:
    def odd(equilibria, lowest, parts):  # type: ignore[no-untyped-def]
        first = parts.matrix.amount(equilibria)[:, 0]
        if (first > 0.9).any():
            raise RuntimeError("too much")
        return first > 0.1

    family = BCC_B2.with_rule("odd", AlloyRule(odd, 1.0, "odd"))
    found = table([[bcc(0.5), b2(0.5)], [liquid(1.0)]], [[bcc(1.0)], [liquid(1.0)]])
    judged = rule_rewards(found, family=family)
    assert judged.ok.tolist() == [True, False]
    assert judged.reasons[1] == "the rule odd raises RuntimeError: too much"
    assert judged.transient.tolist() == [False, True]  # it may be mended: not kept in caches
    wrong = BCC_B2.with_rule("wrong", AlloyRule(lambda *_: np.array([0.5, 1.0]), 1.0, "wrong"))
    with pytest.raises(ValueError, match="the rule wrong must tell 1, 0 or nan of each of 2"):
        rule_rewards(found, family=wrong)


def test_what_is_no_family(fifth: str, tmp_path: Path) -> None:
    for source, told in (
        ("fcc", "no family of alloys 'fcc': there are bcc-b2 and fcc-l12; or give FILE.py"),
        (fifth.replace(":family", ":other"), "must return an AlloyFamily, not int"),
        (fifth.replace(":family", ":none"), "defines no function 'none'"),
        (fifth.replace(":family", ":much"), "is called with"),
    ):
        with pytest.raises(ValueError, match=told):
            load_family(source)
    with pytest.raises(FileNotFoundError):
        load_family(f"{tmp_path}/none.py:family")
    with pytest.raises(ValueError, match="the name 'mismatch' of a rule is taken"):
        BCC_B2.with_rule("mismatch", BCC_B2.rules["coexist"])
    for cost in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="finite number and must not be negative"):
            AlloyRule(BCC_B2.rules["coexist"].check, cost, "")
    for lowest in ("solvus_from", ""):
        with pytest.raises(ValueError, match=r"have no temperature '.*one of coexist_from"):
            AlloyRule(BCC_B2.rules["coexist"].check, 1.0, "", lowest=lowest)
    with pytest.raises(ValueError, match="lowest must be a temperature in K, not -1"):
        AlloyRule(BCC_B2.rules["coexist"].check, 1.0, "", lowest=-1.0)


@pytest.mark.parametrize("name", ["value", "text", "SMACT_valid", "win", "mismatch", "bound"])
def test_rules_have_names_of_their_own(name: str) -> None:
    """A column or metric is not overwritten, however the family is made."""
    rule = BCC_B2.rules["coexist"]
    for made in (
        lambda: BCC_B2.with_rule(name, rule),
        lambda: replace(BCC_B2, rules={**BCC_B2.rules, name: rule}),
    ):
        with pytest.raises(ValueError, match=f"the name '{name}' of a rule is taken"):
            made()
    for metric in ("all rules", "mean reward", "thin database"):
        with pytest.raises(ValueError, match="letters, digits and underscores only"):
            BCC_B2.with_rule(metric, rule)
    with pytest.raises(ValueError, match="at least one rule"):
        replace(BCC_B2, rules={})


def test_all_columns_and_metrics_are_reserved() -> None:
    """Whatever an evaluation adds, no rule can have its name."""
    known = [{"Al": 1.0, "Ni": 1.0}]
    reference = AlloyReference.of("train", TRAINING, known=known)
    found = judged([str(one) for one in TRAINING], [[1, 1, 1, 1]] * len(TRAINING), 0.01)
    more = ("bound", "missing", "extrapolated", "databases", "spread", "failed_points")
    info = {**found.info, **{name: np.zeros(len(TRAINING)) for name in more}}
    evaluated = evaluate_alloys(
        [str(one) for one in TRAINING], replace(found, info=info), reference
    )
    names = {one.name for one in evaluated.metrics} | {*evaluated.columns} | {*info}
    names |= {one.name for one in duels(found.value, found.value, 0.1)}
    rules = {*BCC_B2.rules}
    assert rules <= names
    assert {one for one in names - rules if one.isidentifier()} <= {*NOT_RULES}


BROKEN = """
import numpy as np
from crystaljax.alloys.family import BCC_B2, AlloyRule

def rule(check):
    return lambda: BCC_B2.with_rule("fifth", AlloyRule(check, 1.0, "x"))

raises = rule(lambda equilibria, lowest, parts: 1 / 0)
none = rule(lambda equilibria, lowest, parts: None)
half = rule(lambda equilibria, lowest, parts: np.full(len(equilibria), 0.5))
dear = lambda: BCC_B2.with_rule("fifth", AlloyRule(BCC_B2.rules["coexist"].check, 388.5, "x"))

def hot(equilibria, lowest, parts):
    return np.full(len(equilibria), lowest == 1600.0)

def own():
    return BCC_B2.with_rule("fifth", AlloyRule(hot, 1.0, "x", lowest=1600.0))

def late():
    return BCC_B2.with_rule("fifth", AlloyRule(hot, 1.0, "x", lowest=2001.0))
"""


@pytest.fixture
def broken(tmp_path: Path) -> AlloyConfig:
    """A table of equilibria, and `broken.py` beside it."""
    (tmp_path / "broken.py").write_text(BROKEN)
    write_table(tmp_path / "table.npz", equilibria())
    engine = EngineConfig(str(tmp_path / "table.npz"), "table")
    return AlloyConfig(engine, temperatures=TEMPERATURES, family=f"{tmp_path}/broken.py")


@pytest.mark.parametrize("kind", ["inline", "processes"])
def test_a_rule_that_cannot_judge_stops_the_run(
    broken: AlloyConfig, kind: Literal["inline", "processes"]
) -> None:
    pool = PoolConfig(kind=kind, n_workers=1)
    for name, told in (
        (
            "raises",
            "raises ZeroDivisionError: division by zero, and judges none of 2",
        ),
        ("none", "the rule fifth must tell 1, 0 or nan of each of"),
        ("half", "the rule fifth must tell 1, 0 or nan of each of"),
    ):
        config = replace(broken, family=f"{broken.family}:{name}", pool=pool)
        with AlloyReward(config) as reward, pytest.raises(RewardError, match=told):
            reward.judge_texts([GOOD, POOR, "none"])


def test_a_rule_that_raises_for_one_tells_why(broken: AlloyConfig) -> None:
    with AlloyReward(replace(broken, family=f"{broken.family}:raises")) as reward:
        found = reward.judge_texts([GOOD])
    assert found.reasons == ["the rule fifth raises ZeroDivisionError: division by zero"]
    assert found.value.tolist() == [-1500.0]


def test_rules_cost_less_than_failures(broken: AlloyConfig) -> None:
    """1111 + 388.5 + 1 Å of mismatch is worse than -1500."""
    with pytest.raises(ValueError, match=r"has -1500\.5, less than a text that is no alloy"):
        AlloyReward(replace(broken, family=f"{broken.family}:dear"))
    with pytest.raises(ValueError, match="lower these, or the costs"):
        AlloyReward(replace(broken, family="bcc-b2", invalid=-1000.0))
    AlloyReward(replace(broken, family=f"{broken.family}:dear", failed=-1500.5)).close()


def test_a_rule_with_a_temperature_of_its_own(broken: AlloyConfig) -> None:
    with AlloyReward(replace(broken, family=f"{broken.family}:own")) as reward:
        assert reward.judge_texts([GOOD, POOR]).info["fifth"].tolist() == [1, 1]
    with pytest.raises(ValueError, match=r"fifth is from 2001 K, and the highest .* 2000"):
        AlloyReward(replace(broken, family=f"{broken.family}:late"))


def test_another_family_on_a_table(tmp_path: Path) -> None:
    """FCC with L1₂, of a CSV of phases: one alloy keeps all rules, one only that of the others."""
    source, path = tmp_path / "nickel.py", tmp_path / "phases.csv"
    source.write_text(NICKEL)
    path.write_text(PHASES)
    family = load_family(f"{source}:family")
    candidates, equilibria = read_phase_table(path, "mole")
    judged = rule_rewards(equilibria, family=family)
    np.testing.assert_allclose(judged.value, [-0.01, -100 - 10 - 1 - 0.5])
    texts = [write_candidate(one, family.tags) for one in candidates]
    assert texts[0] == "<FCC>Ni80Cr20</FCC> <L12>Ni3Al</L12> <L12_Volume>40</L12_Volume>"
    engine = EngineConfig(str(path), "table")
    config = AlloyConfig(
        engine, temperatures=(1000.0, 1400.0, 1800.0), family=f"{source}:family", mix_by="mole"
    )
    with pytest.raises(ValueError, match="mix other families by mole"):
        AlloyReward(AlloyConfig(engine, temperatures=(1000.0,), family=f"{source}:family"))
    with AlloyReward(config) as reward:
        read = reward.judge_texts([*texts, texts[0].replace("FCC", "BCC")])
        assert read.info["read"].tolist() == [True, True, False]
        np.testing.assert_array_equal(read.value[:2], judged.value)
        assert read.reasons[2] == "no <FCC>...</FCC>"


SOLVUS = """
from crystaljax.alloys.family import FCC_L12, AlloyRule

def solvus(equilibria, lowest, parts):
    return parts.precipitate.amount(equilibria)[:, 1] > 0.01

def family():
    return FCC_L12.with_rule("solvus", AlloyRule(solvus, 5.0, "there is L12 at 1400 K"))
"""

GAMMA = """\
BCC,B2,B2 Volume,Temperature,Quantity,Phase,IsOrdered,Lattice Parameter
Ni80Cr20,Ni3Al,40,1000,0.6,FCC_L12#1,0,3.58
Ni80Cr20,Ni3Al,40,1000,0.4,FCC_L12#2,1,3.59
Ni80Cr20,Ni3Al,40,1400,1,FCC_L12#1,0,3.60
Ni80Cr20,Ni3Al,40,1800,1,LIQUID#1,,
Ni80Cr20,Ni3Al,60,1000,0.3,FCC_L12#1,0,3.58
Ni80Cr20,Ni3Al,60,1000,0.5,FCC_L12#2,1,3.59
Ni80Cr20,Ni3Al,60,1000,0.2,BCC_B2#1,0,2.88
Ni80Cr20,Ni3Al,60,1400,0.9,FCC_L12#1,0,3.60
Ni80Cr20,Ni3Al,60,1400,0.1,FCC_L12#2,1,3.61
Ni80Cr20,Ni3Al,60,1800,1,LIQUID#1,,
"""


def test_gamma_and_gamma_prime_with_a_solvus_rule(tmp_path: Path) -> None:
    """The family that is shipped beside the paper's, mixed by its own volumes, from a table."""
    source, path = tmp_path / "solvus.py", tmp_path / "phases.csv"
    source.write_text(SOLVUS)
    path.write_text(GAMMA)
    candidates, equilibria = read_phase_table(path, lattice=FCC_L12.lattice)
    assert set(equilibria.kind) == {"fcc", "liquid", "other"}
    np.testing.assert_allclose(
        equilibria.compositions[0, equilibria.elements.index("Al")],
        master(candidates[0], lattice=FCC)["Al"],
    )
    texts = [write_candidate(one, FCC_L12.tags) for one in candidates]
    config = AlloyConfig(EngineConfig(str(path), "table"), temperatures=(1000.0, 1400.0, 1800.0))
    with AlloyReward(replace(config, family="fcc-l12")) as four:
        known, identity = four.judge_texts(texts), four.identity
    np.testing.assert_allclose(known.value, [-0.01, -1 - 0.01])
    with AlloyReward(replace(config, family=f"{source}:family")) as five:
        found = five.judge_texts(texts)
        assert five.identity != identity
    np.testing.assert_allclose(found.value, known.value - [5, 0])
    np.testing.assert_array_equal(found.info["solvus"], [0, 1])


def test_templates_of_a_family_have_its_tags() -> None:
    for name, family in FAMILIES.items():
        for template in asdict(family.prompts).values():
            text = load_template(template).completion
            if "{b2}" in text:
                assert all(tag in text for tag in family.tags.tokens), (name, template)


def test_no_prompt_of_a_family_names_another_ones_phases() -> None:
    """Also the first instruction of tuning; the plain prompts do not state the rules."""
    elements = ("Al", "Cr", "Ni")
    foreign = {"bcc-b2": ("FCC", "L12"), "fcc-l12": ("BCC", "B2", "body-centred")}
    for name, family in FAMILIES.items():
        for template in asdict(family.prompts).values():
            loaded = load_template(template)
            text = " ".join((loaded.user, loaded.system, loaded.completion, *loaded.clauses))
            assert not any(word in text for word in foreign[name]), template
        plain = ShotsConfig.of(family.prompts, elements, plain=True)
        (asked,) = shot_prompts(1, config=plain)
        assert first_instruction(elements, family=family) == asked[-1]["content"]
        assert family.tags.tokens[0] in asked[-1]["content"]
        for words in ("equilibrium", "On cooling", "10 %"):
            assert words not in asked[-1]["content"], name
        (known,) = shot_prompts(
            1, ["one"], replace(plain, shots=1), KnownPhases(("Cr",), ("AlNi",))
        )
        assert (
            "one" in known[-1]["content"]
            and f"{family.tags.precipitate} phases: AlNi" in (known[-1]["content"])
        )


def test_tags(tmp_path: Path) -> None:
    import re

    tags = Tags("FCC", "L12", "L12_Volume")
    candidate = Candidate({"Ni": 1.0}, {"Ni": 3.0, "Al": 1.0}, 30.0)
    text = write_candidate(candidate, tags)
    assert read_candidate(text, tags=tags) == (candidate, None)
    assert read_candidate(text.replace("L12_V", "L12 V"), tags=tags) == (candidate, None)
    assert read_candidate(text)[1] == "no <BCC>...</BCC>"
    assert re.fullmatch(candidate_pattern(("Ni", "Al"), tags), text)
    assert write_candidate(candidate, TAGS) == str(candidate)
    bad = text.replace("30<", "much<")
    assert read_candidate(bad, tags=tags)[1] == "the L12 volume is no number"
    none = text.replace("30<", "0<")
    assert read_candidate(none, tags=tags)[1] == (
        "a share of precipitate of 0 %, which is not between 0 and 100"
    )


def test_searches_write_the_tags() -> None:
    tags = Tags("FCC", "L12", "L12_Volume")

    def judge(texts):  # type: ignore[no-untyped-def]
        assert all(read_candidate(text, tags=tags)[0] for text in texts)
        return RewardBatch.from_values(np.zeros(len(texts)))

    found = search(Space(), judge, SearchConfig("random", calls=3, batch=2), tags=tags)
    assert len(found.texts) == 3


def test_parts_are_told_by_name() -> None:
    found = table([[bcc(0.5), sigma(0.3), b2(0.2)]])
    assert Part(names=("SIG", "BCC"), ordered=False).amount(found).tolist() == [[0.8]]
    assert Part("bcc").amount(found)[0] == pytest.approx([0.7])
