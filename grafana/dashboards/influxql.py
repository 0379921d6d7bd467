"""Queries: InfluxQL text, and the target that contains it in Grafana's JSON.

Every query of a panel is for the meter that is selected at the top of the dashboard. Its time range is Grafana's
($timeFilter). A panel that shows the present has a range that ends at now() and does not follow the time picker.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.dashboard import DataSourceRef

DATA_SOURCE: Final = DataSourceRef(type_val="influxdb", uid="han-influxdb")

METER: Final = '"meter_id" =~ /^${meter:regex}$/'
"""A regular expression, since Grafana then escapes the value that it fills in."""
INSTANCE: Final = '"instance" =~ /^${instance:regex}$/'
LOCAL: Final = "tz('${timezone:raw}')"
"""Makes time(1d) begin at the owner's midnight, also on days of 23 and 25 hours."""

TOTAL: Final = "\"phase\" = ''"
"""Totals and phases share a measurement."""
PHASES: Final = "\"phase\" != ''"
IMPORT: Final = "\"direction\" = 'import'"
EXPORT: Final = "\"direction\" = 'export'"
FINAL: Final = "\"kind\" = 'final'"
ALWAYS_SENT: Final = ("active_power", TOTAL, IMPORT)
"""A measurement and its tags that every meter sends. Limits of values that not all send are drawn over its time."""
WEEK: Final = "time > ${__to}ms - 7d AND time <= ${__to}ms"
"""The seven days up to the end of the time range, for queries that would take too long over a year."""


def tag(name: str, value: str) -> str:
    """A condition: the tag `name` has this value."""
    return f"\"{name}\" = '{value}'"


@dataclass(frozen=True, slots=True)
class Target(Builder[Dataquery]):
    """One query of a panel. `alias` is the name of its series ($tag_phase is replaced by a tag); `table`: give rows."""

    query: str
    alias: str = ""
    table: bool = False
    ref: str = "A"

    def build(self) -> Dataquery:
        """Make the SDK's object."""
        return _Query(self)


class _Query(Dataquery):
    """A query in InfluxQL, for which grafana-foundation-sdk has no class."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def to_json(self) -> dict[str, object]:
        target = self._target
        found: dict[str, object] = {
            "refId": target.ref,
            "datasource": DATA_SOURCE,
            "rawQuery": True,
            "query": target.query,
            "resultFormat": "table" if target.table else "time_series",
        }
        return found | ({"alias": target.alias} if target.alias else {})


def course(
    measurement: str, *where: str, by: str = "", of: str = 'mean("value")', fill: str = "null", whose: str = METER
) -> str:
    """A quantity over the time range: one value for each $__interval, by tag `by`."""
    group = f', "{by}"' if by else ""
    conditions = " AND ".join((*where, whose, "$timeFilter"))
    return f'SELECT {of} FROM "{measurement}" WHERE {conditions} GROUP BY time($__interval){group} fill({fill})'


def latest(
    measurement: str, *where: str, by: str = "", of: str = 'last("value")', within: str = "5m", whose: str = METER
) -> str:
    """The last value before now that is not older than `within`, by tag `by`."""
    group = f' GROUP BY "{by}"' if by else ""
    conditions = " AND ".join((*where, whose, f"time > now() - {within}"))
    return f'SELECT {of} FROM "{measurement}" WHERE {conditions}{group}'


def if_any(query: str, when: str = "") -> str:
    """Only the values of a query that are above 0: a house without solar panels gets no line of zeros for export.

    `when` repeats the query's condition on time: if the outer query has none, InfluxDB reads every week that it has.
    Leave it out if a value may have a time before the range, as that of a day has.
    """
    named = query.replace(" FROM ", ' AS "found" FROM ', 1)
    return f'SELECT "found" FROM ({named}) WHERE "found" > 0' + (f" AND {when}" if when else "")


def limit(quantity: str, bound: str = "max", of: str = 'last("value")') -> str:
    """The owner's limit that is valid now; it is written every five minutes."""
    return latest("threshold", tag("quantity", quantity), tag("bound", bound), of=of, within="1d")


def limit_course(quantity: str, bound: str = "max", of: str = 'last("value")') -> str:
    """The owner's limit over the time range, for a line in a graph."""
    return course("threshold", tag("quantity", quantity), tag("bound", bound), of=of, fill="previous")


def limit_last(quantity: str, bound: str) -> str:
    """The owner's limit for a variable, even if it was written long ago."""
    return (
        f'SELECT last("value") FROM "threshold" WHERE {tag("quantity", quantity)} AND {tag("bound", bound)} AND {METER}'
    )


def limit_now(quantity: str, bound: str = "max") -> str:
    """The owner's limit as a number in a query, from a hidden variable (Page.limits); 0 if none is known."""
    return f"0${{{quantity}_{bound}:raw}}"


def limit_known(quantity: str, bound: str = "max") -> str:
    """A condition that gives no result, instead of a wrong one, for a meter whose limit is not known."""
    return f"{limit_now(quantity, bound)} > 0"


def limit_level(quantity: str, bound: str, measurement: str, *where: str) -> str:
    """The owner's limit that is valid now, from the first to the last value of a measurement in the time range.

    Two points are enough for a line. It is drawn only where there are values to compare with it, and also where they
    are from before the first start of `run`, where limit_course has nothing.
    """
    conditions = " AND ".join((*where, METER, limit_known(quantity, bound), "$timeFilter"))
    ends = (
        f'(SELECT {end}("value") * 0 + {limit_now(quantity, bound)} AS "limit" FROM "{measurement}" WHERE {conditions})'
        for end in ("first", "last")
    )
    return f'SELECT "limit" FROM {", ".join(ends)} WHERE $timeFilter'


def above(field: str, number: str) -> str:
    """1 if a field is at least this number, else 0. InfluxQL can compare only in WHERE, which gives no 0."""
    return f'(1 + floor(("{field}" - {number}) / 1000000))'


def below(field: str, number: str) -> str:
    """1 if a field is at most this number, else 0."""
    return f'(1 + floor(({number} - "{field}") / 1000000))'
