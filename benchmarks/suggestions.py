"""How often the best of 60 trials is better with TPE than at random, on functions whose best point is known.

    python -m benchmarks.suggestions

Every seed is a search with TPE, the first 15 of it random, beside one that is random throughout. With noise the best is
chosen by its score and counted by what it is worth without, as a training with one seed is.
"""

from __future__ import annotations

import argparse
import statistics
import sys

from tests.trainer.searching import BOWL, Known, score_after
from trainer.search.sampler import GAMMA
from trainer.search.space import Space

HYPEROPTS_GAMMA = 0.25
CONTINUOUS = Known(
    Space.read(
        {
            "dropout": ["uniform", 0, 1],
            "warm_up": ["uniform", 0, 1],
            "learning_rate": ["loguniform", 1e-4, 1e-2],
            "top_k_share": ["uniform", 0, 1],
            "activation": ["choice", "relu", "leaky_relu"],
        },
        "the benchmark",
    ),
    {
        "dropout": 0.3,
        "warm_up": 0.8,
        "learning_rate": 2e-3,
        "top_k_share": 0.55,
        "activation": "leaky_relu",
    },
)
FUNCTIONS = {"the paper's first space": BOWL, "four continuous settings and a choice": CONTINUOUS}
BLOCK = 20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=80, help="searches of each kind, seeds from 0 on")
    parser.add_argument("--noise", type=float, nargs="+", default=[0.0, 0.03], help="standard deviations")
    args = parser.parse_args()
    sys.stdout.write(
        "| function | noise | gamma | TPE wins | in blocks of 20 | median of 1 - best, random |\n"
    )
    sys.stdout.write("|---|---|---|---|---|---|\n")
    for name, known in FUNCTIONS.items():
        for noise in args.noise:
            seeds = range(args.seeds)
            random = [score_after(60, known, seed=seed, random_first=60, noise=noise) for seed in seeds]
            for gamma in (HYPEROPTS_GAMMA, GAMMA):
                tpe = [
                    score_after(60, known, seed=seed, random_first=15, gamma=gamma, noise=noise)
                    for seed in seeds
                ]
                won = [ours > theirs for ours, theirs in zip(tpe, random, strict=True)]
                blocks = ", ".join(str(sum(won[at : at + BLOCK])) for at in range(0, args.seeds, BLOCK))
                apart = [f"{1 - statistics.median(scores):.4f}" for scores in (tpe, random)]
                sys.stdout.write(
                    f"| {name} | {noise:g} | {gamma} | {sum(won)} of {args.seeds} | {blocks} | {', '.join(apart)} |\n"
                )
                sys.stdout.flush()


if __name__ == "__main__":
    main()
