-- Removes waiting messages.
--   rows  {kind, key, member}: 'stock' a payload in a stock list, 'lane' a record in a lane's list,
--         'suspect' a member of a queue's suspects, 'due' a row that waits for its time
-- Returns 1 or 0 for each.
local out = {}
for index, one in ipairs(a.rows) do
  local kind, key, member = one[1], one[2], one[3]
  local record
  out[index] = 0
  if kind == 'stock' then
    out[index] = call('LREM', key, -1, member)
  elseif kind == 'lane' then
    out[index] = call('LREM', key, -1, member)
    record = member
  elseif kind == 'suspect' then
    out[index] = call('ZREM', key, member)
    record = string.sub(member, string.find(member, '\n', 1, true) + 1)
  else
    record = call('HGET', K .. 'waiting', member)
    if record then
      out[index] = 1
      call('HDEL', K .. 'waiting', member)
    end
  end
  if out[index] == 1 and record then
    local f = fields(record)
    unlock(f[5])
    if kind == 'due' then
      call('ZREM', K .. 'due:' .. f[1], member)
      if f[6] ~= '' and call('HGET', K .. 'ids', f[6]) == f[1] .. '\n' .. member then
        call('HDEL', K .. 'ids', f[6])
      end
      note_due(f[1])
      count('d', f[1], -1)
    else
      count('w', f[1], -1)
    end
  end
end
return out
