"""``pgp-diffsr upscale`` with a full-size model: its options, what goes together, and loading it."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from .numbers import finite
from .output import say

DTYPES = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}
#: Options that mean nothing to nano, by their names in argparse.
_OPTIONS = (
    "guidance",
    "plan",
    "vae",
    "lora",
    "semantic_lora",
    "pixel",
    "semantic",
    "prompt",
    "negative_prompt",
    "conditioning",
    "negative_conditioning",
    "dtype",
)


def add_to(parser: argparse.ArgumentParser) -> None:
    """Register the options."""
    group = parser.add_argument_group(
        "a full-size model", "FaithDiff, PGP-DiffSR or SDXL from files on this machine; nothing is downloaded"
    )
    group.add_argument("--model", type=Path, metavar="UNET", help="file of a UNet or checkpoint, or FaithDiff.bin")
    group.add_argument("--guidance", type=Path, metavar="FILE", help="guidance file, or FaithDiff.bin")
    group.add_argument("--plan", metavar="NAME|FILE", help="prune plan; blocks that it removes are not read")
    group.add_argument(
        "--sdxl", type=Path, metavar="DIR|CHECKPOINT", help="what is not given otherwise: UNet, VAE, text encoders"
    )
    group.add_argument("--vae", type=Path, metavar="FILE|DIR", help="VAE (the one in --sdxl)")
    group.add_argument(
        "--lora",
        type=Path,
        action="append",
        metavar="FILE|DIR",
        help="LoRA for the UNet, as any tool writes it; several: again",
    )
    group.add_argument(
        "--semantic-lora", type=Path, metavar="FILE", help="with --one-step: the second of two LoRAs, for detail"
    )
    group.add_argument("--pixel", type=finite, metavar="F", help="beside --semantic-lora: strength of --lora (1)")
    group.add_argument("--semantic", type=finite, metavar="F", help="strength of --semantic-lora (1)")
    group.add_argument("--prompt", metavar="TEXT", help="what the picture shows (empty)")
    group.add_argument("--negative-prompt", metavar="TEXT", help="what it does not (empty)")
    group.add_argument("--conditioning", type=Path, metavar="FILE", help="saved CONDITIONING in place of --prompt")
    group.add_argument(
        "--negative-conditioning", type=Path, metavar="FILE", help="the same in place of --negative-prompt"
    )
    group.add_argument("--dtype", choices=DTYPES, help="of the UNet (fp32 on the CPU, else fp16)")


def chosen(args: argparse.Namespace) -> bool:
    """Whether the options ask for a full-size model."""
    return args.model is not None or args.sdxl is not None


def wrong_usage(args: argparse.Namespace) -> str | None:
    """What does not go together, or None."""
    if not chosen(args):
        given = [name for name in _OPTIONS if getattr(args, name) is not None]
        if given:
            return f"--{given[0].replace('_', '-')} is for a full-size model: give --model or --sdxl too"
        if args.start == "lr":
            return "--start lr is FaithDiff's: give --model or --sdxl too"
        return None
    for kind in ("", "negative_"):
        if getattr(args, f"{kind}prompt") is not None and getattr(args, f"{kind}conditioning") is not None:
            dashed = kind.replace("_", "-")
            return f"--{dashed}prompt and --{dashed}conditioning both say the same thing: give one of them"
    if args.one_step and not args.lora:
        return "--one-step of a full-size model needs its S1 LoRA: give --lora too"
    if args.semantic_lora is not None and not args.one_step:
        return "--semantic-lora is for --one-step"
    if args.semantic_lora is None and (args.pixel is not None or args.semantic is not None):
        return "--pixel and --semantic weigh two LoRAs: give the second with --semantic-lora"
    return None


def load(args: argparse.Namespace, device: str) -> Any:
    """The pipeline.

    Raises:
        PGPError: see :meth:`pgp_core.restorers.sdxl.pipeline.SDXLPipeline.load`.
    """
    # Before the libraries that have a network side are imported: they read it once.
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch

    from ..restorers.sdxl.loading import Files
    from ..restorers.sdxl.pipeline import SDXLPipeline
    from ..sampling.one_step import Dial
    from ..unet.plan import load_plan

    files = Files(
        model=args.model,
        sdxl=args.sdxl,
        guidance=args.guidance,
        vae=args.vae,
        plan=load_plan(args.plan) if args.plan else None,
        loras=tuple(args.lora or ()),
        semantic_lora=args.semantic_lora,
        prompt=args.prompt or "",
        negative_prompt=args.negative_prompt or "",
        conditioning=args.conditioning,
        negative_conditioning=args.negative_conditioning,
    )
    dtype = getattr(torch, DTYPES[args.dtype]) if args.dtype else None
    dial = Dial(*(1.0 if x is None else x for x in (args.pixel, args.semantic)))
    return SDXLPipeline.load(files, args.one_step, args.cfg, device, dtype, say, dial)
