"""OpenVINO sends usage statistics from processes it forks; run by headstart it must do neither."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPT = """
import sys
seen = []
def note(event, arguments):
    if event in {"os.fork", "os.forkpty", "os.posix_spawn", "socket.connect", "socket.getaddrinfo", "socket.gethostbyname"}:
        seen.append(event)
import timm
from headstart.backbones import open_backbone
from headstart.data import open_dataset
from headstart.features import extract_features
sys.addaudithook(note)
import numpy as np
images = [np.full((40, 40, 3), value, np.uint8) for value in (0, 90, 200)]
network = timm.create_model("test_resnet", num_classes=0)
backbone = open_backbone(network, input_size=32)
features = extract_features(open_dataset(np.stack(images), unlabelled=True), backbone, runtime="openvino-fp32", store=False)
assert features.runtime.label == "openvino-fp32"
print("telemetry" if any(name.startswith("openvino_telemetry") for name in sys.modules) else "none", seen)
"""


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")
@pytest.mark.golden
def test_openvino_reports_to_nobody(tmp_path: Path) -> None:
    environment = {**os.environ, "HEADSTART_CACHE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", _SCRIPT], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "none []"


def test_the_silence_is_not_ours_alone() -> None:
    """What another library imports of the package afterwards is untouched."""
    from headstart.features.openvino_engine import _hidden

    with _hidden("json"), pytest.raises(ImportError):
        importlib.import_module("json")
    assert importlib.import_module("json").dumps([1]) == "[1]"
