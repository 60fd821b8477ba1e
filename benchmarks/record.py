"""How results are kept: one JSON file a benchmark, each entry with the versions and the hardware it was measured on.

from record import store_result
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from headstart.core.files import write_json
from headstart.workflow.versions import now, versions

ROOT = Path(__file__).resolve().parent.parent

__all__ = ["ROOT", "hardware", "store_result"]


def hardware() -> dict[str, Any]:
    """Return the processor's name, its cores, and whether it has bf16 tiles."""
    name, flags = platform.processor() or platform.machine(), ""
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        fields = {key.strip(): value.strip() for key, value in lines.items()}
        name, flags = fields.get("model name", name), fields.get("flags", "")
    return {"processor": name, "cores": os.cpu_count(), "amx_bf16": "amx_bf16" in flags, "system": platform.system()}


def commit() -> str:
    """Return the commit the result belongs to, with a plus where the tree had changes."""
    try:
        name = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True, cwd=ROOT
        )
        state = subprocess.run(
            ["git", "status", "--porcelain", "src"], capture_output=True, text=True, check=True, cwd=ROOT
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name.stdout.strip() + ("+" if state.stdout.strip() else "")


def store_result(path: Path, name: str, result: dict[str, Any]) -> None:
    """Put one entry into a result file, beside those it already holds."""
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    known[name] = {**result, "measured": now(), "commit": commit(), "versions": versions(), "hardware": hardware()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, known)
