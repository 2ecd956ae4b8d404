"""How the processes of a session split the work of one model: one class per value of the knob `parallelism`.

| strategy   | batch        | weights, gradients, moments    | communication                         |
|------------|--------------|--------------------------------|---------------------------------------|
| `none`     | all          | all                            |                                       |
| `ddp`      | a share      | all                            | gradients, once a step                |
| `fsdp`     | a share      | a share                        | weights twice a pass, gradients       |
| `tensor`   | all          | a share of each layer          | activations, twice a layer            |
| `pipeline` | all          | some of the layers             | activations, between neighbours       |

`none` is the base class; the others override only what differs. All ranks call the same methods in the
same order, because most of them communicate; every rank gets the same result.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe
from torch.distributed.tensor import DTensor, Replicate, distribute_module, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

from autotune_model.config import TrainingConfig
from autotune_model.gpt import GPT, initial_weights, losses_of, padded
from autotune_model.gradients import gathered

Autocast = Callable[[], AbstractContextManager[Any]]
"""Context manager for a forward pass."""
Take = Callable[[int, int], tuple[Tensor, Tensor]]
"""Maps first sequence and count to tokens and targets, `(count, T)` each, on the device."""
Backward = Callable[[Tensor], None]
"""Adds the gradient of a scalar loss."""


class Parallelism:
    """A single process that does everything; base class of the strategies that split the work."""

    def __init__(self, gpt: GPT, training: TrainingConfig, device: torch.device, autocast: Autocast) -> None:
        self.gpt = gpt
        self.training = training
        self.device = device
        self.autocast = autocast
        self.world_size = training.world_size
        self.rank = dist.get_rank() if self.world_size > 1 else 0
        self.shapes = gpt.shapes
        self.loss = self.distribute()
        if training.compile == "regional":
            gpt.compile_blocks()
        elif training.compile != "off":
            self.loss = torch.compile(self.loss, mode=training.compile)
        # Kept until the next pass, like the variable of a plain loop: if its graph's nodes were freed with the pass,
        # glibc would return the pages around them to the kernel, and a small model's next step would reallocate.
        self._last_loss: Tensor | None = None

    def distribute(self) -> Callable[..., Tensor]:
        """Keep this rank's part of the model; returns the callable to compile.

        It computes a mean loss from tokens and targets, or one pipeline stage.
        """
        return self.gpt

    def add_gradient(self, take: Take, backward: Backward, first: int, count: int) -> Tensor:
        """Add the gradient of the mean loss of `count` sequences from `first` on, split across ranks.

        Returns this rank's part of that loss, a detached scalar (`whole_losses` combines the parts).
        """
        training = self.training
        passes = count // training.pass_sequences
        total = torch.zeros((), device=self.device)
        for number in range(passes):
            share = first + number * training.pass_sequences + self._first_of_rank
            with self.synchronised(number == passes - 1), self.autocast():
                loss = self.loss(*take(share, training.micro_batch))
            if passes > 1:  # a division adds a node to the graph
                loss = loss / passes
            with self.synchronised(number == passes - 1):
                backward(loss)
            self._last_loss = loss
            total += loss.detach()
        return total

    def token_losses(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Map tokens and targets `(B, T)`, the same on all ranks, to per-token losses `(B, T)`."""
        with self.autocast():
            return self.gpt.token_losses(tokens, targets)

    def logits(self, tokens: Tensor) -> Tensor:
        """Map tokens `(B, T)`, the same on all ranks, to logits `(B, T, V)`."""
        with self.autocast():
            return self.gpt.logits(tokens)

    @property
    def devices(self) -> int:
        """Number of devices the processes use: 1 on a CPU, which they share."""
        return 1 if self.device.type == "cpu" else self.world_size

    def whole_norm(self, norm: Tensor) -> Tensor:
        """The norm of the whole gradient, from that of this rank's part."""
        return norm

    def whole(self, tensors: Sequence[Tensor]) -> Iterator[Tensor]:
        """From one tensor per parameter of this rank, yield one per parameter of the model, in its order.

        They match those of a single process, without padded rows; one at a time, as all may not fit in memory.
        """
        for shape, tensor in zip(self.shapes.values(), tensors, strict=True):
            yield tensor[: shape[0]]

    def initialise(self, seed: int) -> None:
        """Set this rank's weights to the initial values of the whole model."""
        self.gpt.initialise(seed)

    def whole_losses(self, losses: Tensor) -> Tensor:
        """Mean losses over all sequences, from each rank's parts."""
        return losses

    def peak_memory(self, own_bytes: int) -> int:
        """Peak bytes: of all processes on a CPU, of the fullest device elsewhere."""
        if self.world_size == 1:
            return own_bytes
        counted = torch.tensor(own_bytes, dtype=torch.int64, device=self.device)
        dist.all_reduce(counted, dist.ReduceOp.SUM if self.device.type == "cpu" else dist.ReduceOp.MAX)
        return int(counted)

    def seed_of_dropout(self, seed: int) -> int:
        """Masks differ between ranks, as activations do."""
        return seed + self.rank

    @contextmanager
    def synchronised(self, last: bool) -> Iterator[None]:  # noqa: ARG002 - for strategies that split the batch
        """Context for part of a pass; gradients are averaged after the `last` pass of a step."""
        yield

    @property
    def _first_of_rank(self) -> int:
        """Where this rank's share of a pass's sequences begins."""
        return self.rank * self.training.micro_batch if self.training.data_ranks > 1 else 0


