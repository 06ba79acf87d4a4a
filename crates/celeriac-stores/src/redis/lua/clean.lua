-- Removes the replies to an asker that is gone, with the binding of its inbox.
-- KEYS[1] the list of replies; KEYS[2] the bindings of the exchange of replies
-- ARGV[1] seconds for which nobody has touched the list; ARGV[2] its member among the bindings
-- Returns 1 if it was removed, 0 if somebody was there meanwhile.
local idle = redis.call('OBJECT', 'IDLETIME', KEYS[1])
if not idle or idle < tonumber(ARGV[1]) then
  return 0
end
redis.call('SREM', KEYS[2], ARGV[2])
return redis.call('DEL', KEYS[1])
