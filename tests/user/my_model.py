"""A user's model: batch norm and dropout, and a trace of what it is called for."""

import os

from torch import nn

TRACE = os.open("trace", os.O_WRONLY | os.O_APPEND | os.O_CREAT)


class Net(nn.Module):
    def __init__(self, in_features, num_classes, width=48, dropout=0.2):
        super().__init__()
        norm, drop = nn.BatchNorm1d(width), nn.Dropout(dropout)
        hidden = nn.Linear(in_features, width), norm, nn.ReLU(), drop
        self.layers = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(width, num_classes))

    def forward(self, x):
        os.write(TRACE, b"t" if self.training else b"e")  # so that it can be seen from outside what is going on
        return self.layers(x)
