"""Model folders on the command line: `prunegraph prune FOLDER -o SLIM_FOLDER`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunegraph.clock import Progress
    from prunegraph.export.folder import Cut, SlimConfig
    from prunegraph.result import PruneResult

EXPORTED = Path("onnx/model.onnx")
"""Where Optimum and transformers.js look for a model."""


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder that holds a model.

    Attributes:
        folder: The folder.
        model: Its ONNX file, or what was exported from it.
        place: Where that belongs in a folder of this kind.
    """

    folder: Path
    model: Path
    place: Path

    def write(
        self,
        target: Path,
        result: PruneResult,
        facts: Mapping[str, Any],
        *,
        strip: bool = False,
        shard: int | None = None,
    ) -> tuple[list[Path], list[SlimConfig]]:
        """Write the slim folder, whole or not at all: model, plan, configuration, tokenizer and the like, and a card.

        Args:
            target: Where; it must not be there yet.
            result: What becomes of the model.
            facts: What `PruneResult.facts` returned.
            strip: See `PruneResult.save`.
            shard: See `PruneResult.save`.

        Returns:
            The files, the model first; and what `config.json` and `genai_config.json` say now, and cannot say.

        Raises:
            PruneGraphError: the runtime that the folder is for takes one number for layers that differ.
        """
        from prunegraph.atomic_write import new_folder
        from prunegraph.export.cache_config import with_caches
        from prunegraph.export.folder import model_card, read_config, slim_config, write_companions
        from prunegraph.export.genai import read_genai_config, slim_genai_config, write_genai_config
        from prunegraph.export.report import render_markdown

        config, genai = read_config(self.folder), read_genai_config(self.folder)
        slim = slim_config_of(result, config or {})
        if config is not None and genai is None and has_caches(result):
            left = [cut for cut in cuts_of(result) if cut.after]
            slim = with_caches(config, slim_config(config, left), left)
        inputs = [value.name or "" for value in result.ir_model.graph.inputs]
        slim_genai = None if genai is None else slim_genai_config(genai, cuts_of(result), inputs)
        with new_folder(target) as staging:
            (staging / self.place).parent.mkdir(parents=True, exist_ok=True)
            files = list(result.save(staging / self.place, strip=strip, shard=shard))
            sizes = result.file_sizes(files[0])
            text = render_markdown({**facts, "name": self.name, "sizes": sizes})
            card = model_card(self.name, text, slim_genai if config is None and slim_genai else slim)
            write_companions(self.folder, self.model, staging, None if config is None else slim.config, card)
            if slim_genai is not None:
                write_genai_config(staging, slim_genai, self.place.name)
            names = [*files, *sorted(path for path in staging.rglob("*") if path.is_file() and path not in files)]
            written = [target / path.relative_to(staging) for path in names]
        configs = [slim] if config is not None or slim_genai is None else []
        return written, [*configs, *([slim_genai] if slim_genai is not None else [])]

    @property
    def name(self) -> str:
        """What people call the model."""
        return self.folder.resolve().name


def slim_config_of(result: PruneResult, config: Mapping[str, Any]) -> SlimConfig:
    """What a configuration has to say of a pruned model."""
    from prunegraph.export.folder import slim_config

    return slim_config(config, cuts_of(result))


def cuts_of(result: PruneResult) -> list[Cut]:
    """Every group of a model and what is left of it."""
    from prunegraph.export.folder import Cut

    left = {group.id: group.after for group in result.report.groups}
    groups = result.analyzed.analysis.groups if result.analyzed is not None else ()
    return [Cut(group.kind, group.units, left.get(group.id, group.units)) for group in groups]


def has_caches(result: PruneResult) -> bool:
    """Whether inputs of a model hold its heads: keys and values of what was read before."""
    if result.analyzed is None:
        return False
    analysis = result.analyzed.analysis
    heads = {group.dim for group in analysis.groups if group.kind in ("head", "kv_group")}
    names = [value.name or "" for value in result.analyzed.normalized.model.graph.inputs]
    axes = [axis for name in names if name in analysis.solution.axes for axis in analysis.solution.resolve(name)]
    return any(dim in heads for axis in axes for dim in axis.dims())


def is_folder(model: Path) -> bool:
    """Whether a model on the command line is a folder, or the address of one."""
    return model.is_dir() or str(model).startswith("hf:")


@contextmanager
def opened(model: Path, output: Path, step: Progress) -> Iterator[ModelFolder | None]:
    """The folder that is given as a model, exported where it holds no ONNX file yet; None for a file.

    Raises:
        ModelError: there is no model in it, or several.
        OutputError: there is something at the output already.
        MissingExtra: it must be exported, and torch or transformers is not installed.
    """
    if not is_folder(model):
        yield None
        return
    import tempfile

    from prunegraph.atomic_write import check_new_folder
    from prunegraph.export.folder import find_model, lacks_onnx
    from prunegraph.export.genai import decoder_file, read_genai_config

    check_new_folder(output)
    folder = Path(str(model).removeprefix("hf:"))
    if not lacks_onnx(folder):
        genai = read_genai_config(folder)
        onnx_file = (decoder_file(folder, genai) if genai is not None else None) or find_model(folder)
        yield ModelFolder(folder, onnx_file, onnx_file.relative_to(folder))
        return
    from prunegraph.export.hub import export_model

    with tempfile.TemporaryDirectory(prefix="prunegraph-") as aside:
        exported = Path(aside) / EXPORTED.name
        export_model(f"hf:{folder}", exported, progress=step)
        yield ModelFolder(folder, exported, EXPORTED)


def config_lines(slim: SlimConfig) -> Sequence[str]:
    """What a configuration says now, and what it cannot say, in words."""
    lines = []
    if slim.changed:
        numbers = slim.config if slim.file == "config.json" else slim.config["model"]["decoder"]
        lines.append(f"{slim.file}: " + ", ".join(f"{key} = {numbers[key]}" for key in slim.changed))
    for kind, left in slim.uneven.items():
        lines.append(
            f"{slim.file} cannot say how many {kind} there are: {min(left)} to {max(left)} by layer; "
            "--uniform evens them"
        )
    lines += [f"{slim.file} has no number for {kind}: {number} in every layer" for kind, number in slim.unsaid.items()]
    return lines