class DataParallelism(Parallelism):
    """Every rank has the whole model and trains on its share of the batch (`DistributedDataParallel`)."""

    def distribute(self) -> Callable[..., Tensor]:
        with warnings.catch_warnings():
            # From torch 2.13; the suggested replacement for `broadcast_buffers` is not in 2.10.
            warnings.simplefilter("ignore", FutureWarning)
            self._replica = DistributedDataParallel(self.gpt, broadcast_buffers=False, gradient_as_bucket_view=True)
        return self._replica

    @contextmanager
    def synchronised(self, last: bool) -> Iterator[None]:
        if last:
            yield
        else:
            with self._replica.no_sync():
                yield

    def whole_losses(self, losses: Tensor) -> Tensor:
        dist.all_reduce(losses)
        return losses / self.world_size


class MeshParallelism(Parallelism):
    """Base of the strategies whose weights and gradients are `DTensor`s, sharded over a mesh of all ranks."""

    mesh: DeviceMesh

    def distribute(self) -> Callable[..., Tensor]:
        self.mesh = init_device_mesh(self.device.type, (self.world_size,))
        return self.gpt

    def whole(self, tensors: Sequence[Tensor]) -> Iterator[Tensor]:
        for name, tensor in zip(self.shapes, tensors, strict=True):
            yield self.in_order(name, gathered(tensor))[: self.shapes[name][0]]

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        values = initial_weights(self.shapes, seed)
        for name, weight, value in zip(self.shapes, self.gpt.parameters(), values, strict=True):
            if not isinstance(weight, DTensor):
                raise TypeError(f"{name} must be distributed; got {type(weight).__name__}: see `distribute`")
            ordered = self.by_rank(name, padded(value, weight.shape)).to(self.device, weight.dtype)
            # Every rank has drawn the whole tensor, so no shard has to be sent.
            weight.copy_(distribute_tensor(ordered, self.mesh, weight.placements, src_data_rank=None))

    def in_order(self, name: str, whole: Tensor) -> Tensor:  # noqa: ARG002 - used by one strategy
        """A gathered tensor with its rows in single-process order."""
        return whole

    def by_rank(self, name: str, whole: Tensor) -> Tensor:  # noqa: ARG002 - used by one strategy
        """The inverse of `in_order`: rows in the order the ranks hold them."""
        return whole


class ShardedDataParallelism(MeshParallelism):
    """Every rank keeps a share of every weight, and trains on its share of the batch (FSDP2, `fully_shard`).

    A block's weights are gathered only while it is computed.
    """

    def distribute(self) -> Callable[..., Tensor]:
        super().distribute()
        self._entrance = _Entrance(self.gpt)
        for block in self.gpt.blocks:
            fully_shard(block, mesh=self.mesh)
        self._sharded: FSDPModule = fully_shard(self._entrance, mesh=self.mesh)  # the same object
        return self._entrance

    def token_losses(self, tokens: Tensor, targets: Tensor) -> Tensor:
        with self.autocast():
            return self._entrance(tokens, targets, wanted="token_losses")  # type: ignore[no-any-return]

    def logits(self, tokens: Tensor) -> Tensor:
        with self.autocast():
            return self._entrance(tokens, wanted="logits")  # type: ignore[no-any-return]

    @contextmanager
    def synchronised(self, last: bool) -> Iterator[None]:
        self._sharded.set_requires_gradient_sync(last)
        yield

    def whole_losses(self, losses: Tensor) -> Tensor:
        dist.all_reduce(losses)
        return losses / self.world_size


class _Entrance(nn.Module):
    """The entry point whose hooks let `fully_shard` gather the weights outside the blocks."""

    def __init__(self, gpt: GPT) -> None:
        super().__init__()
        self.gpt = gpt

    def forward(self, *batch: Tensor, wanted: str = "forward") -> Tensor:
        return getattr(self.gpt, wanted)(*batch)  # type: ignore[no-any-return]


