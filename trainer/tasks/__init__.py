"""What one batch means: its loss in training, its sums and pictures in evaluation."""

from trainer.tasks.base import Criterion, Supervised, Task, tensor_of
from trainer.tasks.labelled import Classification, LanguageModel, Segmentation
from trainer.tasks.pictures import Restores
from trainer.tasks.structures import Embedding, SequenceToSequence
from trainer.tasks.values import MultiLabel, Regression

__all__ = [
    "Classification", "Criterion", "Embedding", "LanguageModel", "MultiLabel", "Regression", "Restores", "Segmentation",
    "SequenceToSequence", "Supervised", "Task", "tensor_of",
]  # fmt: skip
