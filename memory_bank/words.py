"""Prompts that share words with a query, ranked by BM25."""

from __future__ import annotations

import math
import re
import sqlite3
from collections import defaultdict
from collections.abc import Mapping

_WORD = re.compile(r"\w+")
STOP_WORDS = frozenset(
    _WORD.findall(
        "a an and are as at be but by for if in into is it no not of on or such that the their"
        " then there these they this to was will with"
    )
)
"""Words that say nothing of a picture. Ref: Apache Lucene, EnglishAnalyzer (its stop words)."""
_K1, _B = 1.2, 0.75
"""Parameters of BM25, as in Lucene: saturation of repeated words, and influence of the length."""


def content_words(text: str) -> list[str]:
    """Return the words of a text that are no stop words, in lower case."""
    return [word for word in _WORD.findall(text.lower()) if word not in STOP_WORDS]


def bm25(
    db: sqlite3.Connection, words: list[str], live: str, values: Mapping[str, object]
) -> dict[int, float]:
    """Return the score of each entry whose prompt shares a word, > 0; more is better.

    Words are compared by their Porter stems. Statistics are of the entries that meet the SQL
    condition `live` with its bound `values`. The weight of a word is ln(1 + (N - n + 0.5) / (n +
    0.5)) for n of N prompts, which is positive in a bank of any size. Lengths are in characters.

    Ref: Robertson & Zaragoza, The Probabilistic Relevance Framework (2009), section 3; Apache
    Lucene, BM25Similarity (the weight).
    """
    count, mean = db.execute(
        f"SELECT count(prompt), avg(length(prompt)) FROM entries WHERE {live}", values
    ).fetchone()
    scores: dict[int, float] = defaultdict(float)
    for stem in _stems(db, words):
        rows = db.execute(
            "SELECT id, length(prompt), count(*) FROM temp.occurrences JOIN entries ON id = doc"
            f" WHERE term = :stem AND {live} GROUP BY id",
            {**values, "stem": stem},
        ).fetchall()
        weight = math.log1p((count - len(rows) + 0.5) / (len(rows) + 0.5))
        for number, length, often in rows:
            norm = _K1 * (1 - _B + _B * length / mean)
            scores[number] += weight * often * (_K1 + 1) / (often + norm)
    return scores


def _stems(db: sqlite3.Connection, words: list[str]) -> list[str]:
    """Return the stems of words, as the full-text index has them; make `temp.occurrences`.

    The temporary tables end with the transaction.
    """
    db.execute("CREATE VIRTUAL TABLE temp.query USING fts5(words, tokenize='porter unicode61')")
    db.execute("INSERT INTO temp.query VALUES (?)", (" ".join(words),))
    db.execute("CREATE VIRTUAL TABLE temp.stems USING fts5vocab('temp', 'query', 'row')")
    db.execute(
        "CREATE VIRTUAL TABLE temp.occurrences USING fts5vocab('main', 'prompts', 'instance')"
    )
    return [stem for (stem,) in db.execute("SELECT term FROM temp.stems ORDER BY term")]
