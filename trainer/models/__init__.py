"""Reference models: plain modules that take the facts of the data (`num_classes`, ...) by argument name."""

from trainer.models.cnn import CNN
from trainer.models.mlp import MLP
from trainer.models.resnet import ResNet
from trainer.models.transformer import Transformer
from trainer.models.unet import UNet

__all__ = ["CNN", "MLP", "ResNet", "Transformer", "UNet"]
