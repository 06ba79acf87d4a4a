-- Revocations, pauses and limits.
--   op 'revoke':   ids, terminate, expires, forget_before
--   op 'unrevoke': ids                              returns how many stood
--   op 'put':      hash, field, value, max, check   returns 1, or the number there are when it is full
--   op 'drop':     hash, fields                     returns how many there were
-- Every lane is looked at again.
local function changed()
  call('INCR', K .. 'rules')
  for _, queue in ipairs(call('SMEMBERS', K .. 'queues')) do
    local lanes = K .. 'lanes:' .. queue
    call('ZUNIONSTORE', lanes, 1, lanes, 'WEIGHTS', 0)
  end
  ring()
end

if a.op == 'revoke' then
  for _, id in ipairs(call('ZRANGEBYSCORE', K .. 'revokes:until', '-inf', text(now), 'LIMIT', 0, 1000)) do
    call('ZREM', K .. 'revokes:until', id)
    unrevoke(id)
  end
  for _, id in ipairs(a.ids) do
    local number = call('INCR', K .. 'revokes:last')
    call('HSET', K .. 'revoked', id, (a.terminate and 't' or 'w') .. text(a.expires))
    call('ZADD', K .. 'revokes', number, id)
    call('ZADD', K .. 'revokes:until', text(a.expires), id)
    -- A scheduled task does not wait for its time to be refused: its caller may be waiting.
    local place = call('HGET', K .. 'ids', id)
    if place then
      local queue, row = string.match(place, '^([^\n]*)\n(.*)$')
      call('ZADD', K .. 'due:' .. queue, 'XX', 0, row)
      note_due(queue)
    end
  end
  ring()
  return 0
elseif a.op == 'unrevoke' then
  local stood = 0
  for _, id in ipairs(a.ids) do
    call('ZREM', K .. 'revokes:until', id)
    stood = stood + unrevoke(id)
  end
  ring()
  return stood
elseif a.op == 'put' then
  local old = call('HGET', K .. a.hash, a.field)
  if not old then
    local there = call('HLEN', K .. a.hash)
    if there >= a.max then return there + 1 end
  end
  if old ~= a.value then
    call('HSET', K .. a.hash, a.field, a.value)
    changed()
  end
  return 1
else
  local gone = 0
  for _, field in ipairs(a.fields) do gone = gone + call('HDEL', K .. a.hash, field) end
  if gone > 0 then changed() end
  return gone
end
