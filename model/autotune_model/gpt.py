"""A GPT-2-style decoder: pre-norm blocks, learned positions, GELU, no biases. Meant to be read in one sitting.

Dimensions: B sequences, T positions, C width, H heads, Q = C / H width of a head, V vocabulary.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.utils.checkpoint import checkpoint

from autotune_model.config import GPTConfig, TrainingConfig

SDPA_BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}


class Attention(nn.Module):
    """Causal self-attention over the H heads that `qkv` has rows for: `(B, T, C)` to `(B, T, C)`.

    `GPT.set_dropout` sets its dropout rate.
    """

    def __init__(self, config: GPTConfig, training: TrainingConfig) -> None:
        super().__init__()
        self.head_width = config.width // config.heads
        self.kernel = training.attention
        self.copies = training.qkv_layout == "contiguous"
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        self.projection = nn.Linear(config.width, config.width, bias=False)
        self.dropout = nn.Dropout(0.0)
        future = torch.ones(config.sequence_length, config.sequence_length, dtype=torch.bool).triu(diagonal=1)
        self.register_buffer("future", future, persistent=False)
        self.future: Tensor

    def forward(self, x: Tensor) -> Tensor:
        B, T, _ = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, -1, self.head_width).permute(2, 0, 3, 1, 4)  # (B, H, T, Q) each
        if self.copies:
            q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        match self.kernel:
            case "math":
                y = self._math(q, k, v)
            case "flex":
                y = _compiled_flex()(q, k, v, block_mask=_causal_blocks(T, x.device))
            case "sdpa":
                y = self._fused(q, k, v)
            case _:
                with sdpa_kernel(SDPA_BACKENDS[self.kernel]):
                    y = self._fused(q, k, v)
        return self.dropout(self.projection(y.transpose(1, 2).reshape(B, T, -1)))  # type: ignore[no-any-return]

    def _fused(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        dropout = self.dropout.p if self.training else 0.0
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)

    def _math(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention written out: the full `(B, H, T, T)` score matrix is in memory."""
        T, Q = q.shape[-2:]
        scores = (q @ k.transpose(-2, -1)) / math.sqrt(Q)
        weights = scores.masked_fill(self.future[:T, :T], -math.inf).softmax(dim=-1)
        return self.dropout(weights) @ v  # type: ignore[no-any-return]


@functools.cache
def _compiled_flex() -> Callable[..., Tensor]:
    """FlexAttention is fast only if compiled, whether or not the rest of the model is."""
    return torch.compile(flex_attention)


@functools.cache
def _causal_blocks(length: int, device: torch.device) -> BlockMask:
    return create_block_mask(lambda _b, _h, q, k: q >= k, None, None, length, length, device=str(device))


class Block(nn.Module):
    """One layer: attention and a GELU MLP of four times the width, each on a normalised residual."""

    def __init__(self, config: GPTConfig, training: TrainingConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width, bias=False)
        self.attention = Attention(config, training)
        self.mlp_norm = nn.LayerNorm(config.width, bias=False)
        self.mlp_in = nn.Linear(config.width, 4 * config.width, bias=False)
        self.mlp_out = nn.Linear(4 * config.width, config.width, bias=False)
        self.dropout = nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.dropout(self.mlp_out(F.gelu(self.mlp_in(self.mlp_norm(x)), approximate="tanh")))  # type: ignore[no-any-return]


