"""Fourier transforms: DFT, STFT and windows; the last axis holds real and imaginary parts, or real ones alone."""

from __future__ import annotations

import torch
from torch import Tensor

from prunegraph.torch_twin.registry import StatedLengths, integers, torch_op


def _complex(x: Tensor) -> Tensor:
    return torch.view_as_complex(x.contiguous()) if x.shape[-1] == 2 else x[..., 0]


@torch_op("DFT")
def fourier(
    x: Tensor,
    dft_length: StatedLengths | None = None,
    axis: StatedLengths | int | None = None,
    *,
    inverse: int = 0,
    onesided: int = 0,
    version: int = 20,
) -> Tensor:
    """The transform along one axis, by default the second, from opset 20 on the last of the signal."""
    k = (1 if version < 20 else -2) if axis is None else integers(axis)[0]
    k %= x.dim()
    length = None if dft_length is None else integers(dft_length)[0]
    signal = _complex(x)
    if onesided and inverse:
        return torch.fft.irfft(signal, length, k)[..., None]
    if onesided:
        return torch.view_as_real(torch.fft.rfft(signal, length, k))
    return torch.view_as_real((torch.fft.ifft if inverse else torch.fft.fft)(signal, length, k))


@torch_op("STFT")
def windowed_fourier(
    x: Tensor,
    frame_step: StatedLengths,
    window: Tensor | None = None,
    frame_length: StatedLengths | None = None,
    *,
    onesided: int = 1,
) -> Tensor:
    """`[batch, frames, bins, 2]` of the windows `[length]` along `[batch, time, 1 or 2]`."""
    length = x.shape[1] if window is None else len(window)
    length = length if frame_length is None else integers(frame_length)[0]
    frames = _complex(x).unfold(1, length, integers(frame_step)[0])
    frames = frames if window is None else frames * window
    return torch.view_as_real(torch.fft.rfft(frames) if onesided and not frames.is_complex() else torch.fft.fft(frames))
