"""Composes the SQL of a page of a list."""

from functools import lru_cache


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