class TensorParallelism(MeshParallelism):
    """Every rank computes a share of every layer, for the whole batch (Shoeybi et al. 2019, arXiv 1909.08053).

    A rank has a share of the heads, the MLPs' inner width and the vocabulary. Norms and position
    embeddings, which are small, are replicated.
    """

    def distribute(self) -> Callable[..., Tensor]:
        super().distribute()
        gpt, is_tied = self.gpt, self.gpt.head.weight is self.gpt.token_embedding.weight
        with torch.no_grad():
            for name, weight in gpt.named_parameters():
                weight.copy_(self.by_rank(name, weight))
        for block in gpt.blocks:
            plan = {
                "attention.qkv": ColwiseParallel(),
                "attention.projection": RowwiseParallel(),
                "mlp_in": ColwiseParallel(),
                "mlp_out": RowwiseParallel(),
            }
            parallelize_module(block, self.mesh, plan)
        ends = {
            "token_embedding": RowwiseParallel(input_layouts=Replicate()),
            "head": ColwiseParallel(output_layouts=Replicate()),
        }
        parallelize_module(gpt, self.mesh, ends)
        if is_tied:
            gpt.head.weight = gpt.token_embedding.weight
        for module in gpt.modules():
            if module is gpt.position_embedding or isinstance(module, nn.LayerNorm):
                distribute_module(module, self.mesh, None, _as_replicated, _as_local)  # type: ignore[arg-type]
        return gpt

    def seed_of_dropout(self, seed: int) -> int:
        """Masks must be the same: all ranks have the same activations."""
        return seed

    def in_order(self, name: str, whole: Tensor) -> Tensor:
        return self._exchanged(whole, self.world_size, 3) if name.endswith("qkv.weight") else whole

    def by_rank(self, name: str, whole: Tensor) -> Tensor:
        """Reorder query, key and value rows from `(3, heads, Q)` to `(ranks, 3, heads / ranks, Q)`."""
        return self._exchanged(whole, 3, self.world_size) if name.endswith("qkv.weight") else whole

    @staticmethod
    def _exchanged(rows: Tensor, outer: int, inner: int) -> Tensor:
        """Reorder rows from `(outer, inner, n)` to `(inner, outer, n)`; the matrix keeps its shape."""
        return rows.view(outer, inner, -1, rows.shape[1]).transpose(0, 1).reshape(rows.shape)


def _as_replicated(_: nn.Module, inputs: tuple[Tensor, ...], mesh: DeviceMesh) -> tuple[Tensor, ...]:
    return tuple(DTensor.from_local(x, mesh, [Replicate()], run_check=False) for x in inputs)


def _as_local(_: nn.Module, output: DTensor, __: DeviceMesh) -> Tensor:
    return output.to_local()


