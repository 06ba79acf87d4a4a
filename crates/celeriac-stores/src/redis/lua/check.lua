-- Compares what is counted with what is there.
--   mend  whether wrong counters are set right, and times without a message forgotten
-- Returns {place, what, place, what ...}.
local found = {}
local function say(place, what)
  table.insert(found, place)
  table.insert(found, what)
end

local counts = {}
local function add(kind, queue, by)
  local field = kind .. ':' .. queue
  counts[field] = (counts[field] or 0) + by
end
for _, set in ipairs({ 'nodes', 'gone' }) do
  for _, node in ipairs(call('ZRANGE', K .. set, 0, -1)) do
    for _, hash in ipairs({ 'held:', 'orphans:' }) do
      for _, record in ipairs(call('HVALS', K .. hash .. node)) do add('l', fields(record)[1], 1) end
    end
  end
end
for _, queue in ipairs(call('SMEMBERS', K .. 'queues')) do
  for _, lane in ipairs(call('ZRANGE', K .. 'lanes:' .. queue, 0, -1)) do
    for _, step in ipairs({ '0', '3', '6', '9' }) do
      add('w', queue, call('LLEN', lane_key(queue, lane, step)))
    end
  end
  add('w', queue, call('ZCARD', K .. 'suspects:' .. queue))
  add('w', queue, call('LLEN', K .. 'lost:' .. queue))
  local lost = 0
  for _, row in ipairs(call('ZRANGE', K .. 'due:' .. queue, 0, -1)) do
    if call('HEXISTS', K .. 'waiting', row) == 0 then
      lost = lost + 1
      if a.mend then call('ZREM', K .. 'due:' .. queue, row) end
    end
  end
  if lost > 0 then say('due:' .. queue, text(lost) .. ' times without a message') end
  add('d', queue, call('ZCARD', K .. 'due:' .. queue))
end
local letters = 0
for _, letter in ipairs(call('HVALS', K .. 'dead')) do
  add('x', string.match(letter, '^[^\n]*'), 1)
  letters = letters + #letter
end

local stored = {}
local pairs_of = call('HGETALL', K .. 'count')
for index = 1, #pairs_of, 2 do stored[pairs_of[index]] = tonumber(pairs_of[index + 1]) end
local function compare(field, is, should)
  if is == should then return end
  say('count', field .. ' says ' .. text(is) .. ', ' .. text(should) .. ' are there')
  if a.mend then
    if should == 0 then call('HDEL', K .. 'count', field) else call('HSET', K .. 'count', field, text(should)) end
  end
end
for field, should in pairs(counts) do compare(field, stored[field] or 0, should) end
for field, is in pairs(stored) do
  if not counts[field] then compare(field, is, 0) end
end
local bytes = tonumber(call('GET', K .. 'dead:bytes') or '0')
if bytes ~= letters then
  say('dead:bytes', 'says ' .. text(bytes) .. ', ' .. text(letters) .. ' are there')
  if a.mend then call('SET', K .. 'dead:bytes', text(letters)) end
end
return found
