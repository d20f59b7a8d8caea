"""What is measured in evaluation: sums that add up over batches and processes, and the numbers made of their total."""

from trainer.metrics.base import Direction, Metric, predicted, weighed, wide
from trainer.metrics.classes import Accuracy, BitsPerCharacter, Confusion, Scores, class_names, wrong_class
from trainer.metrics.outside import Outside, as_metric
from trainer.metrics.values import MAE, R2, RMSE, LabelAccuracy

__all__ = [
    "MAE", "R2", "RMSE", "Accuracy", "BitsPerCharacter", "Confusion", "Direction", "LabelAccuracy", "Metric", "Outside",
    "Scores", "as_metric", "class_names", "predicted", "weighed", "wide", "wrong_class",
]  # fmt: skip
