"""The text of an expression as sqlglot parses it, in DuckDB's dialect with functions left as they are written.

Promises: text, tokens and nesting are bounded before the parser sees them, and whatever it raises becomes an
ExpressionError with its place. sqlglot is imported when the first expression is read.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from ringmain.flows.expression_tree import ExpressionError

CHARACTERS_MAX = 16_384
TOKENS_MAX = 8_192
NESTED_MAX = 16
"""Brackets and CASEs within one another; the parser's time may grow exponentially with them."""
_PREFIXES_MAX = 16
_OPENING = ("L_PAREN", "L_BRACKET", "L_BRACE", "CASE")
_CLOSING = ("R_PAREN", "R_BRACKET", "R_BRACE")
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
    dialect, types = _dialect()
    try:
        tokens = dialect.tokenize(text)
    except Exception as error:  # what sqlglot's tokenizer raises has no position
        raise ExpressionError(
            f"expected SQL, found a text or name without its end: {text[-40:]!r}"
        ) from error
    _check_tokens(tokens, types)
    try:
        found = dialect.parser().parse(tokens, text)
    except RecursionError:
        raise
    except Exception as error:  # sqlglot's ParseError, or what its parser stumbles over
        raise _told(error, text) from error
    expressions = [expression for expression in found if expression is not None]
    if len(expressions) != 1:
        raise ExpressionError(f"expected one expression, found {len(expressions)}")
    return expressions[0]


@cache
def _dialect() -> tuple[Any, frozenset[Any]]:
    """DuckDB's dialect with functions left as they are written, and the tokens that name types."""
    try:
        from sqlglot.dialects.duckdb import DuckDB
    except ImportError as error:
        raise ExpressionError(
            "expected sqlglot for expressions, found it not installed: install ringmain[flows]"
        ) from error

    class Parser(DuckDB.Parser):  # type: ignore[misc]
        def _warn_unsupported(self) -> None:
            """A command is refused by `_Reader`."""

        FUNCTIONS: dict[str, Any] = {}  # noqa: RUF012
        NO_PAREN_FUNCTIONS: dict[Any, Any] = {}  # noqa: RUF012
        STATEMENT_PARSERS: dict[Any, Any] = {}  # noqa: RUF012
        NO_PAREN_FUNCTION_PARSERS = {"CASE": DuckDB.Parser.NO_PAREN_FUNCTION_PARSERS["CASE"]}  # noqa: RUF012
        FUNCTION_PARSERS = {  # noqa: RUF012
            name: DuckDB.Parser.FUNCTION_PARSERS[name] for name in ("CAST", "TRY_CAST", "EXTRACT")
        }

    dialect = DuckDB()
    types = frozenset(kind for kind in Parser.TYPE_TOKENS if kind.name not in ("INTERVAL", "NULL"))
    dialect.parser = lambda **options: Parser(dialect=dialect, **options)
    return dialect, types


def _check_tokens(tokens: list[Any], types: frozenset[Any]) -> None:
    """Refuse what sqlglot would need too long for, in time or in depth."""
    if len(tokens) > TOKENS_MAX:
        raise ExpressionError(f"expected at most {TOKENS_MAX:,} words and signs, found {len(tokens):,}")
    brackets = cases = prefixes = 0
    before = earlier = ""
    for number, token in enumerate(tokens):
        kind = token.token_type.name
        if kind in _OPENING:
            brackets += kind != "CASE"
            cases += kind == "CASE"
            if kind != "CASE" and before in ("R_PAREN", "R_BRACKET"):
                raise ExpressionError("expected an operator between brackets", token.start)
            if kind == "L_PAREN" and number and tokens[number - 1].token_type in types:
                word = tokens[number - 1]
                raise ExpressionError(f"`{word.text}` is no function, and takes no brackets", word.start)
        elif kind in _CLOSING:
            brackets -= 1
        elif kind == "END":
            cases = max(cases - 1, 0)  # or a column of that name
        elif kind == "SEMICOLON":
            raise ExpressionError("expected one expression, found `;`", token.start)
        elif kind == "DOT" and (earlier == "DOT" or before in ("R_PAREN", "R_BRACKET")):
            raise ExpressionError("expected at most one dot in a name, as in series.medium", token.start)
        prefixes = prefixes + 1 if kind in _PREFIXES else 0
        if brackets + cases > NESTED_MAX or prefixes > _PREFIXES_MAX:
            raise ExpressionError(
                f"expected brackets and CASE within one another at most {NESTED_MAX} times; split the expression into "
                "several steps",
                token.start,
            )
        before, earlier = kind, before


def _told(error: Exception, text: str) -> ExpressionError:
    """sqlglot's complaint in our words, with its place."""
    details = getattr(error, "errors", None)
    if not details:
        return ExpressionError("expected an SQL expression, found something that is none")
    first = details[0]
    lines = text.split("\n")
    start = sum(len(line) + 1 for line in lines[: max(int(first.get("line") or 1) - 1, 0)])
    word = str(first.get("highlight") or "")
    at = min(max(start + int(first.get("col") or 1) - len(word), 0), max(len(text) - 1, 0))
    description = str(first.get("description") or "")
    if "missing for" in description:
        return ExpressionError(f"something is missing beside {word!r}", at)
    if not description or "<" in description or description.startswith(("Invalid expression", "Expected AS")):
        return ExpressionError(f"expected an operator or the end, found {word!r}", at)
    return ExpressionError(f"{description[:1].lower()}{description[1:]}, found {word!r}", at)
