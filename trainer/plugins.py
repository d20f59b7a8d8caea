"""What chooses and what launches the jobs of a sweep, under the names that Hydra's users know."""

from __future__ import annotations

from typing import Any

_GRID: dict[str, Any] = {"params": {}, "zip": [], "only": None}

SWEEPERS: dict[str, dict[str, Any]] = {
    "basic": {"_target_": "trainer.space.Grid", **_GRID},
    "grid": {"_target_": "trainer.space.Grid", **_GRID},
    "random": {"_target_": "trainer.space.Random", "n_trials": 20, "seed": 0, **_GRID},
    "optuna": {
        "defaults": ["_self_", {"sampler": "tpe"}, {"pruner": "none"}],
        "_target_": "trainer.search.Optuna",
        "_recursive_": False,
        "n_trials": 20,
        "n_jobs": None,
        "metrics": None,
        "direction": None,
        "study_name": None,
        "storage": None,
        "seed": 0,
        **_GRID,
    },
}
"""All are ours: one of a plugin would launch the jobs itself, and could not go on with a sweep that was killed."""

SAMPLERS: dict[str, dict[str, Any]] = {
    "tpe": {"_target_": "optuna.samplers.TPESampler", "n_startup_trials": 10, "multivariate": False},
    "random": {"_target_": "optuna.samplers.RandomSampler"},
    "nsgaii": {"_target_": "optuna.samplers.NSGAIISampler", "population_size": 20},
    "cmaes": {"_target_": "optuna.samplers.CmaEsSampler"},
}

PRUNERS: dict[str, dict[str, Any]] = {
    "none": {},
    "median": {"_target_": "trainer.pruning.Median", "n_startup_trials": 5, "n_warmup_steps": 0, "unit": "epoch"},
    "asha": {"_target_": "trainer.pruning.Asha", "min_resource": 1, "reduction_factor": 4, "unit": "epoch"},
    "hyperband": {"_target_": "trainer.pruning.Asha", "min_resource": 1, "reduction_factor": 3, "n_brackets": 3,
                  "unit": "epoch"},
}  # fmt: skip

_LOCAL, _SUBMITIT = "trainer.launchers.Local", "trainer.cluster.Submitit"
_SLURM = {
    "_target_": _SUBMITIT, "cluster": "slurm", "timeout_min": 240, "max_num_timeout": 50, "signal_delay_s": 120,
    "array_parallelism": 16, "nodes": 1, "tasks_per_node": 1, "gpus_per_node": 1, "cpus_per_task": 8, "mem_gb": 32,
    "name": "trainer", "partition": None, "account": None, "qos": None, "constraint": None, "exclude": None,
    "gres": None, "comment": None, "setup": None, "additional_parameters": {},
}  # fmt: skip
LAUNCHERS = {
    "basic": {"_target_": _LOCAL, "n_jobs": 1, "jobs_per_gpu": 1},
    "joblib": {"_target_": _LOCAL, "n_jobs": -1, "jobs_per_gpu": 1},
    "slurm": _SLURM,
    "submitit_slurm": _SLURM,
    "submitit_local": {"_target_": _SUBMITIT, "cluster": "local", "n_jobs": -1, "timeout_min": 1440,
                       "max_num_timeout": 50},
}  # fmt: skip
"""What launches the jobs of a sweep, under the names that Hydra's users know. All are ours: in Hydra's a job that is
killed takes the sweep with it, and a Ctrl-C ends jobs that have not saved."""

STORED = {"hydra/launcher": LAUNCHERS, "hydra/sweeper": SWEEPERS, "hydra/sweeper/sampler": SAMPLERS,
          "hydra/sweeper/pruner": PRUNERS}  # fmt: skip
