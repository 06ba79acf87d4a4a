-- Notes when held messages began to run.
--   rows  {node, row, microseconds}
for _, row in ipairs(a.rows) do
  if call('HEXISTS', K .. 'held:' .. row[1], row[2]) == 1 then
    call('HSET', K .. 'started:' .. row[1], row[2], text(row[3]))
  end
end
return 0
