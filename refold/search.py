"""What people ask of runs: `lr > 0.01 and loss < 0.3`, made into SQL; never pasted into it."""

import re
from collections.abc import Callable
from contextlib import suppress
from difflib import get_close_matches
from typing import Any, Literal, NamedTuple, NoReturn, TypeAlias, cast

import msgspec
from msgspec.structs import replace

from refold.eventstore.engines.engine import Sql
from refold.eventstore.errors import DBException, InvalidQuery
from refold.eventstore.payloads import PayloadCodec
from refold.projections.views import ReadableViews

Kind: TypeAlias = Literal["number", "text", "flag"]

COLUMNS: dict[str, Kind] = {
    "run_id": "number",
    "experiment_id": "number",
    "run_name": "text",
    "mlflow_run_id": "text",
    "status": "text",
    "source": "text",
    "ended_by": "text",
    "parent_run_id": "number",
    "warm_start": "flag",
    "seed": "number",
    "num_chunks": "number",
    "current_chunk": "number",
    "current_epoch": "number",
    "created_at": "text",
    "updated_at": "text",
    "position": "number",
}
"""The columns of `runs` that can be asked for."""

OTHER_NAMES = {"id": "run_id", "run": "run_id", "name": "run_name", "experiment": "experiment_id"}

OF_METRICS = ("last", "first", "min", "max", "count", "last_step", "min_step", "max_step")
"""What can be asked of a metric, as in `min(loss)`; its last value, if nothing is said."""


class Known(NamedTuple):
    """Which names there are."""

    is_metric: Callable[[str], bool]
    is_parameter: Callable[[tuple[str, ...]], bool]
    names: Callable[[], list[str]]
    """All of them, for a hint after a mistyped one."""


class Query(NamedTuple):
    """A SELECT of runs."""

    sql: str
    parameters: list[Any]


def search(
    where: str | None, sort: str | None, limit: int | None, *, sql: Sql, known: Known
) -> Query:
    """Return the SELECT that finds runs.

    Args:
        where: comparisons (`=`, `!=`, `<`, `<=`, `>`, `>=`, `in (…)`, `like`, `is null`) of columns
            of `runs`, parameters and metrics with numbers, 'text' or true and false, joined by
            `and`, `or`, `not` and parentheses. `params.x` and `metrics.x` where a name is both;
            `params.model.layers` for groups; `"quoted"` for names with other characters;
            `min(loss)`, `max_step(loss)` … for what is known of a metric besides its last value.
        sort: names as in `where`, separated by commas, each with `desc` behind it or `-` before it
            for the largest first. What has no value comes last.
        limit: return at most this many.
        sql: whose SQL.
        known: which names there are.

    Raises:
        InvalidQuery: it is wrong, and where; or a name means nothing, or two things.
    """
    for name, text in (("where", where), ("sort", sort)):
        if text is not None and not isinstance(text, str):
            raise InvalidQuery(f"{name} is a {type(text).__name__}: pass text")
    reader = _Reader(sql, known)
    condition = reader.condition(where) if where is not None and where.strip() else "1 = 1"
    asked = reader.parameters
    reader.parameters = []
    order = "".join(f"{key}, " for key in reader.order(sort or ""))
    joins = "".join(
        f" LEFT JOIN run_metrics m{n} ON m{n}.run_id = r.run_id AND m{n}.metric = ?"
        for n in range(len(reader.metrics))
    )
    text = f"SELECT r.run_id FROM runs r{joins} WHERE {condition} ORDER BY {order}r.run_id"
    parameters = [*reader.metrics, *asked, *reader.parameters]
    if limit is not None:
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
            raise InvalidQuery(f"limit is {limit!r}: pass a number of runs")
        text += " LIMIT ?"
        parameters.append(limit)
    return Query(text, parameters)


