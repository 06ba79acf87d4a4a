from proj import hangs, hangs_once

lock = hangs.generate_lock(hangs.name, [], {})
print("locks after a hard limit:", hangs.singleton_backend.get(lock), end=" ")
print(hangs_once.once_backend.redis.keys("qo_*"))
