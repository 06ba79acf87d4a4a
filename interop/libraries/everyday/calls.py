from celery.contrib.abortable import AbortableAsyncResult
from celery_once import AlreadyQueued
from kit import SECONDS, end, until
from proj import counts, hangs, hangs_once, once, redis, shop, single


def began(key):
    assert redis.blpop("began", timeout=SECONDS)[1] == key.encode()


def holder(task, *arguments):
    """Who holds the lock."""
    return task.singleton_backend.get(task.generate_lock(task.name, list(arguments), {}))


# The recipe of clear_locks for workers that were killed.
until("the worker cleared old locks", lambda: holder(single, "stale") is None)

# A second call while the first waits, and while it runs.
early = single.apply_async(("later",), countdown=1)
print("waiting", single.delay("later").id == early.id)
for key in ("passes", "fails"):
    first = single.delay(key)
    began(key)
    print("running", single.delay(key).id == first.id)
    redis.rpush(key, 1)
    print(end(first))
    until("the lock is released", lambda: holder(single, key) is None)
    second = single.delay(key)
    print("afterwards", second.id == first.id)
    began(key)
    redis.rpush(key, 1)
    print(end(second))
    until("the lock is released", lambda: holder(single, key) is None)
began("later")
redis.rpush("later", 1)
print(end(early))


def again(task, *arguments):
    try:
        return task.delay(*arguments)
    except AlreadyQueued:
        return "already queued"


for key in ("passes", "fails"):
    first = once.delay(key)
    began(key)
    print("once, running:", again(once, key), once.apply_async((key,), once={"graceful": True}).state)
    redis.rpush(key, 1)
    print(end(first))
    second = until("the lock is released", lambda: (one := again(once, key)) != "already queued" and one)
    began(key)
    redis.rpush(key, 1)
    print(end(second))

print("hard limits", end(hangs.delay()), end(hangs_once.delay()))

long = counts.delay()
began("counts")
aborted = AbortableAsyncResult(long.id)
aborted.abort()
print("aborted", end(long), aborted.state)

print("Flask", end(shop.delay("milk")), end(shop.delay("nothing")))
left = sorted(redis.blpop("left", timeout=SECONDS)[1].decode() for _ in range(2))
print("its contexts ended", left)
