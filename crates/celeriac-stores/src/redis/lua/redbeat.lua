-- Entries that are shared with RedBeat (wire specification 8.8, redbeat/schedulers.py 2.4).
--   redbeat  see the prelude; prefix  what keys of entries begin with
--   op 'due':     low, until (seconds), from, count
--                                     returns {whether the lock is ours, the next score or '', how many keys, rows}
--   op 'read':    keys                returns rows
--   op 'keys':                        returns the keys of all entries
--   op 'save':    key, name, version ('' new), definition, meta, extras, state, score, static ('' no)
--                                     returns the version, or '' for a conflict
--   op 'remove':  key, name, version  returns 1 when it was there
--   op 'lock':    epoch, lease (milliseconds)    returns {token that has the lock, milliseconds left}
--   op 'unlock':  epoch ('' any)      returns 1 when it was ours
--   op 'look':                        returns {token or '', milliseconds left, how many entries}
-- A row is {key, version, definition, meta, extras, state, score, whether the state is that of the definition
-- and meta, whether its name is static, whether an entry of ours has its name, when the latest line was due or
-- ''}; {key} where there is no definition, {key, ''} where there is something else.
local LOCK, TOKEN, SCHEDULE, STATICS = a.redbeat[2], a.redbeat[3], a.redbeat[4], a.redbeat[5]

local function ours()
  local token = redbeat('GET', LOCK)
  return token and string.sub(token, 1, #TOKEN) == TOKEN
end

local function row(key)
  local one, other = redbeat_entry(key)
  if not one then return other and { key, '' } or { key } end
  local name = string.sub(key, #a.prefix + 1)
  local latest = call('ZREVRANGE', past_key(name), 0, 0, 'WITHSCORES')[2]
  return {
    key, one.version, one.definition, one.meta, one.extras, one.state,
    redbeat('ZSCORE', SCHEDULE, key) or '-1', one.known and 1 or 0, redbeat('SISMEMBER', STATICS, name),
    call('HEXISTS', K .. 'schedule:entries', name), latest or '',
  }
end

local function due()
  if not ours() then return { 0, '', 0, {} } end
  local keys = redbeat('ZRANGEBYSCORE', SCHEDULE, a.low, a['until'], 'LIMIT', a.from, a.count)
  local rows = {}
  for _, key in ipairs(keys) do
    local one = row(key)
    -- RedBeat forgets it too.
    if #one == 1 then redbeat('ZREM', SCHEDULE, key) else table.insert(rows, one) end
  end
  local later = redbeat('ZRANGEBYSCORE', SCHEDULE, '(' .. a['until'], '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  return { 1, later[2] or '', #keys, rows }
end

local function save()
  local old = redbeat_entry(a.key)
  local version
  if a.version == '' then
    if old or call('HEXISTS', K .. 'schedule:entries', a.name) == 1 then return '' end
    version = drawn_version(redis.sha1hex(a.definition .. '\n' .. a.meta .. '\n' .. text(now)))
  else
    if not old or old.version ~= a.version then return '' end
    version = text(a.version + 1)
  end
  put_redbeat_entry(a.key, a, version, a.score)
  if a.static ~= '' then redbeat('SADD', STATICS, a.name) end
  ring()
  return version
end

local function remove()
  local old, other = redbeat_entry(a.key)
  if not other and (not old or old.version ~= a.version) then return 0 end
  redbeat('ZREM', SCHEDULE, a.key)
  if old then redbeat('DEL', a.key) end
  redbeat('SREM', STATICS, a.name)
  ring()
  return 1
end

-- Only the beat that leads has it, while the keys are shared; one that led before has lost it with the lead.
local function take()
  if call('EXISTS', K .. 'schedule:redbeat') == 0 then return { '', 0 } end
  local lead = leader()
  local token = redbeat('GET', LOCK)
  if lead and lead[2] == a.epoch and (not token or ours()) then
    redbeat('SET', LOCK, TOKEN .. a.epoch, 'PX', a.lease)
  end
  return { redbeat('GET', LOCK) or '', redbeat('PTTL', LOCK) }
end

local function unlock()
  if not ours() then return 0 end
  if a.epoch ~= '' and redbeat('GET', LOCK) ~= TOKEN .. a.epoch then return 0 end
  return redbeat('DEL', LOCK)
end

if a.op == 'due' then
  return due()
elseif a.op == 'read' then
  local rows = {}
  for index, key in ipairs(a.keys) do rows[index] = row(key) end
  return rows
elseif a.op == 'keys' then
  return redbeat('ZRANGE', SCHEDULE, 0, -1)
elseif a.op == 'save' then
  return save()
elseif a.op == 'remove' then
  return remove()
elseif a.op == 'lock' then
  return take()
elseif a.op == 'unlock' then
  return unlock()
else
  return { redbeat('GET', LOCK) or '', redbeat('PTTL', LOCK), redbeat('ZCARD', SCHEDULE) }
end
