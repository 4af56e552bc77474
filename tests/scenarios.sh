#!/usr/bin/env bash
# The first hour of five users, as they type it: scenarios.sh NAME runs one in the current folder, which has
# `experiments` and `checkpoints` in it and what tests/test_scenarios.py puts there for the user. TINY is the size.
set -euo pipefail

TINY="--rl.n-steps 1 --rl.batch-size 8 --setup.n-samples 8 --setup.sampling.batch-size 8"
MODEL=checkpoints/wyckoff-mp20bt

# Fails with the file and the text if the text is not in it.
has() {
  grep -qF -- "$2" "$1" || { echo "$1 does not have: $2" >&2; exit 1; }
}

# A folder of one's own CIFs, one of them broken.
cifs() {
  crystaljax data my_crystals --output mine.csv 2>said.txt
  has said.txt "1 of 61 structures of my_crystals were skipped"
  has "$(grep -o '/[^ ]*skipped.csv' said.txt)" broken
  crystaljax finetune --model "$MODEL" --train my_crystals --n-epochs 1 --output runs/mine
  crystaljax sample --model runs/mine/model --n 8 --output samples.csv
  crystaljax evaluate samples.csv --train my_crystals --potential none --output novelty
  has novelty/report.md "unique and novel"
}

# A scikit-learn model as the reward.
reward() {
  cat >fit.py <<'PYTHON'
import joblib
from sklearn.ensemble import RandomForestRegressor

from crystaljax.data.dataset import load
from crystaljax.structures import to_structures

structures = to_structures(load("prototypes").crystals[:200])
x = [[s.density, s.volume / len(s), len(s.composition)] for s in structures]
y = [s.composition.weight / s.composition.num_atoms for s in structures]
joblib.dump(RandomForestRegressor(20, random_state=0).fit(x, y), "model.joblib")
PYTHON
  cat >my_reward.py <<'PYTHON'
import joblib

from crystaljax.rewards.user import reward

model = joblib.load("model.joblib")


@reward("predicted mean atomic mass", unit="u")
def mass(structure):
    x = [structure.density, structure.volume / len(structure), len(structure.composition)]
    return model.predict([x])[0]
PYTHON
  python fit.py
  python experiments/quickstart.py --setup.reward my_reward.py:mass --check >said.txt
  has said.txt "s a crystal"
  python experiments/quickstart.py --setup.reward my_reward.py:mass $TINY \
    --output runs/reward --report.columns reward formula space_group novel
  has runs/reward/report.md "Predicted mean atomic mass by PPO"
  has runs/reward/report.md "predicted mean atomic mass (u): quantiles"
  has runs/reward/report.md "| predicted mean atomic mass (u) | formula"
  ls runs/reward/pareto.png runs/reward/rewards.png
}

# A convex hull of one's own.
hull() {
  cat >hull.csv <<'TABLE'
compound,Ef
NaCl,-2.1
Na2O,-1.4
Al2O3,-3.4
TABLE
  crystaljax evaluate my_crystals --potential chgnet --hull hull.csv:formula=compound,energy=Ef --output judged
  has judged/report.md "| metastable "
  if crystaljax evaluate my_crystals --potential chgnet --hull missing.csv --output none 2>said.txt; then
    echo "a hull that is not there was taken" >&2
    exit 1
  fi
  has said.txt missing.csv
}

# A language model from a Hugging Face folder.
huggingface() {
  python experiments/llm_sft.py small --setup.model.base my_llm --setup.texts.max-sites 1 --sft.n-epochs 1 \
    --setup.n-samples 4 --setup.generation.max-new-tokens 8 --output runs/sft
  crystaljax sample --model runs/sft/model --grammar --n 20 --output new.csv
  python -c "from transformers import AutoModelForCausalLM as M; M.from_pretrained('runs/sft/model')"
}

# Two runs to compare.
compare() {
  for tau in 0.05 0.2; do
    python experiments/quickstart.py $TINY --setup.reward my_density.py:density --rl.tau $tau \
      --output runs/tau-$tau
  done
  crystaljax compare runs/tau-0.05 runs/tau-0.2 --output side_by_side
  has side_by_side/report.md rl.tau
  has side_by_side/results.csv tau-0.2
}

"$1"