class GPT(nn.Module):
    """The language model, with the kernels that `training` names; a tied head shares the token embedding's weights.

    The rows of embedding and head are padded to a multiple of `vocab_multiple`. Padded tokens never occur and
    their logits are sliced off, so that the padding changes only shapes.

    The initial weights depend only on `seed` and the shape: they are drawn on the CPU, the head's
    last, so that a tied model starts like its untied counterpart.
    """

    def __init__(self, config: GPTConfig, training: TrainingConfig, *, vocab_size: int, seed: int) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        self.checkpointing = training.checkpointing
        self.chunked_loss = training.loss_kernel == "chunked"
        rows = math.ceil(vocab_size / training.vocab_multiple) * training.vocab_multiple
        self.token_embedding = nn.Embedding(rows, config.width)
        self.position_embedding = nn.Embedding(config.sequence_length, config.width)
        self.dropout = nn.Dropout(0.0)
        self.blocks = nn.ModuleList(Block(config, training) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width, bias=False)
        self.head = nn.Linear(config.width, rows, bias=False)
        if training.tied_head:
            self.head.weight = self.token_embedding.weight
        self._compiled: tuple[nn.Module, ...] = ()  # used only in training: evaluation would recompile them
        self.set_dropout(training.dropout)
        self.initialise(seed)

    def compile_blocks(self) -> None:
        """Compile each block by itself: they share one graph, which is compiled once."""
        self._compiled = tuple(torch.compile(block) for block in self.blocks)  # type: ignore[misc]

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Reset every weight to its initial value, discarding any training."""
        for parameter, value in zip(self.parameters(), initial_weights(self.shapes, seed), strict=True):
            parameter.copy_(padded(value, parameter.shape))

    def set_dropout(self, rate: float) -> None:
        """Set the training dropout rate of every dropout layer in the model."""
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = rate

    def logits(self, tokens: Tensor) -> Tensor:
        """Map token ids `(B, T)` to next-token logits `(B, T, V)`."""
        return self.project(self.transform(self.embed(tokens)))

    def embed(self, tokens: Tensor) -> Tensor:
        """Map token ids `(B, T)` to the residual stream `(B, T, C)`."""
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        return self.dropout(self.token_embedding(tokens) + self.position_embedding(positions))  # type: ignore[no-any-return]

    def transform(self, x: Tensor) -> Tensor:
        """Pass the residual stream `(B, T, C)` through all blocks."""
        for block in self._compiled if self._compiled and self.training else self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.checkpointing and self.training else block(x)
        return x

    def project(self, x: Tensor) -> Tensor:
        """Map the residual stream `(B, T, C)` to logits `(B, T, V)`."""
        logits: Tensor = self.head(self.norm(x))
        # The gradient of a slice is a copy, which a head without padding can avoid.
        return logits if logits.shape[-1] == self.vocab_size else logits[..., : self.vocab_size]

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Map tokens and targets `(B, T)` to the mean loss, a scalar in nats per token."""
        if self.chunked_loss:
            hidden = self.norm(self.transform(self.embed(tokens)))
            return self._chunked_loss(hidden.flatten(0, 1), targets.flatten())
        return self.token_losses(tokens, targets).mean()

    def token_losses(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Map tokens and targets `(B, T)` to per-token losses `(B, T)` in nats, computed in fp32."""
        return losses_of(self.logits(tokens), targets)

    def _chunked_loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Map head inputs `(N, C)` and targets `(N,)` to the mean loss, never with all logits in memory.

        In the dtype that the head's matmul would have, because autocast does not cover this torch operator.
        """
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        with torch.autocast(device, enabled=False):
            return F.linear_cross_entropy(
                hidden.to(dtype), self.head.weight.to(dtype), targets, options=nn.LinearCrossEntropyOptions()
            ).float()

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each distinct parameter by name, in their order, without padded rows."""
        by_token = (self.token_embedding.weight, self.head.weight)
        return {
            name: (self.vocab_size, *p.shape[1:]) if any(p is matrix for matrix in by_token) else tuple(p.shape)
            for name, p in self.named_parameters()
        }

    @property
    def parameter_count(self) -> int:
        """Distinct parameters: shared weights count once."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def flops_per_token(self) -> float:
        """FLOPs of one training step per token: 6N + 12*L*H*Q*T (PaLM, arXiv 2204.02311, appendix B).

        N counts the parameters used in multiplications. Embeddings are looked up, so the position
        embedding and, unless it is also the head, the token embedding are left out.
        """
        config = self.config
        looked_up = self.position_embedding.weight.numel()
        if self.head.weight is not self.token_embedding.weight:
            looked_up += self.token_embedding.weight.numel()
        return 6.0 * (self.parameter_count - looked_up) + 12.0 * config.layers * config.width * config.sequence_length


def initial_weights(shapes: Mapping[str, tuple[int, ...]], seed: int) -> Iterator[Tensor]:
    """GPT-2's initial weights for the parameters in `shapes`, in order, drawn on the CPU.

    Normal with deviation 0.02, projections onto the residual divided by sqrt(2 * layers); norms are one.
    """
    projections = [name for name in shapes if name.endswith(("projection.weight", "mlp_out.weight"))]  # two per layer
    generator = torch.Generator().manual_seed(seed)
    for name, shape in shapes.items():
        if len(shape) < 2:
            yield torch.ones(shape)
            continue
        deviation = 0.02 / math.sqrt(len(projections)) if name in projections else 0.02
        yield torch.empty(shape).normal_(std=deviation, generator=generator)


def padded(value: Tensor, shape: Sequence[int]) -> Tensor:
    """`value` as the first rows of a tensor of that shape, the others zero."""
    if value.shape == tuple(shape):
        return value
    whole = value.new_zeros(tuple(shape))
    whole[: len(value)] = value
    return whole


def losses_of(logits: Tensor, targets: Tensor) -> Tensor:
    """Map logits `(B, T, V)` and targets `(B, T)` to per-token losses `(B, T)` in nats, computed in fp32."""
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
