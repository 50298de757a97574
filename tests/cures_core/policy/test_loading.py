"""How torch is set up before a policy is loaded."""

from __future__ import annotations

import pytest
import torch

from cures_core.config.device import DeviceConfig
from cures_core.policy.loading import setup_torch


def test_attention_of_cudnn_is_off_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    on = torch.backends.cuda.cudnn_sdp_enabled()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    try:
        torch.backends.cuda.enable_cudnn_sdp(True)
        setup_torch(DeviceConfig(type="cpu"), 0)
        assert torch.backends.cuda.cudnn_sdp_enabled()
        assert setup_torch(DeviceConfig(type="cuda"), 0).type == "cuda"
        assert not torch.backends.cuda.cudnn_sdp_enabled()
    finally:
        torch.backends.cuda.enable_cudnn_sdp(on)
