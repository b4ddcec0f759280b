"""Build torch modules from an address: a local folder of transformers, or a name of timm."""

from __future__ import annotations

import contextlib
import difflib
import logging
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunegraph.errors import ModelError, PruneGraphError, UsageError, first_line
from prunegraph.export.hub_inputs import Example, ExampleSizes, timm_example, transformers_example
from prunegraph.extras import needs_extra

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

_WEIGHTS = ("*.safetensors", "*.bin")
_TIMM_TASKS = ("image-classification", "image-feature-extraction", "feature-extraction")


def build(address: str, task: str | None, *, pretrained: bool, sizes: ExampleSizes) -> tuple[torch.nn.Module, Example]:
    """The module at an address in float32 and in eval mode, and an example for it.

    Nothing is downloaded but the weights of a timm model that are not in the local cache, and no code of a folder runs.

    Args:
        address: `hf:DIR` or `timm:NAME`.
        task: What it is for, as `transformers.pipeline` calls it; what the folder names, or a classifier, without it.
        pretrained: With its trained weights, otherwise random ones.
        sizes: Of the example.

    Raises:
        UsageError: The address or the task is wrong.
        MissingExtra: A package is not installed.
        ModelError: The module cannot be built, or nobody knows what it takes.
    """
    kind, _, name = address.partition(":")
    if kind not in ("hf", "timm") or not name:
        raise UsageError(
            f"{address!r} is no address of a model",
            hint="hf:DIR for a local folder of Hugging Face transformers, timm:NAME for a model of timm",
        )
    make = _from_folder if kind == "hf" else _from_timm
    module, example = make(name, task, pretrained, sizes)
    return module.eval(), example


def _from_folder(name: str, task: str | None, pretrained: bool, sizes: ExampleSizes) -> tuple[torch.nn.Module, Example]:
    folder = Path(name)
    if not folder.is_dir():
        hint = f"hf: takes a folder of this machine: hf download {name} --local-dir {folder.name or 'DIR'}"
        raise UsageError(f"{name} is no folder", hint=hint)
    if not (folder / "config.json").is_file():
        raise UsageError(f"{folder} has no config.json", hint="give the folder that save_pretrained wrote")
    if pretrained and not any(path for pattern in _WEIGHTS for path in folder.glob(pattern)):
        raise ModelError(f"{folder} has no weights", hint="download them too, or take random ones with --random")
    transformers = _imported("transformers")
    with _explained(f"{folder} cannot be loaded", "transformers must be able to load the folder by itself, offline"):
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        chosen = _class_of(transformers, config, task)
        if pretrained:
            module = _loaded(chosen, folder)
        else:
            module = chosen.from_config(config) if hasattr(chosen, "from_config") else chosen(config)
    for part in module.modules():
        if getattr(getattr(part, "config", None), "use_cache", False) is True:
            part.config.use_cache = False  # the cache of a decoder cannot be traced
    module = module.float()
    return module, transformers_example(module, folder, sizes)


def _loaded(chosen: Any, folder: Path) -> Any:
    module, info = chosen.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False, output_loading_info=True
    )
    missing = sorted(info["missing_keys"])
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        logger.warning("%s has no weights for %s%s of this model: they are random", folder, missing[0], more)
    return module


def _class_of(transformers: Any, config: Any, task: str | None) -> Any:
    """The class that the task asks for, else the one that the configuration names, else the model without a head."""
    if task is None:
        named = [getattr(transformers, name, None) for name in getattr(config, "architectures", None) or ()]
        return next((architecture for architecture in named if architecture is not None), transformers.AutoModel)
    registry = import_module("transformers.pipelines").PIPELINE_REGISTRY
    known = registry.get_supported_tasks()
    if task not in known:
        near = difflib.get_close_matches(task, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(known)}"
        raise UsageError(f"transformers has no task {task!r}", hint=hint)
    for chosen in registry.check_task(task)[1]["pt"]:
        if type(config) in chosen._model_mapping:
            return chosen
    hint = "another --task, or none for the model that the folder names"
    raise UsageError(f"{config.model_type} has no model for {task}", hint=hint)


def _from_timm(name: str, task: str | None, pretrained: bool, sizes: ExampleSizes) -> tuple[torch.nn.Module, Example]:
    if task not in (None, *_TIMM_TASKS):
        raise UsageError(f"timm has no models for {task}", hint=f"one of {', '.join(_TIMM_TASKS)}")
    timm = _imported("timm")
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), 3)
        hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_models() lists them"
        raise UsageError(f"timm has no model {name!r}", hint=hint)
    headless = {"num_classes": 0} if task and "feature" in task else {}
    hint = "the weights come from the local cache or the network; random ones with --random"
    with _explained(f"{name} cannot be built", hint if pretrained else "timm.create_model must be able to build it"):
        module = timm.create_model(name, pretrained=pretrained, **headless)
    return module, timm_example(module, sizes)


def _imported(package: str) -> Any:
    """The package, once torch and onnxscript are known to be there too."""
    for name, extra in (("torch", "torch"), ("onnxscript", "torch"), (package, "zoo")):
        with needs_extra(extra):
            module = import_module(name)
    return module


@contextlib.contextmanager
def _explained(what: str, hint: str) -> Iterator[None]:
    try:
        with _quiet():
            yield
    except PruneGraphError:
        raise
    except Exception as error:  # both libraries raise whatever the libraries under them raise
        raise ModelError(f"{what}: {first_line(error)}", hint=hint) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Have the libraries neither draw bars nor tell what they retry; what fails is told by what they raise."""
    loggers = [logging.getLogger(name) for name in ("transformers", "huggingface_hub", "timm")]
    levels = [each.level for each in loggers]
    bars = _bars()
    try:
        for each in loggers:
            each.setLevel(logging.ERROR)
        if bars is not None:
            bars.disable_progress_bar()
        yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
        if bars is not None:
            bars.enable_progress_bar()


def _bars() -> Any:
    """What switches the bars of transformers, None where they are off or it is not imported."""
    switch = sys.modules.get("transformers.utils.logging")
    return switch if switch is not None and switch.is_progress_bar_enabled() else None
