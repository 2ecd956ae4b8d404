"""A GPT-2-style decoder: pre-norm blocks, learned positions, GELU, no biases. To be read at a sitting.

Dimensions: B sequences, T positions, C width, H heads, Q = C / H width of a head, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import GPTConfig


class Attention(nn.Module):
    """Causal self-attention over H heads, as many as `qkv` has rows for: `(B, T, C)` to `(B, T, C)`."""

    def __init__(self, config: GPTConfig, kernel: str) -> None:
        super().__init__()
        self.head_width = config.width // config.heads
        self.kernel = kernel
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        self.projection = nn.Linear(config.width, config.width, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        future = torch.ones(config.sequence_length, config.sequence_length, dtype=torch.bool).triu(diagonal=1)
        self.register_buffer("future", future, persistent=False)
        self.future: Tensor

    def forward(self, x: Tensor) -> Tensor:
        B, T, _ = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, -1, self.head_width).permute(2, 0, 3, 1, 4)  # (B, H, T, Q) each
        if self.kernel == "sdpa":
            dropout = self.dropout.p if self.training else 0.0
            y = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        else:
            y = self._math(q, k, v)
        return self.dropout(self.projection(y.transpose(1, 2).reshape(B, T, -1)))  # type: ignore[no-any-return]

    def _math(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention written out: the whole `(B, H, T, T)` matrix of scores stands in memory."""
        T, Q = q.shape[-2:]
        scores = (q @ k.transpose(-2, -1)) / math.sqrt(Q)
        weights = scores.masked_fill(self.future[:T, :T], -math.inf).softmax(dim=-1)
        return self.dropout(weights) @ v  # type: ignore[no-any-return]


class Block(nn.Module):
    """One layer: attention and a GELU MLP of four times the width, each on a normalised residual."""

    def __init__(self, config: GPTConfig, kernel: str) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width, bias=False)
        self.attention = Attention(config, kernel)
        self.mlp_norm = nn.LayerNorm(config.width, bias=False)
        self.mlp_in = nn.Linear(config.width, 4 * config.width, bias=False)
        self.mlp_out = nn.Linear(4 * config.width, config.width, bias=False)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.dropout(self.mlp_out(F.gelu(self.mlp_in(self.mlp_norm(x)), approximate="tanh")))  # type: ignore[no-any-return]


class GPT(nn.Module):
    """The language model. `attention` is `math` or `sdpa`; a tied head shares the token embedding's weights.

    The initial weights are a function of `seed` and the shape alone: they are drawn on the CPU, the
    head's last, so that a tied model starts like its untied twin.
    """

    def __init__(self, config: GPTConfig, *, vocab_size: int, tied_head: bool, attention: str, seed: int) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(vocab_size, config.width)
        self.position_embedding = nn.Embedding(config.sequence_length, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, attention) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width, bias=False)
        self.head = nn.Linear(config.width, vocab_size, bias=False)
        if tied_head:
            self.head.weight = self.token_embedding.weight
        self.initialise(seed)

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Set every weight to its initial value, whatever training has made of it."""
        for parameter, value in zip(self.parameters(), initial_weights(self.shapes, seed), strict=True):
            parameter.copy_(value)

    def logits(self, tokens: Tensor) -> Tensor:
        """Token numbers `(B, T)` to the logits of each next token `(B, T, V)`."""
        return self.project(self.transform(self.embed(tokens)))

    def embed(self, tokens: Tensor) -> Tensor:
        """Token numbers `(B, T)` to the residual stream `(B, T, C)`."""
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        return self.dropout(self.token_embedding(tokens) + self.position_embedding(positions))  # type: ignore[no-any-return]

    def transform(self, x: Tensor) -> Tensor:
        """The residual stream `(B, T, C)` through all blocks."""
        for block in self.blocks:
            x = block(x)
        return x

    def project(self, x: Tensor) -> Tensor:
        """The residual stream `(B, T, C)` to logits `(B, T, V)`."""
        return self.head(self.norm(x))  # type: ignore[no-any-return]

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Tokens and targets `(B, T)` to the mean loss, a scalar in nats per token."""
        return self.token_losses(tokens, targets).mean()

    def token_losses(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Tokens and targets `(B, T)` to the loss of every token `(B, T)` in nats, computed in fp32."""
        return losses_of(self.logits(tokens), targets)

    @property
    def shapes(self) -> dict[str, torch.Size]:
        """The shape of each distinct parameter by name, in their order."""
        return {name: parameter.shape for name, parameter in self.named_parameters()}

    @property
    def parameter_count(self) -> int:
        """Distinct parameters: shared weights count once."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def flops_per_token(self) -> float:
        """FLOPs of one training step per token: 6N + 12*L*H*Q*T (PaLM, arXiv 2204.02311, appendix B).

        N counts the parameters that multiply something. The embeddings are looked up, so the
        positions and, unless it is the head as well, the token embedding are left out.
        """
        config = self.config
        looked_up = self.position_embedding.weight.numel()
        if self.head.weight is not self.token_embedding.weight:
            looked_up += self.token_embedding.weight.numel()
        return 6.0 * (self.parameter_count - looked_up) + 12.0 * config.layers * config.width * config.sequence_length


def initial_weights(shapes: Mapping[str, torch.Size], seed: int) -> Iterator[Tensor]:
    """GPT-2's, for the parameters of those names in their order, drawn on the CPU.

    Normal with deviation 0.02, projections onto the residual divided by sqrt(2 * layers); norms are one.
    """
    projections = [name for name in shapes if name.endswith(("projection.weight", "mlp_out.weight"))]  # two a layer
    generator = torch.Generator().manual_seed(seed)
    for name, shape in shapes.items():
        if len(shape) < 2:
            yield torch.ones(shape)
            continue
        deviation = 0.02 / math.sqrt(len(projections)) if name in projections else 0.02
        yield torch.empty(shape).normal_(std=deviation, generator=generator)


def losses_of(logits: Tensor, targets: Tensor) -> Tensor:
    """Logits `(B, T, V)` and targets `(B, T)` to the loss of every token `(B, T)` in nats, computed in fp32."""
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
