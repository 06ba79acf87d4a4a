-- Puts what waits under our keys into the lists of stock workers.
--   queue, n  the most messages
-- Returns how many waited for their time, behind a limit, and as suspects.
local left, scheduled, limited, suspects = a.n, 0, 0, 0
local queue = a.queue

local rows = call('ZRANGE', K .. 'due:' .. queue, 0, left - 1)
for _, row in ipairs(rows) do
  local record = call('HGET', K .. 'waiting', row)
  call('HDEL', K .. 'waiting', row)
  call('ZREM', K .. 'due:' .. queue, row)
  if record then
    local f = fields(record, true)
    if f[6] ~= '' and call('HGET', K .. 'ids', f[6]) == queue .. '\n' .. row then
      call('HDEL', K .. 'ids', f[6])
    end
    unlock(f[5])
    call('LPUSH', list_key(queue, f[2]), f[7])
    count('d', queue, -1)
    scheduled = scheduled + 1
  end
end
note_due(queue)
left = left - #rows

-- What was kept back is older than what waits in the lists: it goes to their heads, the newest first.
for _, lane in ipairs(call('ZRANGE', K .. 'lanes:' .. queue, 0, -1)) do
  local rest = 0
  for _, step in ipairs({ '0', '3', '6', '9' }) do
    local key = lane_key(queue, lane, step)
    while left > 0 do
      local record = call('LPOP', key)
      if not record then break end
      local f = fields(record, true)
      unlock(f[5])
      call('RPUSH', list_key(queue, step), f[7])
      count('w', queue, -1)
      limited, left = limited + 1, left - 1
    end
    rest = rest + call('EXISTS', key)
  end
  if rest == 0 then call('ZREM', K .. 'lanes:' .. queue, lane) end
end

local members = left > 0 and call('ZREVRANGE', K .. 'suspects:' .. queue, 0, left - 1) or {}
for _, member in ipairs(members) do
  local f = fields(string.sub(member, string.find(member, '\n', 1, true) + 1), true)
  call('ZREM', K .. 'suspects:' .. queue, member)
  unlock(f[5])
  call('RPUSH', list_key(queue, f[2]), f[7])
  count('w', queue, -1)
  suspects = suspects + 1
end
return { scheduled, limited, suspects }
