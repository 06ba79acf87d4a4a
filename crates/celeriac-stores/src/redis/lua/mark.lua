-- Notes when held messages began to run, and which of them are acknowledged: an 'a' behind the time,
-- which stays.
--   rows  {node, row, microseconds, whether it is acknowledged}
for _, row in ipairs(a.rows) do
  if call('HEXISTS', K .. 'held:' .. row[1], row[2]) == 1 then
    local key = K .. 'started:' .. row[1]
    if row[4] then
      call('HSET', key, row[2], text(row[3]) .. 'a')
    else
      call('HSETNX', key, row[2], text(row[3]))
    end
  end
end
return 0
