"""Every script in experiments/ runs from its command line to its report, at a tiny size."""

import csv
import gzip
import json
import runpy
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from scripts import SCRIPTS, load_script
from stub_endpoint import stub_endpoint
from wandb_files import offline_runs

from crystaljax.alloys.journal import reward_entries
from crystaljax.cli import main
from crystaljax.data.dataset import load
from crystaljax.data.writers import write
from crystaljax.policies.loading import load_policy
from crystaljax.rewards.base import RewardBatch
from crystaljax.tracking import read_metrics

pytestmark = pytest.mark.slow

PRETRAINING = (
    "--model.n-layers 2 --model.n-heads 2 --model.head-size 8 --model.width 16 --model.embedding 8"
    " --model.first-letter-hidden 8 --model.n-von-mises 4 --model.n-gaussians 2 --model.max-sites 6"
    " --training.n-epochs 12 --training.batch-size 50 --training.optimizer.learning-rate 0.01"
    " --training.optimizer.warmup-steps 10 --training.optimizer.ema-decay 0"
)


@pytest.fixture(scope="module")
def crystals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small crystals in a file."""
    path = tmp_path_factory.mktemp("data") / "crystals.csv"
    found = load("prototypes").crystals
    write(found[np.flatnonzero(found.n_sites <= 3)[::2]], path, {})
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, crystals: Path) -> Path:
    """A model that has learnt enough to draw valid crystals."""
    folder = tmp_path_factory.mktemp("pretrain") / "run"
    with pytest.MonkeyPatch.context() as patch:
        data = f"--train {crystals} --validation {crystals} --output {folder}"
        run(patch, "pretrain.py", data, PRETRAINING)
    return folder / "model"


@pytest.fixture(scope="module")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model that has learnt a few crystals by heart."""
    pytest.importorskip("tokenizers")
    from small_crystal_text import learnt_crystal_texts

    folder = tmp_path_factory.mktemp("texts")
    policy, params = learnt_crystal_texts(folder / "run")
    policy.save(folder / "model", params)
    return folder / "model"


@pytest.fixture(scope="module", params=["model", "text_model"])
def either_model(request: pytest.FixtureRequest) -> Path:
    """A folder of each kind of model."""
    folder: Path = request.getfixturevalue(request.param)
    return folder


