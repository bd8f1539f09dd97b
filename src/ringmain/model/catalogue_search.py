"""Search in the series catalogue: words in keys and attributes, by columns.

A word is looked up once among the distinct attribute texts and then by code, and keys are scanned in pieces until
there are enough hits. What matches is defined at `search`; who asks is the catalogue.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

PATTERN_CHARS_MAX = 1100
WORDS_MAX = 32
_SCAN_ROWS = 1 << 16


def search(
    keys: pa.StringArray,
    texts: pa.StringArray,
    codes: NDArray[np.uint32],
    columns: Sequence[int],
    pattern: str,
    limit: int,
) -> list[int]:
    """Indices, in order, of the keys that match; at most `limit`.

    Each word of `pattern` must occur, in upper or lower case, in the key or in a text that one of `columns` of
    `codes` (rows x attributes, codes into `texts`) refers to; a word with `*` is compared with the whole key. An
    empty pattern matches every key, one beyond `PATTERN_CHARS_MAX` or `WORDS_MAX` none.
    """
    words = list(dict.fromkeys(pattern.split()))
    if len(pattern) > PATTERN_CHARS_MAX or len(words) > WORDS_MAX or not pattern.isprintable():
        return []
    if not words:
        return list(range(min(limit, len(keys))))
    text_hits = [_text_hits(texts, word) for word in words]
    found: list[int] = []
    for start in range(0, len(keys), _SCAN_ROWS):
        rows = np.arange(start, min(start + _SCAN_ROWS, len(keys)))
        for word, hits in zip(words, text_hits, strict=True):
            mask = _key_hits(keys.take(pa.array(rows)), word)
            if hits is not None:
                for column in columns:
                    mask |= hits[np.minimum(codes[rows, column], len(hits) - 1)]
            rows = rows[mask]
            if not rows.size:
                break
        found.extend(rows.tolist())
        if len(found) >= limit:
            break
    return found[:limit]


def _text_hits(texts: pa.StringArray, word: str) -> NDArray[np.bool_] | None:
    """For each text whether `word` occurs in it, and a False for absent texts; None where it occurs in none."""
    if "*" in word:
        return None
    hits = pc.match_substring(texts, word, ignore_case=True).to_numpy(zero_copy_only=False)
    return np.append(hits, False) if hits.any() else None


def _key_hits(keys: pa.StringArray, word: str) -> NDArray[np.bool_]:
    if "*" in word:
        parts = (_escaped(part) for part in word.split("*"))
        hits = pc.match_substring_regex(keys, "^" + ".*".join(parts) + "$", ignore_case=True)
    else:
        hits = pc.match_substring(keys, word, ignore_case=True)
    mask: NDArray[np.bool_] = hits.to_numpy(zero_copy_only=False).copy()
    return mask


def _escaped(text: str) -> str:
    """Text as an RE2 expression that matches just it."""
    return "".join("\\" + c if c.isascii() and not c.isalnum() and c != "_" else c for c in text)
