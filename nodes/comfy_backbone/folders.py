"""ComfyUI's folders: where our files are looked for."""

from __future__ import annotations

import os

import folder_paths

from ...pgp_core.restorers.nano import model as nano

#: Folder of saved CONDITIONING, below ``models`` and below ComfyUI's output folder.
CONDITIONING = "conditioning"
CONDITIONING_EXTENSION = ".safetensors"
#: Folder of prune plans.
PLANS = "pgp_plans"
PLANS_EXTENSION = ".json"
#: Folder of redundancy reports.
REPORTS = "pgp_reports"
REPORTS_EXTENSION = ".json"


def register_folders() -> None:
    """Let core's LoRA loader see the bundled S1 LoRA, and make folder kinds for what else is ours."""
    folder_paths.add_model_folder_path("loras", str((nano.FOLDER / nano.S1_FILE).parent))
    _register(CONDITIONING, CONDITIONING_EXTENSION)
    _register(PLANS, PLANS_EXTENSION)
    _register(REPORTS, REPORTS_EXTENSION)


def _register(kind: str, extension: str) -> None:
    """A folder kind with ``models/<kind>`` and, as core does for its own, ``output/<kind>``: what is saved is found.

    Another pack, or ``extra_model_paths.yaml``, may have made the kind before: their folders and extensions stay.
    """
    folders, extensions = folder_paths.folder_names_and_paths.get(kind, ([], {extension}))
    # Empty means every file; that is for whoever made it so to change.
    taken = {*extensions, extension} if extensions else set()
    folder_paths.folder_names_and_paths[kind] = (folders, taken)
    for base in (folder_paths.models_dir, folder_paths.get_output_directory()):
        folder_paths.add_model_folder_path(kind, os.path.join(base, kind))


def files(kind: str, extension: str) -> list[str]:
    """Names for a loader's list; empty where there is no such file, or no such folder."""
    return [name for name in folder_paths.get_filename_list(kind) if name.lower().endswith(extension)]