@pytest.fixture(scope="module")
def setup(either_model: Path, crystals: Path) -> str:
    """Options of the experiments on crystals: a small model of either kind, few samples."""
    return (
        f"--setup.model {either_model} --setup.reference {crystals} --setup.n-samples 8"
        " --setup.sampling.batch-size 8 --output out --setup.judge="
    )


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written to the repository."""
    monkeypatch.chdir(tmp_path)


def run(monkeypatch: pytest.MonkeyPatch, name: str, *options: object) -> None:
    """The script as a user starts it, in this process."""
    load_script(name)  # skips if an extra is absent
    arguments = " ".join(str(option) for option in options).split()
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(SCRIPTS[name]), run_name="__main__")


def refused(
    capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch, name: str, *options: object
) -> str:
    """The line that ends a script after a user's mistake."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        run(patch, name, *options)
    assert end.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def result(capsys: pytest.CaptureFixture[str]) -> dict:
    """The JSON object that a benchmark prints last."""
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_quickstart(
    monkeypatch: pytest.MonkeyPatch, setup: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("chgnet")
    rl = "--rl.batch-size 8 --rl.save-every 1 --rl.n-steps"
    run(monkeypatch, "quickstart.py", setup, rl, 2, "--tracking.mode offline")
    (tracked,) = offline_runs(Path("out"))
    assert {"before_PPO/metastable_SUN", "after_PPO/metastable_SUN_se"} <= tracked.summary.keys()
    assert len(tracked.table("best_structures")) <= 8
    assert tracked.artifacts.keys() >= {"out-model", "out-after"}
    report = Path("out/report.json").read_text()
    origin = json.loads(report)["provenance"]
    assert origin["config"]["rl"]["n_steps"] == 2
    assert "demonstration" in origin["inputs"]["energies"]
    load_policy("out/model")
    metrics = Path("out/metrics.jsonl").read_text()
    run(monkeypatch, "quickstart.py", setup, rl, 2)  # goes on: there is nothing to do
    assert Path("out/metrics.jsonl").read_text() == metrics
    said = refused(capsys, monkeypatch, "quickstart.py", setup, rl, 3)
    assert "rl.n_steps is 2 there and 3 here" in said
    assert json.loads(Path("out/report.json").read_text()).keys() == json.loads(report).keys()


def test_stability_rl(monkeypatch: pytest.MonkeyPatch, setup: str) -> None:
    pytest.importorskip("chgnet")
    relax = "--relax.n 6 --relax.max-steps 2 --relax.threshold 1e9"
    small = "--rl.n-steps 1 --rl.batch-size 8 --sft.n-epochs 1 --groups 1 225 --n-per-group 4"
    run(monkeypatch, "stability_rl.py", "small", setup, relax, small)
    assert Path("out/report.html").is_file()
    kept = Path("out/relaxed.npz").stat().st_mtime_ns
    run(monkeypatch, "stability_rl.py", "small", setup, relax, small)
    assert Path("out/relaxed.npz").stat().st_mtime_ns == kept
    assert Path("out/sft/metrics.jsonl").read_text()


def test_dielectric_rl(
    monkeypatch: pytest.MonkeyPatch, setup: str, shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("chgnet")
    megnet = shared / "weights" / "matgl" / "MEGNet-MP-2019.4.1-BandGap-mfi"
    rl = f"--band-gap {megnet} --rl.n-steps 1 --rl.batch-size 8"
    guards = "--setup.guards too-good"
    said = refused(capsys, monkeypatch, "dielectric_rl.py", "small", setup, rl, guards)
    assert "too-good judges energies above hull" in said
    run(monkeypatch, "dielectric_rl.py", "small", setup, rl)
    assert Path("out/report.html").is_file()


def test_kl_reward(monkeypatch: pytest.MonkeyPatch, setup: str) -> None:
    pytest.importorskip("chgnet")
    run(
        *(monkeypatch, "kl_reward.py", "small", setup, "--taus 0.1"),
        "--ppo.n-steps 1 --ppo.batch-size 8",
        "--grpo.n-steps 1 --grpo.batch-size 8 --grpo.group-size 4",
        "--dpo.n-iterations 1 --dpo.n-samples 8 --dpo.group-size 4 --dpo.batch-size 2",
        "--dpo.min-gap 0 --mcmc.n-chains 4 --mcmc.n-steps 1 --tracking.mode offline",
        "--setup.guards too-good:100 seen-compositions seen-structures:3",
    )
    kinds = {"": "report", "ppo-0.1": "PPO", "grpo": "GRPO", "dpo": "DPO", "mcmc": "MCMC"}
    for name, kind in kinds.items():
        (tracked,) = offline_runs(Path("out") / name)
        assert (tracked.group, tracked.job_type) == ("out", kind)
    assert "guarded by too-good:100, seen-compositions" in Path("out/report.html").read_text()
    for name in ("ppo-0.1", "grpo", "dpo"):
        found = read_metrics(Path("out") / name)
        assert {
            "guard/too-good",
            "guard/seen-compositions",
            "guard/seen-structures",
        } <= found.keys()


TINY_RLIP = (
    "--rlip.n-iterations 2 --rlip.n-unconditional 8 --rlip.n-per-group 4 --rlip.group-size 4"
    " --rlip.groups 225 1 --rlip.batch-size 4 --rlip.thresholds.metastable 1e3"
    " --exam.n-per-iteration 4 --exam.n-per-group 4 --exam.groups 225 1 --exam.unseen-groups 227"
)


def test_plaid(monkeypatch: pytest.MonkeyPatch, setup: str) -> None:
    pytest.importorskip("chgnet")
    run(monkeypatch, "plaid.py", "small", setup, TINY_RLIP)
    runs = Path("out/runs")
    results = {path: path.stat().st_mtime_ns for path in runs.glob("*/*/result.json")}
    assert {path.parent.name for path in results} == {
        "base-seed0",
        "conditional-seed0",
        "joint-seed0",
    }
    (joint,) = runs.glob("*/joint-seed0")
    load_policy(joint / "model")
    assert len(list((joint / "iterations").glob("*.npz"))) == 2
    report = json.loads(Path("out/report.json").read_text())
    assert "metastable_SUN" in report
    for name in ("iterations_training", "groups_ssun", "space_groups", "compositions"):
        assert Path(f"out/{name}.png").stat().st_size > 1000
    run(monkeypatch, "plaid.py", "small", setup, TINY_RLIP, "--only joint")
    assert all(path.stat().st_mtime_ns == time for path, time in results.items())


def test_plaid_as_in_the_paper(monkeypatch: pytest.MonkeyPatch, crystals: Path) -> None:
    """An adapter of a base in NF4, as large as a test can have it."""
    for name in ("chgnet", "tokenizers", "qwix"):
        pytest.importorskip(name)
    from small_crystal_text import learnt_crystal_texts

    from crystaljax.models.llm.lora import LoraConfig
    from crystaljax.policies.crystal_text import CrystalTextPolicy
    from crystaljax.text.loading import TextModelConfig, load_text_policy

    policy, params = learnt_crystal_texts(Path("learning"), head_size=32)
    policy.save("base", params)
    lora = LoraConfig(rank=8, alpha=32.0)
    texts = load_text_policy(TextModelConfig(base="base", lora=lora, quantized="nf4"))
    CrystalTextPolicy(texts, policy.metadata).save("adapter", texts.start)
    run(
        *(monkeypatch, "plaid.py", "paper", TINY_RLIP, "--setup.model adapter --setup.n-parts 2"),
        f"--setup.reference {crystals} --setup.stability.potential chgnet --setup.judge chgnet"
        " --setup.stability.relax-steps 2",
        "--setup.n-samples 8 --setup.sampling.max-new-tokens 0 --output out",
    )
    (joint,) = Path("out/runs").glob("*/joint-seed0")
    assert (joint / "model" / "adapter_config.json").is_file()
    assert "dpo/pairs" in read_metrics(joint)
    report = Path("out/report.md").read_text()
    assert "Memory of RLIP" in report and "hours of one H100" in report


def test_sample(either_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command, with conditions that differ from row to row."""
    Path("asked.csv").write_text("space_group\n225\n227\n")
    arguments = ["sample", "--model", str(either_model), "--output", "samples.csv"]
    main([*arguments, "--conditions", "asked.csv", "--n", "8"])
    assert "of 16 samples are in samples.csv" in " ".join(capsys.readouterr().out.split())
    with Path("samples.csv").open() as file:
        groups = {int(row["material_id"]) // 8: row for row in csv.DictReader(file)}
    assert groups.keys() == {0, 1}


def test_pretrain(model: Path) -> None:
    load_policy(model)
    nll = read_metrics(model.parent)["train/nll"]
    assert nll[-1, 1] < nll[0, 1]


def test_train_dielectric(monkeypatch: pytest.MonkeyPatch, shared: Path) -> None:
    with gzip.open(shared / "data" / "mp_dielectric.csv.gz", "rt") as file:
        some = list(islice(csv.reader(file), 31))
    with Path("data.csv").open("w") as file:
        csv.writer(file).writerows(some)
    megnet = shared / "weights" / "matgl" / "MEGNet-MP-2019.4.1-BandGap-mfi"
    run(monkeypatch, "train_dielectric.py", f"--data data.csv --megnet {megnet} --output out")
    assert json.loads(Path("out/cross_validation.json").read_text())["n_crystals"] == 30


def test_language_models(monkeypatch: pytest.MonkeyPatch, crystals: Path, tmp_path: Path) -> None:
    pair = json.dumps({"prompt": "NaCl", "chosen": "225", "rejected": "1"}) + "\n"
    (tmp_path / "pairs.jsonl").write_text(20 * pair)
    texts = f"--setup.texts.crystals {crystals} --setup.n-samples 4"
    how = "--setup.generation.max-new-tokens 8 --setup.generation.batch-size 4"
    run(
        *(monkeypatch, "llm_sft.py", "small", texts, how, "--output sft"),
        "--sft.n-epochs 1 --sft.batch-size 64 --sft.log-every 1",
    )
    base = "--setup.model.base sft/model"
    run(
        *(monkeypatch, "llm_dpo.py", "small", texts, how, base, "--output dpo"),
        "--pairs.file pairs.jsonl --dpo.n-epochs 1 --dpo.batch-size 6 --dpo.log-every 1",
    )
    run(
        *(monkeypatch, "llm_sample.py", "small", texts, how, base, "--output samples"),
    )
    for folder in ("sft", "dpo", "samples"):
        assert (Path(folder) / "report.html").is_file()
    lines = [json.loads(line) for line in Path("samples/free.jsonl").read_text().splitlines()]
    assert len(lines) == 4 and all(line["prompt"] for line in lines)


def test_alloys(monkeypatch: pytest.MonkeyPatch) -> None:
    few = "max-new-tokens 48 --{}.batch-size 8"
    run(
        *(monkeypatch, "alloys.py", "small", "--output out --data.pairs.volumes-of-pair 1"),
        *(f"--{x}.{few.format(x)}" for x in ("generation", "decoding")),
        "--reward.pool.kind inline --reward.temperatures 600 1000 1400",
        "--sft.n-epochs 4 --best.n-samples 12 --best.n-rejected 2 --dpo.batch-size 2",
        "--dpo.log-every 1 --dpo.validate-every 1 --grpo.n-steps 1 --grpo.batch-size 16",
        "--grpo.group-size 16 --search.calls 6 --search.batch 4 --n-evaluated 6",
    )
    assert Path("out/report.html").is_file()


def test_alloy_contest(monkeypatch: pytest.MonkeyPatch) -> None:
    """All methods at the same number of calls; a second start computes nothing again."""
    for package in ("optuna", "cmaes"):
        pytest.importorskip(package)
    options = (
        "--output out --data.pairs.volumes-of-pair 1 --seeds 0 1 --contest.calls 16",
        "--reward.pool.kind inline --reward.temperatures 600 1000 1400 --sft.n-epochs 2",
        "--best.n-rejected 2 --dpo.batch-size 2 --dpo.log-every 1 --dpo.validate-every 1",
        "--grpo.batch-size 12 --grpo.group-size 12 --search.batch 4 --search.population 4",
        "--contest.again.n-epochs 1 --contest.again.batch-size 64 --contest.rounds 2",
    )
    run(monkeypatch, "alloys.py", "contest", *options)
    with Path("out/contest.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["model"]: row for row in csv.DictReader(file)}
    assert list(rows) == [
        *("random", "TPE", "NSGA-II", "CMA-ES", "random, of the lists", "TPE, of the lists"),
        *("SFT", "best of 4", "iterated SFT", "DPO"),
        *("DPO, β = 2", "DPO + anchor", "DPO in stages", "GRPO", "SFT + TPE"),
    ]
    assert {float(row["judged"]) for row in rows.values()} == {16}

    def none(*_: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr("crystaljax.alloys.reward.AlloyReward.judge_texts", none)
    Path("out/contest.csv").unlink()
    run(monkeypatch, "alloys.py", "contest", *options)
    assert Path("out/contest.csv").is_file()


def test_alloys_of_another_family(monkeypatch: pytest.MonkeyPatch) -> None:
    few = "max-new-tokens 48 --{}.batch-size 8"
    run(
        *(monkeypatch, "alloys.py", "fcc-l12", "--output out --data.pairs.volumes-of-pair 1"),
        *(f"--{x}.{few.format(x)}" for x in ("generation", "decoding")),
        "--reward.pool.kind inline --reward.temperatures 900 1200 1500",
        "--sft.n-epochs 30 --best.n-samples 12 --best.n-rejected 2 --dpo.batch-size 2",
        "--dpo.log-every 1 --dpo.validate-every 1 --grpo.n-steps 1 --grpo.batch-size 16",
        "--grpo.group-size 16 --search.calls 6 --search.batch 4 --n-evaluated 6",
    )
    report = Path("out/report.html").read_text(encoding="utf-8")
    assert "Superalloys of FCC and L12" in report


def test_alloy_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    answer = "<BCC>Cr</BCC> <B2>NiAl</B2> <B2_Volume>40</B2_Volume>"
    with stub_endpoint(lambda body, n: answer) as stub:
        run(
            *(monkeypatch, "alloy_endpoint.py", "--output out --endpoint.model any"),
            f"--endpoint.base-url {stub.url} --reward.pool.kind inline",
            "--reward.temperatures 600 1000 1400 --shots 0 1 --n-prompts 2 --n-dialogues 1",
            "--revisions 1 --data.covered space",
        )
    assert "Table 1 of arXiv 2511.12036" in Path("out/report.html").read_text(encoding="utf-8")


def test_alloy_endpoint_as_in_the_paper(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ranked shots, known lists, identifiers and the review, from samples of a run."""
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    text = "<BCC>Cr</BCC> <B2>NiAl</B2> <B2_Volume>{}</B2_Volume>"
    rewards = RewardBatch.from_values(-np.arange(6.0))
    entries = reward_entries([text.format(40 + n) for n in range(6)], rewards)
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(one) + "\n" for one in entries))

    def respond(body: dict, n: int) -> str:
        asked = body["messages"][0]["content"]
        return "Valid" if "who reviews" in asked else text.format(40)

    with stub_endpoint(respond) as stub:
        run(
            *(monkeypatch, "alloy_endpoint.py", "--output out --endpoint.model any"),
            f"--endpoint.base-url {stub.url} --reward.pool.kind inline --samples pool.jsonl",
            "--reward.temperatures 600 1000 1400 --shots 1 --ranked 2 --n-prompts 2",
            "--n-dialogues 0 --plain --known --identify --reviewed 3",
        )
        ranked = [body for body in stub.bodies if text.format(45) in str(body)]
    assert len(ranked) == 2 + 3
    assert len({str(body) for body in ranked}) == 5  # by their identifiers
    assert "Known BCC phases" in str(ranked[0])
    report = json.loads(Path("out/report.json").read_text())
    assert any("3 accepted of 3 proposals" in note for note in report["notes"])


def test_alloy_score(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = "<BCC>Cr</BCC> <B2>NiAl</B2> <B2_Volume>40</B2_Volume>"
    (tmp_path / "ours.txt").write_text(f"{text}\nnone\n")
    (tmp_path / "theirs.csv").write_text("formula\nAlNi\nAl2O3\n")
    (tmp_path / "known.txt").write_text("AlNi\nAlCo\n")
    (tmp_path / "kl.csv").write_text("model,element,count,KL\nDPO,Al,3,0.1\nDPO,Ni,2,0.2\n")
    run(
        *(monkeypatch, "alloy_score.py", "--files ours=ours.txt CDVAE=theirs.csv --output out"),
        "--reward.pool.kind inline --reward.temperatures 600 1000 1400 --phases",
        "--data.known known.txt --data.covered space --drift a=kl.csv b=kl.csv",
    )
    assert Path("out/kl_change.png").is_file()
    report = json.loads(Path("out/report.json").read_text())
    assert any("CDVAE: 1 compositions of other elements" in note for note in report["notes"])
    with Path("out/table_1.csv").open() as file:
        ours, theirs = csv.DictReader(file)
    assert float(ours["novel to known (%)"]) == 50
    assert float(theirs["novel to known (%)"]) == 0
    assert theirs["mean reward"] == "nan"
    assert len(Path("out/phases_0.csv").read_text().splitlines()) > 3


def test_curate_alloys(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    options = "small --judge.temperatures 800 1200 --output out.json"
    run(monkeypatch, "curate_alloys.py", options)
    assert json.loads(Path("out.json").read_text())
    assert "out.json exists" in refused(capsys, monkeypatch, "curate_alloys.py", options)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("text_formats.py", "--source {0} --learnt {0} --n-matched 5 --repeats 1"),
        ("grammars.py", "--source prototypes --formats coordinates --bpe 300 --large 2000"),
        ("symmetry.py", "--source {} --n 20 --peer-n 2 --batch-size 8 --repeats 1"),
        ("csp_evaluation.py", "--truth {} --n-crystals 4 --k 2"),
        ("hull.py", "--queries 20 --peer-queries 3 --repeats 2"),
        ("matching.py", "--reference {0} --others {0} --n-samples 12 --plain-samples 2"),
        ("pool.py", "--workers 1 --crystals 4 --trivial-crystals 50"),
        ("potentials.py", "--source {} --potentials chgnet --n 4 --n-forces 2"),
        ("sun.py", "--reference {} --n 8 --n-workers 1"),
        ("training.py", "--data {} --batch-size 8 --steps 1"),
        ("sampling.py", "--n 8 --batch-size 8"),
        ("calphad.py", "--elements Al Cr Ni --candidates 1 --peer-candidates 1"),
        (
            "llm_sampling.py",
            "--batch-size 2 --prompt 4 --new 2 --peer none --uneven 0 --repeats 1",
        ),
    ],
)
def test_benchmarks(
    name: str,
    options: str,
    crystals: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if name in ("pool.py", "potentials.py", "sun.py"):
        pytest.importorskip("chgnet")
    run(monkeypatch, name, options.format(crystals))
    printed = result(capsys)
    assert {"unit", "hardware"} <= printed.keys()
    assert printed["name"] == name[:-3] and printed.get("value", 1) > 0


def test_csp_baselines(crystals: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A crystal of the training set is found at the first attempt; random search is as asked."""
    pytest.importorskip("pyxtal")
    sources = f"--train {crystals} --test {crystals} --tracking.mode disabled"
    settings = "--methods substitution random --n 2 --k 2 --output out"
    run(monkeypatch, "csp_baselines.py", f"{sources} {settings}")
    found = json.loads(Path("out/report.json").read_text())["evaluations"]
    first, second = ({x["name"]: x for x in evaluation["metrics"]} for evaluation in found.values())
    assert first["match rate @1"]["count"] == first["match rate @1"]["total"] == 2
    assert second["as asked"]["total"] == 4
    assert Path("out/substitution.csv").is_file() and Path("out/random-attempts.csv").is_file()
    small = "--methods random --n 2 --k 2 --max-atoms 1 --output small"
    run(monkeypatch, "csp_baselines.py", f"{sources} {small}")
    (about,) = (
        x for x in json.loads(Path("small/report.json").read_text())["notes"] if "lost" in x
    )
    assert about.startswith("random search: 4 of 4 attempts lost (2 × no space group holds")
    assert "with at most 1 atoms" in about
    rows = Path("small/random.csv").read_text().splitlines()
    assert len(rows) == 5 and "with at most 1 atoms" in rows[1]  # all attempts, with the reasons


def test_every_script_is_run() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    # tests/test_benchmarks_accelerator.py, tests/test_experiments_{tokenizations,csp}.py
    elsewhere = {"accelerator.py", "tokenizations.py", "csp.py", "csp_rewards.py"}
    assert {name for name in SCRIPTS.keys() - elsewhere if f'"{name}"' not in text} == set()
