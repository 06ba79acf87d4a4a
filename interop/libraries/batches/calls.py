from kit import SECONDS
from proj import counts, where

sent = [counts.delay(number) for number in range(10)]
print(*{one.get(timeout=SECONDS) for one in sent}, where.delay().get(timeout=SECONDS))
