-- Entries of schedules; times are texts of microseconds.
--   op 'save':    records {name, version ('' new), wake ('' never), entry, state}   returns versions, '' a conflict
--   op 'remove':  name, version                   returns 1 when it was there
--   op 'lead':    holder, lease                   returns {holder, epoch, until} of who leads now
--   op 'resign':  holder, epoch
--   op 'leader':                                  returns {holder, epoch, until}, or nothing
--   op 'end':     ended {name, due, outcome}
local VERSION = K .. 'schedule:version' -- no version of a removed entry is above it

local function save(name, version, wake, entry, state)
  local old = call('HGET', K .. 'schedule:entries', name)
  if version == '' then
    if old then return '' end
    version = text(call('INCR', VERSION))
    call('ZADD', K .. 'schedule:names', 0, name)
  else
    if not old or string.match(old, '^%d+') ~= version then return '' end
    version = text(version + 1)
  end
  put_entry(name, version, wake, entry, state)
  ring()
  return version
end

local function remove(name, version)
  local old = call('HGET', K .. 'schedule:entries', name)
  if not old or string.match(old, '^%d+') ~= version then return 0 end
  call('HDEL', K .. 'schedule:entries', name)
  call('ZREM', K .. 'schedule:names', name)
  call('ZREM', K .. 'schedule:due', name)
  if tonumber(call('GET', VERSION) or '0') < tonumber(version) then call('SET', VERSION, version) end
  ring()
  return 1
end

local function finish(name, due, outcome)
  call('ZREM', K .. 'schedule:open', due .. '\n' .. name)
  local line = line_of(name, due)
  if not line then return end
  local bytes, from = string.match(line, '^[^\n]*\n(%d+)\n()')
  call('ZREM', past_key(name), line)
  local document = string.sub(line, from + bytes)
  call('ZADD', past_key(name), due, due .. '\n' .. text(#outcome) .. '\n' .. outcome .. document)
end

if a.op == 'save' then
  local versions = {}
  for index, one in ipairs(a.records) do
    versions[index] = save(one[1], one[2], one[3], one[4], one[5])
  end
  return versions
elseif a.op == 'remove' then
  return remove(a.name, a.version)
elseif a.op == 'lead' then
  local lead = leader()
  if lead and lead[1] ~= a.holder then return lead end
  local key, ends = K .. 'schedule:leader', text(now + a.lease)
  local epoch = lead and lead[2] or text(call('HINCRBY', key, 'epoch', 1))
  call('HSET', key, 'holder', a.holder, 'until', ends)
  return { a.holder, epoch, ends }
elseif a.op == 'resign' then
  local lead = leader()
  if lead and lead[1] == a.holder and lead[2] == a.epoch then
    call('HSET', K .. 'schedule:leader', 'holder', '', 'until', '0')
    ring()
  end
  return 1
elseif a.op == 'leader' then
  return leader() or {}
else
  for _, one in ipairs(a.ended) do finish(one[1], one[2], one[3]) end
  return 1
end
