"""Vocabulary: a model that knows fewer tokens, its tokenizer rewritten, its logits those of the original."""

from prunegraph.vocabulary.cut import SmallVocabulary, cut_vocabulary
from prunegraph.vocabulary.plan import VocabularyPlan
from prunegraph.vocabulary.tokenizer import SmallTokenizer, cut_tokenizer, mapped_config, stated_ids
from prunegraph.vocabulary.verify import verify_vocabulary

__all__ = [
    "SmallTokenizer",
    "SmallVocabulary",
    "VocabularyPlan",
    "cut_tokenizer",
    "cut_vocabulary",
    "mapped_config",
    "stated_ids",
    "verify_vocabulary",
]
