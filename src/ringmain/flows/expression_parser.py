"""The text of an expression as sqlglot parses it, in DuckDB's dialect with functions left as they are written.

sqlglot knows hundreds of functions and makes something of its own of each. Here a function's name gets the prefix
`FUNCTION` before it is parsed, so that it comes out as it was written, and every function is ours. (A parser of our own
in sqlglot's would do as well, but its compiled form cannot be inherited from.) Positions are those in the text in
brackets: one more than in the text.

Promises: text, tokens and nesting are bounded before the parser sees them, and whatever it raises becomes an
ExpressionError with its place. sqlglot is imported when the first expression is read.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

from ringmain.flows.expression_tree import ExpressionError

CHARACTERS_MAX = 16_384
TOKENS_MAX = 8_192
NESTED_MAX = 16
"""Brackets and CASEs within one another; the parser's time may grow exponentially with them."""
_PREFIXES_MAX = 16
_OPENING = ("L_PAREN", "L_BRACKET", "L_BRACE", "CASE")
_CLOSING = ("R_PAREN", "R_BRACKET", "R_BRACE")
FUNCTION = "ringmain_function_"
_KNOWN_CALLS = ("cast", "try_cast", "extract")
_KEYWORD_CALLS = (
    "if",
    "replace",
    "left",
    "right",
    "any",
    "all",
    "some",
    "map",
    "struct",
    "array",
    "format",
    "insert",
)
_PREFIXES = ("NOT", "DASH", "TILDA", "PLUS", "INTERVAL")


def parsed(text: str) -> Any:
    """The node of sqlglot for the one expression in a text. Raises ExpressionError."""
    if not text.strip():
        raise ExpressionError("expected an expression such as `value > 0`, found nothing")
    if not text.isascii() and any("\ud800" <= sign <= "\udfff" for sign in text):
        raise ExpressionError("expected Unicode text, found half of a surrogate pair")
    if len(text) > CHARACTERS_MAX:
        raise ExpressionError(
            f"expected an expression of at most {CHARACTERS_MAX:,} characters, found {len(text):,}"
        )
    try:
        return _parsed(text)
    except RecursionError:
        raise ExpressionError("the expression is nested too deeply; split it into several steps") from None


def _parsed(text: str) -> Any:
    dialect, word, types = _dialect()
    try:  # in brackets, which the line break keeps out of a comment, so that no word begins a statement
        tokens = dialect.tokenize(f"({text}\n)")
    except Exception as error:  # what sqlglot's tokenizer raises has no position
        raise ExpressionError(
            f"expected SQL, found a text or name without its end: {text[-40:]!r}"
        ) from error
    _check_tokens(tokens, types)
    for token, following in pairwise(tokens):
        if following.token_type.name == "L_PAREN" and _names_function(token):
            token.token_type, token.text = word, FUNCTION + token.text.lower()
    try:
        found = dialect.parser().parse(tokens, f"({text}\n)")
    except RecursionError:
        raise
    except Exception as error:  # sqlglot's ParseError, or what its parser stumbles over
        raise _told(error, text) from error
    if len(found) != 1:
        raise ExpressionError(f"expected one expression, found {len(found)}")
    return found[0]


def _names_function(token: Any) -> bool:
    """Whether a word before a bracket is a function that sqlglot must leave as it is written."""
    name = token.text.lower()
    return (token.token_type.name == "VAR" and name not in _KNOWN_CALLS) or name in _KEYWORD_CALLS


@cache
def _dialect() -> tuple[Any, Any, frozenset[Any]]:
    """DuckDB's dialect, the kind of token that a word is, and those that name types."""
    try:
        from sqlglot.dialects.duckdb import DuckDB
        from sqlglot.tokens import TokenType
    except ImportError as error:
        raise ExpressionError(
            "expected sqlglot for expressions, found it not installed: install ringmain[flows]"
        ) from error
    types = frozenset(kind for kind in DuckDB.Parser.TYPE_TOKENS if kind.name not in ("INTERVAL", "NULL"))
    return DuckDB(), TokenType.VAR, types


def _check_tokens(tokens: list[Any], types: frozenset[Any]) -> None:
    """Refuse what sqlglot would need too long for, in time or in depth."""
    if len(tokens) > TOKENS_MAX:
        raise ExpressionError(f"expected at most {TOKENS_MAX:,} words and signs, found {len(tokens):,}")
    if len(tokens) == 2:
        raise ExpressionError("expected an expression such as `value > 0`, found nothing")
    brackets = cases = prefixes = 0
    before = earlier = ""
    for number, token in enumerate(tokens):
        kind, at = token.token_type.name, token.start - 1
        if kind in _OPENING:
            brackets += kind != "CASE"
            cases += kind == "CASE"
            if kind != "CASE" and before in ("R_PAREN", "R_BRACKET"):
                raise ExpressionError("expected an operator between brackets", at)
            word = tokens[max(number - 1, 0)]
            if kind == "L_PAREN" and (word.token_type in types or before == "IDENTIFIER"):
                raise ExpressionError(f"`{word.text}` is no function, and takes no brackets", word.start - 1)
        elif kind in _CLOSING:
            brackets -= 1
            if brackets == 0 and number < len(tokens) - 1:
                raise ExpressionError(
                    "expected an operator or the end, found a bracket that was not opened", at
                )
        elif kind == "END":
            cases = max(cases - 1, 0)  # or a column of that name
        elif kind == "SEMICOLON":
            raise ExpressionError("expected one expression, found `;`", at)
        elif kind == "DOT" and (earlier == "DOT" or before in ("R_PAREN", "R_BRACKET")):
            raise ExpressionError("expected at most one dot in a name, as in series.medium", at)
        prefixes = prefixes + 1 if kind in _PREFIXES else 0
        if brackets + cases > NESTED_MAX + 1 or prefixes > _PREFIXES_MAX:
            raise ExpressionError(
                f"expected brackets and CASE within one another at most {NESTED_MAX} times; split the expression into "
                "several steps",
                at,
            )
        before, earlier = kind, before
    if brackets:
        raise ExpressionError("expected a closing bracket, found the end")


def _told(error: Exception, text: str) -> ExpressionError:
    """sqlglot's complaint in our words, with its place."""
    details = getattr(error, "errors", None)
    if not details:
        return ExpressionError("expected an SQL expression, found something that is none")
    first = details[0]
    lines = f"({text}".split("\n")
    start = sum(len(line) + 1 for line in lines[: max(int(first.get("line") or 1) - 1, 0)])
    word = str(first.get("highlight") or "")
    at = min(max(start + int(first.get("col") or 1) - len(word) - 1, 0), max(len(text) - 1, 0))
    description = str(first.get("description") or "")
    if "missing for" in description:
        where = f"beside {word!r}" if start + int(first.get("col") or 1) <= len(text) + 1 else "at the end"
        return ExpressionError(f"something is missing {where}", at)
    if "END after CASE" in description:
        return ExpressionError("expected END of CASE", at)
    return ExpressionError(f"expected an operator or the end, found {word!r}", at)
