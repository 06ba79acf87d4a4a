from proj import hangs, redis

# Whether they are released after a hard limit can be told when the worker has ended.
lock = hangs.generate_lock(hangs.name, [], {})
print("after a hard limit", hangs.singleton_backend.get(lock) is None, redis.exists("qo_single.hangs"))
print("locks left", sorted(key.decode().split("_")[0] for key in redis.keys("*") if b"hangs" in key))
print("keys", sorted(key.decode() for key in redis.keys("*") if b"SINGLETON" in key or b"qo_" in key))
