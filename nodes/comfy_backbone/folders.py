"""ComfyUI's folders: where our files are looked for."""

from __future__ import annotations

import folder_paths

from ...pgp_core import nano


def register_folders() -> None:
    """Let core's LoRA loader see the bundled S1 LoRA."""
    folder_paths.add_model_folder_path("loras", str((nano.FOLDER / nano.S1_FILE).parent))
