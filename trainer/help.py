"""The text of `trainer --help`, made from the config files without composing them, so that it comes at once."""

from __future__ import annotations

import re
import textwrap

from trainer import _hydra

MEANINGS = {
    "seed": "of the weights and of the order of the data; 0 or more",
    "epochs": "how often to go through the training data",
    "batch_size": "samples in a batch",
    "accumulate": "batches that make one update; full: all of an epoch",
    "auto_accumulate": "true: out of memory halves what is computed at once",
    "evaluate_every": "500steps, 2epochs, 5% (of the run), 10min or never",
    "log_every": "likewise",
    "checkpoint_every": "likewise; what is lost at most when a run is killed",
    "skip_nonfinite": "updates in a row that may be left out: loss or gradient not finite",
    "resume": "never, auto (null in a sweep), must, a run folder, wandb:PROJECT/MODEL",
    "resume_changes": "allow: go on although a change alters the model or the order of the data",
    "strict_code": "true: a run whose code was changed is not gone on with",
    "name": "of the run's folder; null makes one up",
    "runs": "the folder that holds all runs; or set RUNS_DIR",
}
"""What each top-level value means, in the order of config.yaml."""

_TEXT = """\
Trains a PyTorch model, shows how it goes, here and on Weights & Biases, and keeps it in one folder.
An interrupted run or sweep goes on where it was.

Usage:  trainer [GROUP=FILE] [KEY=VALUE] ...        one run
        trainer -m KEY=VALUE,VALUE ...              a sweep; again: what is missing of it
        trainer resume=RUN_FOLDER [epochs=20] ...   goes on with that run

Groups (GROUP=FILE; your own files in ./conf/GROUP/ come first; what is in them: trainer --cfg job)
{groups}

Values (with their defaults; an experiment may change them)
{scalars}

Examples
  trainer                  finds coastlines in satellite pictures, in about a minute
  trainer experiment=digits optimizer=sgd optimizer.lr=0.05
  trainer experiment=image_mask_folder data.root=FOLDER    your pictures: imgs/ and masks/
  trainer early_stopping.patience=10 clip=norm clip.norm=0.5 wandb.mode=offline
  trainer -m optimizer=sgd,adam,adamw seed=0,1,2 name=optimizers
  trainer model=mine       your own class: conf/model/mine.yaml holding  _target_: my_model.Net

Options
  --cfg job       shows the composed config
  --multirun, -m  runs a sweep
  --hydra-help    tells of Hydra's own options
  -sc install=bash prints what makes TAB complete words:  eval "$(trainer -sc install=bash)"

Other commands
  trainer-check [OVERRIDES]    every mistake in a config (-m: a sweep), and its learning rate drawn;
                               with lr_find=true it tests which learning rate to begin with
  trainer-evaluate RUN_FOLDER  evaluates a kept checkpoint (--which best or last)
  trainer-replay RUN_FOLDER    where in the model a step went wrong: NaN, an exception
  trainer-compare FOLDER ...   ranks settings over their seeds, and tests them (--csv FILE, --watch)
  trainer-sync FOLDER ...      sends runs to wandb that are not there yet, and checks what arrived
  trainer-dashboard FOLDER     a view on wandb that compares the runs of a sweep, or of a PROJECT

Exit codes
  0 done        1 the run, or one of the sweep, failed   2 wrong config or data, nothing was begun
  4 diverged    5 no checkpoint can be read              6 the last save failed
  128+n         ended by signal n; everything is saved and can be resumed
"""


def help_text() -> str:
    """What `trainer --help` prints."""
    return _TEXT.format(groups="\n".join(_groups()), scalars="\n".join(_scalars()))


def _groups() -> list[str]:
    names = sorted(_hydra.groups(), key=lambda name: name != "experiment")  # what to choose first comes first
    width = max(map(len, names)) + 2
    return [
        textwrap.fill(
            ", ".join(_hydra.options(name)),
            100,
            initial_indent=f"  {name:{width}}",
            subsequent_indent=" " * (width + 2),
        )
        for name in names
    ]


def _scalars() -> list[str]:
    text = (_hydra.conf_dir() / f"{_hydra.CONFIG_NAME}.yaml").read_text(encoding="utf-8")
    values = {key: value.strip() for key, value in re.findall(r"^(\w+):[ ]*([^#\n]+)", text, re.MULTILINE)}
    words = {key: re.sub(r"\$\{oc\.env:\w+,(\w+)\}", r"\1", values[key]) for key in MEANINGS}
    return [f"  {f'{key}={words[key]}':26}{meaning}" for key, meaning in MEANINGS.items()]
