-- Takes back messages that stock workers left unacknowledged.
--   tags  {delivery tag, what `unacked` holds, list, envelope, list, envelope ...}
-- One that was acknowledged or restored meanwhile is left alone. Returns how many went back.
local restored = 0
for _, one in ipairs(a.tags) do
  if call('HGET', P .. 'unacked', one[1]) == one[2] then
    call('ZREM', P .. 'unacked_index', one[1])
    call('HDEL', P .. 'unacked', one[1])
    for index = 3, #one, 2 do call('RPUSH', one[index], one[index + 1]) end
    restored = restored + 1
  end
end
return restored
