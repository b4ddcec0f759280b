"""Vocabulary: a model that knows fewer tokens, its tokenizer rewritten, its logits those of the original."""

from prunegraph.vocabulary.cut import SmallVocabulary, cut_vocabulary
from prunegraph.vocabulary.tokenizer import SmallTokenizer, cut_tokenizer, mapped_config

__all__ = ["SmallTokenizer", "SmallVocabulary", "cut_tokenizer", "cut_vocabulary", "mapped_config"]
