import torch

import einops_x
