from proj import single

lock = single.generate_lock(single.name, ["stale"], {})
print(single.aquire_lock(lock, "somebody who was killed"))
