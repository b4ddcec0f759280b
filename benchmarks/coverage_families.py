"""The coverage study by family of architectures, and by what stays whole: what a person looks for first."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from statistics import median

from benchmarks.coverage_page import DULL, Results, passed, shares
from benchmarks.harness import Record, Section

FAMILIES: Mapping[str, str] = {
    "text encoders": (
        "bert bert_base_model bert_mlm roberta albert electra mpnet distilbert deberta_v2 modernbert "
        "mobilebert longformer roformer convbert fnet squeezebert nystromformer t5_encoder clip_text"
    ),
    "decoders": (
        "gpt2 gpt_neo gpt_neox gptj opt bloom llama mistral qwen2 qwen3 gemma gemma2 phi phi3 falcon olmo2 "
        "stablelm cohere"
    ),
    "mixtures of experts": "mixtral qwen2_moe gpt_oss deepseek_v3",
    "state spaces": "mamba",
    "encoder and decoder": "t5 longt5 bart whisper",
    "speech; images with text": "wav2vec2 clip",
    "plain vision transformers": (
        "deit vit vit_qk_norm vit_swiglu deit3 cait xcit beit eva02 dinov2 dinov2_reg hf_vit siglip "
        "clip_vision convit volo crossvit"
    ),
    "staged vision transformers": "swin swinv2 pvt_v2 twins hiera mvitv2 davit focalnet maxvit tiny_vit coat segformer",
    "convolutions with attention": (
        "efficientformer efficientformerv2 mobilevit mobilevitv2 coatnet levit edgenext visformer pit fastvit detr"
    ),
    "perceptrons over patches": "mixer resmlp gmlp poolformer",
    "convolutional networks": (
        "convnext convnextv2 hf_convnext resnet resnet_basic resnext wide_resnet seresnet resnest densenet "
        "mobilenetv2 mobilenetv3 efficientnet regnetx regnety vgg shufflenet googlenet nfnet ghostnet hrnet "
        "repvgg cspdarknet inception vovnet"
    ),
}

OTHERS = "others"


def family_of(name: str) -> str:
    """The family of an architecture of the zoo."""
    return next((family for family, names in FAMILIES.items() if name in names.split()), OTHERS)


def sampled(names: Sequence[str], step: int) -> list[str]:
    """Every `step`-th architecture, each family in its share and with at least one."""
    families: dict[str, list[str]] = {}
    for name in names:
        families.setdefault(family_of(name), []).append(name)
    return [name for members in families.values() for name in members[step // 2 :: step] or members[:1]]


HEADER = ("family", "kinds", "architectures", "files", "pruned and equal", "exact kinds remove", "with hidden width")
MEANING = {
    "graph output": "classes, the vocabulary, a hidden state that is handed out: outputs keep their sizes, "
    "`--allow-io` frees them",
    "gathered by position": "rows of tables, which are looked up by number: words (`prunegraph vocab` removes those), "
    "positions, distances; positions that a convolution with attention picks",
    "Softmax runs along it": "slots that a softmax weighs against each other, such as branches of a split attention",
    "TopK ranks along it": "what is ranked among itself: groups of experts",
    "Resize gives it no meaning": "the four numbers that scale an image",
    "padded": "length that is padded to a multiple of a block",
}
"""What stands behind the reasons, for people."""


def families(results: Results, variant: str) -> Section:
    """One row a family: its files as exported, and what goes of them."""
    members: dict[str, dict[str, Record]] = defaultdict(dict)
    for (stem, what), record in results.items():
        if what == variant:
            members[family_of(stem.removesuffix("_legacy"))][stem] = record
    rows = []
    for family in [name for name in (*FAMILIES, OTHERS) if name in members]:
        records = members[family]
        good = [record for record in records.values() if passed(record)]
        kinds = Counter(kind for record in good for kind in record["groups"])
        common = [kind for kind, n in kinds.most_common() if n * 4 >= len(good)]
        numbers = (len({stem.removesuffix("_legacy") for stem in records}), len(records), len(good))
        spreads = (_spread([shares(record)[k] for record in good]) for k in (0, 1))
        rows.append((family, ", ".join(common), *map(str, numbers), *spreads))
    return Section("By family", HEADER, rows, texts=2)


def _spread(values: Sequence[float]) -> str:
    """The median, with the smallest and the largest."""
    if not values:
        return ""
    middle, low, high = (f"{value:.0%}" for value in (median(values), min(values), max(values)))
    return middle if low == high else f"{middle} ({low} to {high})"


def what_stays(results: Results, variant: str) -> Section:
    """One row a reason: how many architectures have it, and what it means."""
    names: dict[str, set[str]] = defaultdict(set)
    for (stem, what), record in results.items():
        for reason in record.get("pins", {}).values() if what == variant else ():
            text = reason.rpartition(" (")[0] or reason
            if not text.startswith(DULL):
                names[text].add(stem.removesuffix("_legacy"))
    ordered = sorted(names.items(), key=lambda entry: -len(entry[1]))
    rows = [(text, MEANING.get(text, ", ".join(sorted(having)[:4])), str(len(having))) for text, having in ordered]
    return Section("What stays whole, and why", ("reason", "what it is", "architectures"), rows, texts=2)
