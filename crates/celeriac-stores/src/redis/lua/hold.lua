-- Leases waiting messages for a node that moves them.
--   node
--   rows  {kind, key, member, queue, step}, see `withdraw`; queue and step of a stock list
-- Returns -1 for a node that is not alive, or for each its number among what the node holds; 0 for one
-- that is gone.
if not call('ZSCORE', K .. 'nodes', a.node) then return -1 end
local out = {}
for index, one in ipairs(a.rows) do
  local f = withdraw(one[1], one[2], one[3])
  if f == true then f = { one[4], one[5], 'r', '', '', '', one[3] } end
  out[index] = 0
  if f then
    -- It does not run, so no lane counts it; it is sorted anew when it comes back.
    f[4] = ''
    out[index] = call('INCR', K .. 'seq')
    call('HSET', K .. 'held:' .. a.node, text(out[index]), record_of(f))
    count('l', f[1], 1)
  end
end
return out