class PipelineParallelism(Parallelism):
    """Every rank has some of the layers; micro-batches flow through them on a 1F1B schedule.

    Forward and backward alternate once the pipeline is full (Narayanan et al. 2019, PipeDream). Every rank
    initialises the whole model first, then keeps its stage.
    """

    def distribute(self) -> Callable[..., Tensor]:
        gpt = self.gpt
        layers, ranks = len(gpt.blocks), self.world_size
        self._bounds = [layers * rank // ranks for rank in range(ranks + 1)]
        self._is_first, self._is_last = self.rank == 0, self.rank == ranks - 1
        gpt.blocks = gpt.blocks[self._bounds[self.rank] : self._bounds[self.rank + 1]]
        if not self._is_first:
            del gpt.token_embedding, gpt.position_embedding
        if not self._is_last:
            del gpt.norm, gpt.head
        self._stage = _Stage(gpt, self.autocast, is_first=self._is_first, is_last=self._is_last)
        self._schedules: dict[int, Schedule1F1B | ScheduleGPipe] = {}
        return self._stage

    def add_gradient(self, take: Take, backward: Backward, first: int, count: int) -> Tensor:  # noqa: ARG002
        """See the base class; the schedule itself calls backward, on unscaled losses."""
        tokens, targets = take(first, count)
        schedule = self._schedule(count // self.training.micro_batch, tokens)
        losses: list[Tensor] = []
        if self._is_first:
            schedule.step(tokens)
        elif self._is_last:
            schedule.step(target=targets, losses=losses, return_outputs=False)
        else:
            schedule.step()
        return torch.stack(losses).detach().mean() if losses else torch.zeros((), device=self.device)

    def token_losses(self, tokens: Tensor, targets: Tensor) -> Tensor:
        output = self._through(tokens)
        losses = losses_of(output, targets) if self._is_last else torch.empty(targets.shape, device=self.device)
        return self._from(self.world_size - 1, losses)

    def logits(self, tokens: Tensor) -> Tensor:
        output = self._through(tokens)
        if not self._is_last:
            output = torch.empty(*tokens.shape, self.gpt.vocab_size, device=self.device)
        return self._from(self.world_size - 1, output)

    def whole_norm(self, norm: Tensor) -> Tensor:
        square = norm.square()
        dist.all_reduce(square)
        return square.sqrt()

    def whole(self, tensors: Sequence[Tensor]) -> Iterator[Tensor]:
        own = iter(tensors)
        for name, shape in self.shapes.items():
            rank = self._rank_of(name)
            mine = next(own).detach()[: shape[0]] if rank == self.rank else torch.empty(shape, device=self.device)
            yield self._from(rank, mine.float())

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        own = iter(self.gpt.parameters())
        for name, value in zip(self.shapes, initial_weights(self.shapes, seed), strict=True):
            if self._rank_of(name) == self.rank:
                weight = next(own)
                weight.copy_(padded(value, weight.shape))

    def whole_losses(self, losses: Tensor) -> Tensor:
        dist.all_reduce(losses)  # zero except on the last rank
        return losses

    def _schedule(self, passes: int, tokens: Tensor) -> Schedule1F1B | ScheduleGPipe:
        """The schedule for `passes` micro-batches of sequences like `tokens`; torch fixes their number."""
        if passes not in self._schedules:
            micro_batch = torch.empty(self.training.micro_batch, tokens.shape[1], dtype=tokens.dtype, device="meta")
            stream = self._stream(micro_batch)
            logits = torch.empty(*micro_batch.shape, self.gpt.vocab_size, device="meta")
            stage = PipelineStage(
                cast(nn.Module, self.loss),  # the stage, compiled or not
                self.rank,
                self.world_size,
                self.device,
                input_args=micro_batch if self._is_first else stream.requires_grad_(),
                output_args=(logits if self._is_last else stream.clone()).requires_grad_(),
            )
            kind = Schedule1F1B if passes >= self.world_size else ScheduleGPipe  # too few to fill the pipeline
            self._schedules[passes] = kind(stage, passes, loss_fn=_mean_loss)
        return self._schedules[passes]

    def _through(self, tokens: Tensor) -> Tensor:
        """Run tokens `(B, T)` through this stage: receive from the previous one, send to the next."""
        x = tokens
        if not self._is_first:
            x = self._stream(tokens)
            dist.recv(x, self.rank - 1)
        y: Tensor = self._stage(x)
        if not self._is_last:
            dist.send(y, self.rank + 1)
        return y

    def _stream(self, tokens: Tensor) -> Tensor:
        """An empty residual stream `(B, T, C)` for tokens `(B, T)`, on their device, in the weights' dtype."""
        weight = next(self.gpt.parameters())
        return torch.empty(*tokens.shape, self.gpt.config.width, dtype=weight.dtype, device=tokens.device)

    def _from(self, rank: int, tensor: Tensor) -> Tensor:
        """Broadcast the tensor of `rank`; the others pass one to write to."""
        tensor = tensor.contiguous()
        dist.broadcast(tensor, rank)
        return tensor

    def _rank_of(self, name: str) -> int:
        """The rank that has the parameter `name`."""
        if name.startswith("blocks."):
            layer = int(name.split(".")[1])
            return next(rank for rank in range(self.world_size) if layer < self._bounds[rank + 1])
        return 0 if "embedding" in name else self.world_size - 1


class _Stage(nn.Module):
    """Some of the layers of a model, in the precision of training.

    Maps tokens `(B, T)`, or the previous stage's residual stream `(B, T, C)`, to the residual stream, or
    in the last stage to logits `(B, T, V)`; all but tokens in fp32.
    """

    def __init__(self, gpt: GPT, autocast: Autocast, *, is_first: bool, is_last: bool) -> None:
        super().__init__()
        self.gpt = gpt
        self.autocast = autocast  # here, not around the schedule, which also runs backward passes
        self.is_first = is_first
        self.is_last = is_last

    def forward(self, x: Tensor) -> Tensor:
        with self.autocast():
            x = self.gpt.transform(self.gpt.embed(x) if self.is_first else x)
            return self.gpt.project(x).float() if self.is_last else x


def _mean_loss(logits: Tensor, targets: Tensor) -> Tensor:
    return losses_of(logits, targets).mean()


STRATEGIES: dict[str, type[Parallelism]] = {
    "none": Parallelism,
    "ddp": DataParallelism,
    "fsdp": ShardedDataParallelism,
    "tensor": TensorParallelism,
    "pipeline": PipelineParallelism,
}
"""By the value of the knob `parallelism`."""
