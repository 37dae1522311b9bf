import torch

class LatentFormat:
    scale_factor: float
    latent_channels: int
    latent_dimensions: int
    taesd_decoder_name: str | None
    spacial_downscale_ratio: int
    def process_in(self, latent: torch.Tensor) -> torch.Tensor: ...
    def process_out(self, latent: torch.Tensor) -> torch.Tensor: ...
