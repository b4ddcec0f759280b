"""Execution providers that a package of their own brings to an ordinary onnxruntime, as a library that it loads."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import onnxruntime as ort

from prunegraph.errors import UsageError


@dataclass(frozen=True, slots=True)
class Plugin:
    """A package with an execution provider as a library.

    Attributes:
        module: The package, which has `get_library_path`.
        device: What the metadata of the device says that is taken, such as `{"ov_device": "CPU"}`.
        settings: Of the provider's compiler, by device, given as its option `load_config`; `{threads}` in a value
            becomes the number of threads.
        devices: What it runs on, for people.
    """

    module: str
    device: Mapping[str, str]
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    devices: str = ""

    def is_installed(self) -> bool:
        """Whether the package is here, and this onnxruntime can load such libraries."""
        return hasattr(ort, "register_execution_provider_library") and importlib.util.find_spec(self.module) is not None

    def options(self, threads: int) -> dict[str, str]:
        """Options of the provider for so many threads."""
        filled = {
            device: {key: value.replace("{threads}", str(threads)) for key, value in each.items()}
            for device, each in self.settings.items()
        }
        return {"load_config": json.dumps(filled)} if filled else {}


def add_plugin(options: Any, ep: str, plugin: Plugin, given: Mapping[str, str], threads: int) -> None:
    """Have a session run on the provider of a plugin.

    Args:
        options: Those of the session, an `onnxruntime.SessionOptions`.
        ep: ONNX Runtime's name of the provider.
        plugin: The installed package.
        given: More provider options; they win.
        threads: Threads inside an operator.

    Raises:
        UsageError: The plugin finds no device here that it takes.
    """
    _register(ep, plugin.module)
    devices = [
        each
        for each in ort.get_ep_devices()
        if each.ep_name == ep and plugin.device.items() <= dict(each.ep_metadata).items()
    ]
    if not devices:
        raise UsageError(
            f"the plugin {plugin.module} finds no device on this machine that it runs on",
            hint=f"it takes {plugin.devices}; time on another provider, or on a wheel that has {ep} built in",
        )
    options.add_provider_for_devices(devices[:1], {**plugin.options(threads), **given})


@functools.cache
def _register(ep: str, module: str) -> None:
    """Load the library; ONNX Runtime takes each name once a process."""
    ort.register_execution_provider_library(ep, importlib.import_module(module).get_library_path())
