-- Nodes.
--   op 'register': info, expiry                     returns the number
--   op 'beat':     node, expiry, said               returns the time, or 0 for one that is not alive
--   op 'leave':    node                             returns 1 when it was alive
--   op 'sweep':    remembered, valid                returns the numbers of those found dead
-- A node that dies or leaves owns nothing from that moment: its hash is renamed, and what is in it is
-- put back by whoever finds it in `orphans`.
local function orphan(node, how)
  call('ZREM', K .. 'nodes', node)
  call('ZADD', K .. 'gone', text(now), node)
  if call('EXISTS', K .. 'held:' .. node) == 1 then
    call('RENAME', K .. 'held:' .. node, K .. 'orphans:' .. node)
    call('HSET', K .. 'orphans', node, how)
  end
  ring()
end

if a.op == 'register' then
  local node = text(call('INCR', K .. 'node'))
  call('HSET', K .. 'node:' .. node, 'info', a.info, 'said', '', 'seen', text(now), 'began', text(now))
  call('ZADD', K .. 'nodes', text(now + a.expiry), node)
  return node
elseif a.op == 'beat' then
  if not call('ZSCORE', K .. 'nodes', a.node) then return 0 end
  call('ZADD', K .. 'nodes', text(now + a.expiry), a.node)
  call('HSET', K .. 'node:' .. a.node, 'said', a.said, 'seen', text(now))
  promote(1000)
  return now
elseif a.op == 'leave' then
  if not call('ZSCORE', K .. 'nodes', a.node) then return 0 end
  call('HSET', K .. 'node:' .. a.node, 'seen', text(now))
  orphan(a.node, 'left')
  return 1
else
  -- An order that stood still with the server says nothing about the nodes, whose beats may come next.
  if now > a.valid then return {} end
  local dead = call('ZRANGEBYSCORE', K .. 'nodes', '-inf', text(now), 'LIMIT', 0, 64)
  for _, node in ipairs(dead) do orphan(node, 'died') end
  for _, node in ipairs(call('ZRANGEBYSCORE', K .. 'gone', '-inf', text(now - a.remembered), 'LIMIT', 0, 64)) do
    call('ZREM', K .. 'gone', node)
    call('DEL', K .. 'node:' .. node)
  end
  return dead
end
