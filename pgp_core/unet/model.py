"""A UNet of SDXL's kind in plain PyTorch, for inference: module names, weights and result are diffusers'.

diffusers' own class does the same and more, and takes as long to import as PyTorch does; training, which needs
gradient checkpointing and PEFT, uses that one (:mod:`pgp_core.unet.on_diffusers`).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F

from .layers import GROUPS, Downsampler, Embedding, Resnet, Stack, Upsampler, sinusoids
from .plan import PrunePlan
from .shape import UNetShape

#: Width of each of the six sizes in the micro-conditioning.
_SIZE_WIDTH = 256


class Level(torch.nn.Module):
    """One scale of encoder or decoder, or the middle: resnets, and a transformer stack behind each where there is one.

    Args:
        resnets: at least one.
        stacks: as many as resnets, fewer, or none.
    """

    def __init__(self, resnets: list[Resnet], stacks: list[Stack]):
        super().__init__()
        self.resnets = torch.nn.ModuleList(resnets)
        self.attentions = torch.nn.ModuleList(stacks)

    def step(self, j: int, x: torch.Tensor, time: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Resnet ``j`` and the stack behind it."""
        x = self.resnets[j](x, time)
        return self.attentions[j](x, context) if j < len(self.attentions) else x


class Down(Level):
    """A level of the encoder: all that it makes on the way, for the decoder."""

    def __init__(self, resnets: list[Resnet], stacks: list[Stack], halved: int | None):
        super().__init__(resnets, stacks)
        self.downsamplers = torch.nn.ModuleList([] if halved is None else [Downsampler(halved)])

    def forward(self, x: torch.Tensor, time: torch.Tensor, context: torch.Tensor) -> list[torch.Tensor]:
        made = []
        for j in range(len(self.resnets)):
            x = self.step(j, x, time, context)
            made.append(x)
        for downsampler in self.downsamplers:
            made.append(downsampler(x))
        return made


class Middle(Level):
    """Where the latent is smallest."""

    def forward(self, x: torch.Tensor, time: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        for j in range(len(self.resnets)):
            x = self.step(j, x, time, context)
        return x


class Up(Level):
    """A level of the decoder, which uses up what the encoder made."""

    def __init__(self, resnets: list[Resnet], stacks: list[Stack], doubled: int | None):
        super().__init__(resnets, stacks)
        self.upsamplers = torch.nn.ModuleList([] if doubled is None else [Upsampler(doubled)])

    def forward(
        self, x: torch.Tensor, skips: list[torch.Tensor], time: torch.Tensor, context: torch.Tensor
    ) -> torch.Tensor:
        for j in range(len(self.resnets)):
            x = self.step(j, torch.cat([x, skips.pop()], dim=1), time, context)
        for upsampler in self.upsamplers:
            x = upsampler(x, skips[-1].shape[-2:])
        return x


class UNet(torch.nn.Module):
    """See the module. Built on the current default device, randomly initialised.

    Args:
        shape: of the unpruned UNet.
        plan: blocks that it removes are not built; the others keep their numbers.

    Raises:
        PlanError: if the plan does not fit the shape.
    """

    def __init__(self, shape: UNetShape, plan: PrunePlan | None = None):
        super().__init__()
        topology, depths, widths = shape.topology, shape.topology.depths, shape.channels
        resnets, middle = topology.resnets, topology.middle
        if plan is not None:
            plan.check_model({k: tuple(range(d)) for k, d in depths.items()}, shape.topology.name)
        time, last = 4 * widths[0], len(widths) - 1

        def stack(name: str, width: int) -> list[Stack]:
            if name not in depths:
                return []
            numbers = [n for n in range(depths[name]) if plan is None or plan.keeps(name, n)]
            return [Stack(width, shape.context_dim, shape.head_dim, numbers)]

        self.conv_in = torch.nn.Conv2d(shape.latent_channels, widths[0], 3, padding=1)
        self.time_embedding = Embedding(widths[0], time)
        self.add_embedding = Embedding(shape.adm_dim, time)
        self.down_blocks, self.up_blocks = torch.nn.ModuleList(), torch.nn.ModuleList()
        now, skips = widths[0], [widths[0]]
        for i, width in enumerate(widths):
            inside = [Resnet(now if j == 0 else width, width, time) for j in range(resnets)]
            stacks = [s for j in range(resnets) for s in stack(f"down_blocks.{i}.attentions.{j}", width)]
            self.down_blocks.append(Down(inside, stacks, width if i < last else None))
            skips += [width] * (resnets + (i < last))
            now = width
        inside = [Resnet(now, now, time) for _ in range(middle)]
        self.mid_block = Middle(inside, stack("mid_block.attentions.0", now)) if middle else None
        for up, i in enumerate(range(last, -1, -1)):
            width = widths[i]
            inside = [Resnet((now if j == 0 else width) + skips.pop(), width, time) for j in range(resnets + 1)]
            stacks = [s for j in range(resnets + 1) for s in stack(f"up_blocks.{up}.attentions.{j}", width)]
            self.up_blocks.append(Up(inside, stacks, width if i else None))
            now = width
        self.conv_norm_out = torch.nn.GroupNorm(GROUPS, now)
        self.conv_out = torch.nn.Conv2d(now, shape.latent_channels, 3, padding=1)

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        added_cond_kwargs: Mapping[str, torch.Tensor],
        return_dict: bool = False,
    ) -> tuple[torch.Tensor]:
        """The raw output, as diffusers' class gives it with ``return_dict=False``.

        Args:
            sample: ``(B, C, h, w)``; any size.
            timestep: ``(B,)`` or a single number.
            encoder_hidden_states: ``(B, n, context_dim)``.
            added_cond_kwargs: ``text_embeds`` ``(B, pooled_dim)`` and ``time_ids`` ``(B, 6)``.
            return_dict: there for diffusers' callers; a tuple is returned all the same.

        Returns:
            a tuple of one: ``(B, C, h, w)``.
        """
        time = self._embedded(sample, timestep, added_cond_kwargs)
        context, skips = encoder_hidden_states, [self.conv_in(sample)]
        for level in self.down_blocks:
            skips += level(skips[-1], time, context)
        x = skips[-1] if self.mid_block is None else self.mid_block(skips[-1], time, context)
        for level in self.up_blocks:
            x = level(x, skips, time, context)
        return (self.conv_out(F.silu(self.conv_norm_out(x))),)

    def _embedded(
        self, sample: torch.Tensor, timestep: torch.Tensor, added: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        """Timestep, pooled prompt and sizes as one vector each."""
        batch = sample.shape[0]
        timestep = torch.as_tensor(timestep, device=sample.device).reshape(-1).expand(batch)
        time = self.time_embedding(sinusoids(timestep, self.time_embedding.linear_1.in_features).to(sample.dtype))
        sizes = sinusoids(added["time_ids"].flatten(), _SIZE_WIDTH).reshape(added["text_embeds"].shape[0], -1)
        pooled = torch.cat([added["text_embeds"], sizes], dim=-1).to(time.dtype)
        return time + self.add_embedding(pooled)
