"""Gradient normalisation and clipping, between backward and update."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from autotune_model.config import TrainingConfig

Norm = Callable[[Tensor], Tensor]
"""Maps the norm of this process's gradients to the norm of all gradients."""


def condition_gradients(
    parameters: Iterable[nn.Parameter], training: TrainingConfig, whole_norm: Norm = lambda norm: norm
) -> None:
    """Normalise, clip by norm and clip by value, in that order and each only if enabled, all in place.

    Normalisation goes first, because it would undo clipping by norm. Clipping by value goes last, so
    that no element ends up larger than `clip_value`, whatever the norm was clipped to.
    """
    parameters = [parameter for parameter in parameters if parameter.grad is not None]
    gradients = [p.grad for p in parameters if p.grad is not None]
    normalise_(gradients, training.gradient_normalization, whole_norm)
    if training.clip_norm:
        norm = whole_norm(gathered(nn.utils.get_total_norm(gradients)))
        nn.utils.clip_grads_with_norm_(parameters, training.clip_norm, norm)
    if training.clip_value:
        nn.utils.clip_grad_value_(parameters, training.clip_value)


@torch.no_grad()
def normalise_(gradients: list[Tensor], how: str, whole_norm: Norm = lambda norm: norm) -> None:
    """Divide gradients of any shapes by their L2 norm in place; those that are zero stay zero.

    `global` divides all by the norm of the whole gradient, `per_parameter` each tensor by its own (Yu et
    al. 2017, arXiv 1707.04822), so the whole norm becomes the square root of the number of tensors.
    """
    if how == "none":
        return
    smallest = torch.finfo(torch.float32).tiny  # avoids division by zero
    if how == "global":
        torch._foreach_div_(gradients, whole_norm(gathered(nn.utils.get_total_norm(gradients))).clamp(min=smallest))
    else:
        norms = [gathered(norm) for norm in torch._foreach_norm(gradients)]
        torch._foreach_clamp_min_(norms, smallest)
        torch._foreach_div_(gradients, norms)


def gathered(tensor: Tensor) -> Tensor:
    """The full tensor if each process has a shard or a partial sum; any other tensor unchanged."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
