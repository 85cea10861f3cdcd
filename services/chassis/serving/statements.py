"""Composes the SQL of a page of a list."""

from functools import lru_cache
from itertools import count

EXAMINED = 1000
"""The most rows that a page of a search examines, so that its cost does not grow with the table, however few rows match."""


@lru_cache(256)
def page(listing: tuple[str, str, str, str], filters: tuple[str, ...], behind: bool, limit: int) -> str:
    """Reads one row: at most `limit` items plus one, time and key of the item at the limit, and whether another follows.

    `listing`: item, rows, time and key of the list, as SQL; `filters`: conditions with {} for the value. It takes no lock. The limit is
    part of the text, so that PostgreSQL plans the statement once and the plan reads no further.
    """
    item, rows, time, key = listing
    conditions = [f"{time} IS NOT NULL", *(condition.format(f"${at}") for at, condition in enumerate(filters, 1))]
    if behind:
        conditions.append(f"({time}, {key}) < (${len(filters) + 1}, ${len(filters) + 2})")
    return f"""SELECT coalesce(array_agg(item), '{{}}'), (array_agg(at))[{limit}], (array_agg(key))[{limit}], count(*) > {limit}
               FROM (SELECT {item} AS item, {time} AS at, {key} AS key FROM {rows} WHERE {" AND ".join(conditions)}
                     ORDER BY {time} DESC, {key} DESC LIMIT {limit + 1}) AS page"""


@lru_cache(256)
def searched_page(
    listing: tuple[str, str, str, str],
    filters: tuple[str, ...],
    behind: bool,
    search: tuple[tuple[str, ...], str],
    limit: int,
) -> str:
    """Reads the same row as `page`, of the next EXAMINED rows that meet `filters` and the narrowing conditions of `search` only.

    If they were too few for the page, it continues after the last one that was examined.
    """
    item, rows, time, key = listing
    numbers = count(1)
    found = [f"{time} IS NOT NULL", *(_numbered(condition, numbers) for condition in filters)]
    if behind:
        found.append(_numbered(f"({time}, {key}) < ({{}}, {{}})", numbers))
    narrowing, condition = search
    found += [_numbered(one, numbers) for one in narrowing]
    examined, order = f"FROM {rows} WHERE {' AND '.join(found)}", f"ORDER BY {time} DESC, {key} DESC"
    alias = rows.split()[-1]
    return f"""SELECT items, coalesce(page.at, last.at), coalesce(page.key, last.key), more OR last.key IS NOT NULL
               FROM (SELECT coalesce(array_agg(item), '{{}}') AS items, (array_agg(at))[{limit}] AS at,
                            (array_agg(key))[{limit}] AS key, count(*) > {limit} AS more
                     FROM (SELECT {item} AS item, {time} AS at, {key} AS key
                           FROM (SELECT {alias}.* {examined} {order} LIMIT {EXAMINED}) AS {alias}
                           WHERE {_numbered(condition, numbers)} {order} LIMIT {limit + 1}) AS matching) AS page
               LEFT JOIN LATERAL (SELECT {time} AS at, {key} AS key {examined} AND NOT page.more
                                  {order} OFFSET {EXAMINED - 1} LIMIT 1) AS last ON true"""


def _numbered(condition: str, numbers: "count[int]") -> str:
    return condition.format(*(f"${next(numbers)}" for _ in range(condition.count("{}"))))
