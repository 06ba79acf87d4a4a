-- Removes waiting messages.
--   rows  {kind, key, member}, see `withdraw`
-- Returns 1 or 0 for each.
local out = {}
for index, one in ipairs(a.rows) do
  local f = withdraw(one[1], one[2], one[3])
  out[index] = f and 1 or 0
  if f and f ~= true then unlock(f[5]) end
end
return out
