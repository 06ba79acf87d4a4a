-- Keeps events and publishes them.
--   max      how many are kept; of one task no more than 1000, for a day
--   events   {event, task id or '', for a heartbeat the node that beats or ''}
--   letters  {channel, envelope}
for _, event in ipairs(a.events) do
  local id = call('XADD', K .. 'events', 'MAXLEN', '~', text(a.max), '*', 'e', event[1])
  if event[2] ~= '' then
    local list = K .. 'events:' .. event[2]
    call('RPUSH', list, event[1])
    call('LTRIM', list, -1000, -1)
    call('EXPIRE', list, 86400)
  end
  if event[3] ~= '' then
    -- Of a node's heartbeats only the last stays.
    local last = call('HGET', K .. 'beats', event[3])
    if last then call('XDEL', K .. 'events', last) end
    call('HSET', K .. 'beats', event[3], id)
  end
end
for _, letter in ipairs(a.letters) do call('PUBLISH', letter[1], letter[2]) end
return 0
