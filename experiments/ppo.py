"""Fine-tune a model by PPO on energy above hull, and measure what it did on fresh samples.

    python experiments/ppo.py --hull formation_energies.csv.gz --reference train.csv.gz

Like the quick start, with a real hull, a training set for novelty, and more steps. Run it again
with --resume to go on after an interruption. The report comes to OUTPUT/report.html.
"""

from __future__ import annotations

import logging
from pathlib import Path

import tyro
from quickstart import Config, main

from crystaljax.runtime import prepare
from crystaljax.sampling import SamplingConfig
from crystaljax.training.reinforce import ReinforceConfig

DEFAULT = Config(
    n_samples=1000,
    output=Path("runs/ppo"),
    ppo=ReinforceConfig(n_steps=150, batch_size=200, sampling=SamplingConfig(batch_size=200)),
)

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    prepare()
    main(tyro.cli(Config, default=DEFAULT))
