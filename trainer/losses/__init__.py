"""The losses that torch.nn has not, and what each known loss takes."""

from trainer.losses.boxes import DIoU, GIoU
from trainer.losses.labels import BCE, CrossEntropy, Hinge
from trainer.losses.overlap import Dice, DiceCE, Focal, Jaccard, Tversky

__all__ = ["BCE", "CrossEntropy", "DIoU", "Dice", "DiceCE", "Focal", "GIoU", "Hinge", "Jaccard", "Tversky"]
