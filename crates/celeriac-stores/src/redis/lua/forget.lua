-- Forgets keys of unique tasks that nobody holds and whose window is over.
--   cursor  where to go on
-- Returns the next cursor.
local page = call('HSCAN', K .. 'unique', a.cursor, 'COUNT', 100)
for index = 1, #page[2], 2 do
  local h = cmsgpack.unpack(page[2][index + 1])
  if h[1] == '' and h[2] <= now then call('HDEL', K .. 'unique', page[2][index]) end
end
return page[1]