_TOKEN = re.compile(
    r"\s*(?:(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))"
    r"|(?P<text>'(?:[^']|'')*')"
    r'|(?P<name>(?:[^\W\d][\w-]*|"[^"]+")(?:\.(?:\w[\w-]*|"[^"]+"))*)'
    r"|(?P<sign><=|>=|!=|<>|==|=|<|>|\(|\)|,|-))"
)
_PART = re.compile(r'"([^"]+)"|([^.]+)')
_WORDS = frozenset({"and", "or", "not", "in", "like", "is", "null", "true", "false", "asc", "desc"})
_SIGNS = {"=": "=", "==": "=", "!=": "<>", "<>": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


class _Column:
    """A column of `runs`, or of what is known of a metric."""

    def __init__(self, kind: Kind, sql: str, *, is_status: bool = False) -> None:
        self.kind: Kind | None = kind
        self.is_status = is_status
        self._sql = sql

    def read(self, _: Kind) -> str:
        return self._sql


class _Parameter:
    """A parameter, which may be of any kind; read as one, it is NULL where it is of another."""

    kind: Kind | None = None
    is_status = False

    def __init__(self, path: tuple[str, ...], sql: Sql, parameters: list[Any]) -> None:
        self._path, self._parameters = path, parameters
        self._sql: Sql = sql

    def read(self, kind: Kind) -> str:
        return parameter(self._path, kind, self._sql, self._parameters)


_Operand: TypeAlias = _Column | _Parameter


class _Reader:
    def __init__(self, sql: Sql, known: Known) -> None:
        self.parameters: list[Any] = []
        self.metrics: list[str] = []
        self._sql: Sql = sql
        self._known = known
        self._text = ""
        self._tokens: list[_Token] = []

    # --- reading --------------------------------------------------------------------------

    def condition(self, text: str) -> str:
        self._begin(text)
        try:
            condition = self._any()
        except RecursionError:
            raise InvalidQuery(f"{text[:50]!r}… is nested too deeply") from None
        if self._tokens:
            self._fail(f"{self._tokens[0].text!r} is not expected")
        return condition

    def order(self, text: str) -> list[str]:
        self._begin(text)
        keys: list[str] = []
        while self._tokens:
            descending = self._take("-")
            operand = self._operand()
            descending = self._word("desc") or descending
            self._word("asc")
            way = "DESC" if descending else "ASC"
            kinds: list[Kind] = ["number", "text"] if operand.kind is None else [operand.kind]
            keys += [f"{operand.read(kind)} {way} NULLS LAST" for kind in kinds]
            if self._tokens and not self._take(","):
                self._fail(f"{self._tokens[0].text!r} is not expected")
        return keys

    def _begin(self, text: str) -> None:
        self._text, self._tokens = text, []
        end = 0
        while text[end:].strip():
            found = _TOKEN.match(text, end)
            if found is None:
                at = len(text) - len(text[end:].lstrip())
                self._tokens = [_Token("", "", at)]
                self._fail(f"{text[at : at + 20]!r} is not understood")
            kind = found.lastgroup or ""
            self._tokens.append(_Token(kind, found[kind], found.start(kind)))
            end = found.end()

    def _fail(self, what: str) -> NoReturn:
        where = f", at {self._tokens[0].at + 1}" if self._tokens else ""
        raise InvalidQuery(
            f"{self._text[:200]!r}: {what}{where}; such as: lr > 0.01 and loss < 0.3"
        )

    def _take(self, sign: str) -> bool:
        if self._tokens and self._tokens[0][:2] == ("sign", sign):
            del self._tokens[0]
            return True
        return False

    def _word(self, *words: str) -> bool:
        heard = [token.text.lower() for token in self._tokens[: len(words)]]
        if heard == [*words]:
            del self._tokens[: len(words)]
            return True
        return False

    # --- conditions -----------------------------------------------------------------------

    def _any(self) -> str:
        conditions = [self._all()]
        while self._word("or"):
            conditions.append(self._all())
        return conditions[0] if len(conditions) == 1 else f"({' OR '.join(conditions)})"

    def _all(self) -> str:
        conditions = [self._one()]
        while self._word("and"):
            conditions.append(self._one())
        return " AND ".join(conditions)

    def _one(self) -> str:
        if self._word("not"):
            return f"NOT ({self._one()})"
        if self._take("("):
            condition = self._any()
            if not self._take(")"):
                self._fail("a ) is missing")
            return f"({condition})"
        return self._comparison()

    def _comparison(self) -> str:
        left = self._operand()
        if self._word("is", "not", "null"):
            return self._is_null(left, negated=True)
        if self._word("is", "null"):
            return self._is_null(left, negated=False)
        negated = "NOT " if self._word("not") else ""
        if self._word("in"):
            return self._in(left, negated)
        if self._word("like"):
            kind, value = self._literal("text")
            text = left.read(kind)
            self.parameters.append(value)
            return f"{text} {negated}LIKE ?"
        if negated or not self._tokens or self._tokens[0].text not in _SIGNS:
            self._fail("a comparison is missing")
        sign = _SIGNS[self._tokens.pop(0).text]
        if self._is_name():
            right = self._operand()
            kind = left.kind or right.kind or "number"
            return f"{left.read(kind)} {sign} {right.read(kind)}"
        kind, value = self._literal(left.kind)
        text = left.read(kind)
        self.parameters.append(value.upper() if left.is_status else value)
        return f"{text} {sign} ?"

    def _is_null(self, operand: _Operand, *, negated: bool) -> str:
        kinds: list[Kind] = ["number", "text", "flag"] if operand.kind is None else [operand.kind]
        told = " AND ".join(f"{operand.read(kind)} IS NULL" for kind in kinds)
        return f"NOT ({told})" if negated else f"({told})"

    def _in(self, left: _Operand, negated: str) -> str:
        if not self._take("("):
            self._fail("in needs a list: in (1, 2)")
        kind, value = self._literal(left.kind)
        values = [value]
        while self._take(","):
            values.append(self._literal(kind)[1])
        if not self._take(")"):
            self._fail("a ) is missing")
        text = left.read(kind)
        self.parameters += [value.upper() for value in values] if left.is_status else values
        return f"{text} {negated}IN ({', '.join('?' * len(values))})"

    def _literal(self, wanted: Kind | None) -> tuple[Kind, Any]:
        if not self._tokens:
            self._fail("a value is missing")
        token = self._tokens[0]
        kind: Kind
        value: Any
        if token.kind == "number":
            kind, value = "number", float(token.text)
            if re.fullmatch(r"[+-]?\d{1,18}", token.text):
                value = int(token.text)
        elif token.kind == "text":
            kind, value = "text", token.text[1:-1].replace("''", "'")
        elif token.text.lower() in ("true", "false"):
            kind, value = "flag", int(token.text.lower() == "true")
        else:
            self._fail(f"{token.text!r} is not a value: write numbers, 'text', true or false")
        if wanted is not None and kind != wanted:
            self._fail(f"{token.text} is a {kind}, where a {wanted} is compared")
        del self._tokens[0]
        return kind, value

    # --- names ----------------------------------------------------------------------------

    def _is_name(self) -> bool:
        token = self._tokens[0] if self._tokens else None
        return token is not None and token.kind == "name" and token.text.lower() not in _WORDS

    def _operand(self) -> _Operand:
        if not self._is_name():
            self._fail("a name is missing")
        name = self._tokens.pop(0).text
        if name in OF_METRICS and self._take("("):
            if not self._is_name():
                self._fail("a metric is missing")
            parts = _parts(self._tokens.pop(0).text)
            if not self._take(")"):
                self._fail("a ) is missing")
            return self._metric(".".join(parts[1:] if parts[0] == "metrics" else parts), name)
        first, *rest = parts = _parts(name)
        if first in ("metrics", "metric") and rest:
            return self._metric(".".join(rest), "last")
        if first in ("params", "param") and rest:
            return self._parameter(tuple(rest))
        column = OTHER_NAMES.get(name, name)
        if column in COLUMNS:
            kind = COLUMNS[column]
            is_status = column in ("status", "source", "ended_by")
            return _Column(kind, f"r.{column}", is_status=is_status)
        whole = ".".join(parts)
        is_metric = self._known.is_metric(whole)
        is_parameter = self._known.is_parameter(tuple(parts))
        if is_metric and is_parameter:
            self._fail(f"{whole} is both: write params.{name} or metrics.{name}")
        if is_parameter:
            return self._parameter(tuple(parts))
        if not is_metric:
            near = get_close_matches(whole, [*COLUMNS, *self._known.names()], 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            self._fail(f"there is no column, parameter or metric {whole!r}{hint}")
        return self._metric(whole, "last")

    def _metric(self, name: str, what: str) -> _Operand:
        if name not in self.metrics:
            self.metrics.append(name)
        n = self.metrics.index(name)
        return _Column("number", f"m{n}.{what}")

    def _parameter(self, path: tuple[str, ...]) -> _Operand:
        return _Parameter(path, self._sql, self.parameters)


def _parts(name: str) -> list[str]:
    return [quoted or bare for quoted, bare in _PART.findall(name)]


def parameter(path: tuple[str, ...], kind: Kind, sql: Sql, parameters: list[Any]) -> str:
    """Return the SQL of a parameter of a run, which is NULL where it is of another kind."""
    if sql == "sqlite":
        where = "$" + "".join(f'."{step}"' for step in path)
        parameters += [where, where]
        kinds = {"number": "'integer', 'real'", "text": "'text'", "flag": "'true', 'false'"}[kind]
        return (
            f"CASE WHEN json_type(r.config_json, ?) IN ({kinds}) "
            f"THEN json_extract(r.config_json, ?) END"
        )
    value = "CAST(r.config_json AS jsonb) #> CAST(? AS text[])"
    text = "CAST(r.config_json AS jsonb) #>> CAST(? AS text[])"
    parameters += [list(path), list(path)]
    as_kind = {
        "number": f"CAST({text} AS DOUBLE PRECISION)",
        "text": text,
        "flag": f"CAST(CAST({text} AS BOOLEAN) AS INTEGER)",
    }[kind]
    of = {"number": "number", "text": "string", "flag": "boolean"}[kind]
    return f"CASE WHEN jsonb_typeof({value}) = '{of}' THEN {as_kind} END"


def parameter_exists(path: tuple[str, ...], sql: Sql) -> tuple[Any, ...]:
    """Return a SELECT, and its parameters, that finds a row if some run has a parameter."""
    if sql == "sqlite":
        where = "$" + "".join(f'."{step}"' for step in path)
        return "SELECT 1 FROM runs WHERE json_type(config_json, ?) IS NOT NULL LIMIT 1", where
    return (
        "SELECT 1 FROM runs WHERE CAST(config_json AS jsonb) #> CAST(? AS text[]) IS NOT NULL "
        "LIMIT 1",
        list(path),
    )


def found(
    views: ReadableViews,
    where: str | None = None,
    sort: str | None = None,
    limit: int | None = None,
) -> list[int]:
    """Return the ids of the runs for which something holds; see `search`."""
    select, sql = views.select, views.sql

    def is_metric(name: str) -> bool:
        return bool(select("SELECT 1 FROM run_metrics WHERE metric = ? LIMIT 1", name))

    def is_parameter(path: tuple[str, ...]) -> bool:
        return bool(select(*parameter_exists(path, sql)))

    def names() -> list[str]:
        metrics = select("SELECT DISTINCT metric FROM run_metrics")
        rows = select("SELECT DISTINCT config_json FROM runs WHERE config_json IS NOT NULL")
        keys = {key for row in rows for key in flat(msgspec.json.decode(row["config_json"]))}
        return [row["metric"] for row in metrics] + sorted(keys)

    query = search(where, sort, limit, sql=sql, known=Known(is_metric, is_parameter, names))
    return [row["run_id"] for row in select(query.sql, *query.parameters)]


def configurations(views: ReadableViews, payloads: PayloadCodec) -> dict[int, dict[str, Any]]:
    """Return the parameters of all runs, by id; see `flat`. Nothing is unpickled.

    Plain data that an older release stored without an outline is here, too, though SQL does not
    find it.
    """
    rows = views.select("SELECT run_id, config_json FROM runs WHERE config_json IS NOT NULL")
    known = {row["run_id"]: flat(msgspec.json.decode(row["config_json"])) for row in rows}
    others = views.select(
        "SELECT run_id, config_leaf FROM runs WHERE config_json IS NULL AND config_leaf IS NOT NULL"
    )
    careful = replace(payloads, allow_dill=False)
    for row in others:
        with suppress(DBException):  # it is no plain data, or cannot be read here
            known[row["run_id"]] = flat(careful.decode(row["config_leaf"]))
    return known


def flat(config: Any) -> dict[str, Any]:
    """Return the parameters of a configuration, those of groups by names such as `model.layers`."""
    if not isinstance(config, dict):
        return {}
    parameters: dict[str, Any] = {}
    for name, value in cast("dict[Any, Any]", config).items():
        inner = flat(value)
        parameters |= {f"{name}.{key}": one for key, one in inner.items()} or {str(name): value}
    return parameters
