-- Stores an intermediate state on behalf of a lease's owner.
--   node, row, key, json, ttl; rdb  see the prelude
-- Returns 1, or 0 when the lease is gone or a final state stands.
if call('HEXISTS', K .. 'held:' .. a.node, a.row) == 0 then return 0 end
local stored = results('GET', a.key)
if stored and is_ready(stored) then return 0 end
if a.ttl > 0 then results('SET', a.key, a.json, 'EX', a.ttl) else results('SET', a.key, a.json) end
call('PUBLISH', a.key, a.json)
return 1
