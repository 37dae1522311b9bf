"""Random weights at the speed of a copy: PyTorch's own initialisation of 2.6 G numbers takes minutes."""

from __future__ import annotations

import torch

#: Length of the noise that is repeated; odd, so that rows of a weight do not repeat.
PATTERN = 2**20 + 7


def fill(module: torch.nn.Module, device: torch.device | str, seed: int = 0) -> torch.nn.Module:
    """Give a module on the meta device its memory, and random weights whose outputs stay finite.

    Matrices and convolutions get normal noise with variance 1 / fan-in, which keeps a signal's size through a
    deep network; weights of norms are 1, biases 0. A layer of zeros would be as fast as any, but not everywhere:
    some hardware runs faster on them.

    Args:
        module: changed in place; its dtypes stay.
        device: where the memory is taken.
        seed: of the noise.

    Returns:
        the module, without gradients.
    """
    module.to_empty(device=device)
    noise = torch.randn(PATTERN, generator=torch.Generator().manual_seed(seed)).to(device)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.requires_grad_(False)
            if parameter.dim() > 1:
                flat, scaled = parameter.view(-1), (noise * parameter[0].numel() ** -0.5).to(parameter.dtype)
                whole = flat.numel() - flat.numel() % PATTERN
                flat[:whole].view(-1, PATTERN).copy_(scaled)
                flat[whole:].copy_(scaled[: flat.numel() - whole])
        for name, parameter in module.named_parameters():
            if parameter.dim() == 1:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
    return module
