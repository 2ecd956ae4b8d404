"""torch's own optimizers, chosen by the knob `optimizer`, and which parameters they decay.

`adamw` updates all parameters. `adafactor` (Shazeer & Stern 2018, arXiv 1804.04235) keeps the second moment of
a matrix as one row and one column and no first moment; torch's steps by min(learning rate, 1 / sqrt(step))
relative to the RMS of each tensor, so its good learning rates are about ten times AdamW's.
`muon` (Jordan et al. 2024; Liu et al. 2025, arXiv 2502.16982) orthogonalises the momentum of the hidden
matrices and leaves embeddings, head and vectors to AdamW.

The knob `optimizer_kernel` applies if torch has the kernel: Adafactor has no fused one and uses
`foreach` instead; Muon's own part has a single kernel, so the knob affects only its AdamW part.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Adafactor, AdamW, Muon, Optimizer

from autotune_model.config import TrainingConfig

BETA1 = 0.9
"""GPT-3's value (arXiv 2005.14165, appendix B), like the default of `beta2`."""

_LOOKED_UP_OR_HEAD = ("token_embedding.weight", "position_embedding.weight", "head.weight")

_Group = dict[str, Any]


class MuonWithAdamW(Optimizer):
    """Two optimizers over disjoint parameters that step together, or skip together on fp16 overflow.

    It owns the groups and the state of both; AdamW's come first, because it counts its updates.
    """

    def __init__(self, adamw: AdamW, muon: Muon) -> None:
        super().__init__([*adamw.param_groups, *muon.param_groups], {})  # the same objects: a rate reaches both
        self.parts = (adamw, muon)
        for part in self.parts:
            part.state = self.state

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Step both; no `closure` is supported, because each would evaluate it again."""
        for part in self.parts:
            part.step(closure)


class InBackward:
    """One optimizer per parameter, which steps as soon as the gradient is complete.

    The gradient is freed at once, so that only one is in memory at a time. While `is_armed` is False,
    gradients are left in place, and `step` makes the same update from them.
    """

    def __init__(self, whole: Optimizer) -> None:
        """`whole` is an AdamW over all parameters, which is split up and not used itself."""
        self.is_armed = False
        self._parts: dict[Tensor, Optimizer] = {
            parameter: AdamW([{**group, "params": [parameter]}])
            for group in whole.param_groups
            for parameter in group["params"]
        }
        self._hooks = [p.register_post_accumulate_grad_hook(self._update) for p in self._parts]  # type: ignore[no-untyped-call]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all parts; changes apply from the next update on."""
        return [group for part in self._parts.values() for group in part.param_groups]

    @property
    def state(self) -> dict[Tensor, Any]:
        """State by parameter, for those updated."""
        return {p: part.state[p] for p, part in self._parts.items() if p in part.state}

    def step(self) -> None:
        """Update from the gradients that are in place."""
        for part in self._parts.values():
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients that are in place."""
        for part in self._parts.values():
            part.zero_grad(set_to_none)

    def release(self) -> None:
        """Remove the hooks from the parameters."""
        for hook in self._hooks:
            hook.remove()

    def _update(self, parameter: Tensor) -> None:
        if self.is_armed:
            self._parts[parameter].step()
            parameter.grad = None


def build_optimizer(model: nn.Module, training: TrainingConfig) -> Optimizer:
    """The optimizer that `training` asks for, over all parameters of `model`, with decoupled weight decay.

    Each group's `decays` entry says whether weight decay applies to it.
    """
    parameters = dict(model.named_parameters())
    if training.optimizer == "adafactor":
        in_lists = training.optimizer_kernel != "for_loop"
        return Adafactor(_groups(parameters, training), lr=training.learning_rate, foreach=in_lists)
    if training.optimizer == "muon":
        hidden = {name: p for name, p in parameters.items() if _is_hidden_matrix(name, p)}
        others = {name: p for name, p in parameters.items() if name not in hidden}
        # Matches the usual size of AdamW's updates (arXiv 2502.16982, 2.2): one learning rate fits both.
        muon = Muon(_groups(hidden, training), lr=training.learning_rate, adjust_lr_fn="match_rms_adamw")
        return MuonWithAdamW(_adamw(others, training), muon)
    return _adamw(parameters, training)


def set_rates(optimizer: Optimizer | InBackward, *, learning_rate: float, weight_decay: float) -> None:
    """Set the rates of the next step for all groups; `weight_decay` only for the groups that decay."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
        group["weight_decay"] = weight_decay if group["decays"] else 0.0


def updates_made(optimizer: Optimizer | InBackward) -> int:
    """Number of actual weight updates: the optimizer's own count, which excludes steps skipped on overflow."""
    first = optimizer.param_groups[0]["params"][0]
    return int(optimizer.state[first]["step"].item()) if first in optimizer.state else 0


def _adamw(parameters: Mapping[str, nn.Parameter], training: TrainingConfig) -> AdamW:
    return AdamW(
        _groups(parameters, training),
        lr=training.learning_rate,
        betas=(BETA1, training.beta2),
        foreach=training.optimizer_kernel == "foreach",
        fused=training.optimizer_kernel == "fused",
    )


def _groups(parameters: Mapping[str, nn.Parameter], training: TrainingConfig) -> list[_Group]:
    """The parameters that decay and those that do not; empty groups are left out."""
    decayed = [p for name, p in parameters.items() if _decays(name, p, training.decay_groups)]
    others = [p for name, p in parameters.items() if not _decays(name, p, training.decay_groups)]
    groups: list[_Group] = [
        {"params": decayed, "weight_decay": training.weight_decay, "decays": True},
        {"params": others, "weight_decay": 0.0, "decays": False},
    ]
    return [group for group in groups if group["params"]]


def _decays(name: str, parameter: nn.Parameter, decay_groups: str) -> bool:
    if decay_groups == "matrices":
        return parameter.dim() >= 2
    return decay_groups == "all" or _is_hidden_matrix(name, parameter)


def _is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    return parameter.dim() == 2 and not name.endswith(_LOOKED_UP_OR_HEAD)
