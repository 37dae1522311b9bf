"""The pack inside a real ComfyUI: its server, its page, and its own code in one process.

A package, so that its modules can share code without being on ``sys.path``.
"""
