"""What wakes a waiter, and what does not."""

from services.chassis.postgres import notifications
from services.chassis.postgres.notifications import Subscription


async def test_a_waiter_is_woken_by_what_it_wants_and_by_what_may_be_anything() -> None:
    subscription = Subscription({"a", "b"})
    for payload in ("x", "a", "b", "a"):
        subscription.put(payload)
    assert await subscription.wait(0) == ["a", "b"]
    subscription.put("x")
    assert await subscription.wait(0) == []
    subscription.put("")
    assert await subscription.wait(0) == [""]


async def test_payloads_beyond_the_bound_count_as_any() -> None:
    subscription = Subscription()
    for number in range(notifications._PAYLOADS + 5):
        subscription.put(str(number))
    assert "" in await subscription.wait(0)


async def test_what_is_wanted_may_change() -> None:
    wanted: dict[str, None] = {}
    subscription = Subscription(wanted)
    subscription.put("late")
    wanted["late"] = None
    subscription.put("late")
    assert await subscription.wait(0) == ["late"]


async def test_who_listens_to_a_channel_that_is_listened_to_asks_the_database_nothing() -> None:
    known = notifications.Notifications("postgresql://nobody@127.0.0.1:1/nothing")
    with known.subscribe("job"):
        assert known._changed.is_set()
        known._changed.clear()
        with known.subscribe("job"):
            pass
    with known.subscribe("job"):
        assert not known._changed.is_set()
    with known.subscribe("outbox"):
        assert known._changed.is_set()
