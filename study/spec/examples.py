"""Study files that `docs/study-file.md` shows; tests plan them."""

from __future__ import annotations

EXAMPLES: tuple[tuple[str, str, str], ...] = (
    (
        "A grid",
        "Every combination of the levels is a *cell*, and every cell is trained once with each seed: here 5 x 2 x 2 "
        "cells and 60 trials.",
        """\
study: ring-grid
model: gan
data: ring8
seeds: [0, 1, 2]
budget: {d_updates: 2000, evaluations: 50}
factors:
  lr: [1e-4, 4e-4, 1.6e-3, 6.4e-3, 2.56e-2]
  reg_weight: [0, 5]
  ratio: ["1:2", "1:10"]
fixed: {anchor: period_start, z_use: pool}
""",
    ),
    (
        "A sample with a condition",
        "32 Sobol points. `anchor_lag` is drawn only where the anchor is `lag`, the only one that reads it.",
        """\
study: ring-sobol
model: gan
data: ring8
seeds: [0, 1]
budget: {d_updates: 2000}
sampling:
  method: sobol
  n: 32
  seed: 1
  space:
    lr: {low: 1e-4, high: 1e-1, log: true}
    width: {low: 16, high: 128, log: true}
    anchor: {choices: [period_start, lag]}
    anchor_lag: {low: 1, high: 8, when: {anchor: lag}}
fixed: {ratio: "1:10", reg_weight: 5}
""",
    ),
    (
        "A grid, each cell tuned with the same effort",
        "Factors and a sample together: each cell of the grid gets its own n configurations. All begin with the "
        "same ones.",
        """\
study: ring-tuned
model: gan
data: ring8
seeds: [0]
budget: {d_updates: 2000}
factors:
  reg_weight: [0, 5]
sampling:
  method: optuna
  n: 40
  space:
    lr: {low: 1e-4, high: 1e-1, log: true}
    beta1: {low: 0, high: 0.9}
fixed: {ratio: "1:10"}
""",
    ),
    (
        "Two data sets in one study",
        "The digits have a budget and factors of their own; model, seeds and `fixed` are those of the top level.",
        """\
study: ring-and-digits
model: gan
seeds: [0, 1, 2]
budget: {d_updates: 2000, evaluations: 50}
factors:
  lr: [1e-4, 1e-3, 1e-2]
  batch_norm: [false, true]
fixed: {ratio: "1:2", reg_weight: 5}
blocks:
  - data: ring8
  - data: digits
    budget: {d_updates: 1000, evaluations: 20}
    factors:
      lr: [4e-4, 1.6e-3]
      batch_norm: [true]
    save_samples: {evaluations: [0, 10, 20]}
    keep_checkpoints: final
""",
    ),
    (
        "Arms and a claim",
        "32 configurations, each in five arms with two seeds. A2 draws its weight with the configuration; A3a has the "
        "generator's rate that makes it drift as far as in A1; A3b takes a fifth of the generator steps.",
        """\
study: ring-claim
model: gan
data: ring8
class: G
seeds: [0, 1]
budget: {d_updates: 2000, evaluations: 20}
sampling:
  method: sobol
  n: 32
  seed: 1
  space:
    lr: {low: 1e-4, high: 1e-1, log: true}
    ratio: {choices: ["1:5", "1:10"]}
arms:
  A0: {reg_weight: 0}
  A1: {reg_weight: 5}
  A2: {reg_weight: {low: 0.05, high: 500, log: true}}
  A3a: {reg_weight: 0, g_lr: {match_drift: A1}}
  A3b: {reg_weight: 0, g_steps: {times: 0.2}}
claim:
  id: ring
  question: Does the term make training less sensitive to its hyperparameters?
  baseline: A0
  treatment: A1
  slower: [A3a, A3b]
  tuned: A2
  predictions:
    - {id: H1, class: G, expect: supported}
""",
    ),
)
"""Title, what it shows, study file."""
