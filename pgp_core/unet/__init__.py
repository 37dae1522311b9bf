"""UNets of SDXL's kind: topology, plans, LoRAs, and diffusers' as a backbone."""
