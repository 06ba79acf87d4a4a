-- What every script shares. ARGV[1] is a MessagePack map with at least
--   p    the prefix of all keys
--   now  microseconds since 1970, 0 for this server's clock
-- A record is how a message is kept under our keys: six fields and the payload, each but the last ended
-- by a line feed: queue, step, kind ('r' ready, 's' suspect, 'l' lost), lane, lock, task id, payload.
-- What is lost must not run again: whoever fetches it sets it aside.
local call = redis.call
local a = cmsgpack.unpack(ARGV[1])
local P = a.p
local K = P .. 'celeriac:'
local SEP = '\6\22'
local STEP = 281474976710656 -- 2^48: suspects are ranked by step, then by number

local now = a.now
if now == 0 then
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
end

-- A call (`redis.call` or `redis.pcall`) in another database: {that, the one of everything else}, or empty
-- where it is one.
local function elsewhere(databases, run, ...)
  if #databases == 0 then return run(...) end
  call('SELECT', databases[1])
  local answer = run(...)
  call('SELECT', databases[2])
  return answer
end

-- A call on keys of results and chords; only scripts that touch them are told of `rdb`.
local function results(...) return elsewhere(a.rdb, call, ...) end

-- A whole number as text, without an exponent.
local function text(number) return string.format('%.0f', number) end
-- The same with leading zeros, so that texts sort like numbers.
local function padded(number) return string.format('%016.0f', number) end

local function list_key(queue, step)
  if step == '0' then return P .. queue end
  return P .. queue .. SEP .. step
end
local function lane_key(queue, lane, step)
  return K .. 'lane:' .. queue .. SEP .. lane .. SEP .. step
end

-- The fields of a record; the payload only where it is asked for.
local function fields(record, with_payload)
  local out, from = {}, 1
  for field = 1, 6 do
    local at = string.find(record, '\n', from, true)
    out[field] = string.sub(record, from, at - 1)
    from = at + 1
  end
  if with_payload then out[7] = string.sub(record, from) end
  return out
end
local function record_of(f)
  return table.concat(f, '\n')
end

-- Counters of what is under our keys, by queue: l leased, d scheduled, w waiting.
local function count(kind, queue, by)
  if call('HINCRBY', K .. 'count', kind .. ':' .. queue, by) == 0 then
    call('HDEL', K .. 'count', kind .. ':' .. queue)
  end
end

local rung = false
local function ring()
  if not rung then
    rung = true
    call('PUBLISH', K .. 'bell', '')
  end
end

-- Lets the queue's earliest due time be found.
local function note_due(queue)
  local first = call('ZRANGE', K .. 'due:' .. queue, 0, 0, 'WITHSCORES')
  if first[1] then
    call('ZADD', K .. 'due', first[2], queue)
  else
    call('ZREM', K .. 'due', queue)
  end
end

-- The place that a message had before it was taken first; it is written in the notes of one that went
-- back.
local function rank_of(payload)
  return tonumber(string.match(payload, '"celeriac": {"rank": (%d+)'))
end

-- Puts a message that goes back at the head of a list, behind those that stood before it.
local function push_head(key, member)
  local rank, aside = rank_of(member), {}
  if rank then
    while #aside < 256 do
      local top = call('LINDEX', key, -1)
      local other = top and rank_of(top)
      if not other or other >= rank then break end
      call('RPOP', key)
      table.insert(aside, top)
    end
  end
  call('RPUSH', key, member)
  for index = #aside, 1, -1 do call('RPUSH', key, aside[index]) end
end

local function push(key, member, head)
  if head then push_head(key, member) else call('LPUSH', key, member) end
end

-- Takes a waiting message out of its place: {kind, key, member} with 'stock' a payload in a stock list,
-- 'lane' a record in a lane's list, 'suspect' a member of a queue's suspects, 'due' a row that waits for its
-- time. Returns nil when it is gone, its fields, or true for a payload of a stock list.
local function withdraw(kind, key, member)
  if kind == 'stock' then return call('LREM', key, -1, member) > 0 or nil end
  local record = member
  if kind == 'lane' then
    if call('LREM', key, -1, member) == 0 then return nil end
  elseif kind == 'suspect' then
    if call('ZREM', key, member) == 0 then return nil end
    record = string.sub(member, string.find(member, '\n', 1, true) + 1)
  else
    record = call('HGET', K .. 'waiting', member)
    if not record then return nil end
    call('HDEL', K .. 'waiting', member)
  end
  local f = fields(record, true)
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
  return f
end

-- Puts a record where a ready message waits. `head`: before everything else.
local function place(f, head)
  local queue, step, lane = f[1], f[2], f[4]
  if f[3] == 'l' then
    -- It does not run, so no lane holds it.
    f[4] = ''
    call('LPUSH', K .. 'lost:' .. queue, record_of(f))
    count('w', queue, 1)
    ring()
  elseif f[3] == 's' then
    local number = call('INCR', K .. 'seq')
    if head then number = rank_of(f[7]) or STEP / 2 - number else number = STEP / 2 + number end
    call('ZADD', K .. 'suspects:' .. queue, step * STEP + number, text(number) .. '\n' .. record_of(f))
    count('w', queue, 1)
    ring()
  elseif lane ~= '' or f[5] ~= '' then
    if lane == '' then lane = '.'; f[4] = '.' end
    push(lane_key(queue, lane, step), record_of(f), head)
    call('ZADD', K .. 'lanes:' .. queue, 'NX', 0, lane)
    count('w', queue, 1)
    ring()
  else
    push(list_key(queue, step), f[7], head)
  end
  call('SADD', K .. 'queues', queue)
end

-- Puts a record among those that wait for their time.
local function schedule(f, due)
  local queue = f[1]
  -- Revoked between its fetch and now: its end shall be told at once.
  if f[6] ~= '' and call('HEXISTS', K .. 'revoked', f[6]) == 1 then due = 0 end
  local row = padded(call('INCR', K .. 'seq'))
  call('HSET', K .. 'waiting', row, record_of(f))
  call('ZADD', K .. 'due:' .. queue, due, row)
  if f[6] ~= '' then call('HSET', K .. 'ids', f[6], queue .. '\n' .. row) end
  note_due(queue)
  count('d', queue, 1)
  call('SADD', K .. 'queues', queue)
  ring()
end

-- Makes due messages ready, at most `left` of them, in the order of their times.
local function promote(left)
  local queues = call('ZRANGEBYSCORE', K .. 'due', '-inf', text(now), 'LIMIT', 0, 64)
  for _, queue in ipairs(queues) do
    local rows = call('ZRANGEBYSCORE', K .. 'due:' .. queue, '-inf', text(now), 'LIMIT', 0, left)
    for _, row in ipairs(rows) do
      local record = call('HGET', K .. 'waiting', row)
      call('HDEL', K .. 'waiting', row)
      call('ZREM', K .. 'due:' .. queue, row)
      if record then
        local f = fields(record, true)
        if f[6] ~= '' and call('HGET', K .. 'ids', f[6]) == queue .. '\n' .. row then
          call('HDEL', K .. 'ids', f[6])
        end
        place(f, false)
        count('d', queue, -1)
      end
    end
    left = left - #rows
    note_due(queue)
    if left <= 0 then break end
  end
end

-- Gives the key of a unique message back; only its window may keep it taken. `lock` is
-- <key>:<who>:<until>.
local function unlock(lock)
  if lock == '' then return end
  local key, who = string.match(lock, '^([^:]*):([^:]*):')
  local held = call('HGET', K .. 'unique', key)
  if not held then return end
  local h = cmsgpack.unpack(held)
  if h[1] ~= who then return end
  if h[2] == 0 then
    call('HDEL', K .. 'unique', key)
  else
    call('HSET', K .. 'unique', key, cmsgpack.pack({ '', h[2], h[3] }))
  end
end

-- Takes the key for a message, unless another task has it. Returns whether it is held, and by whom
-- not. `u` is {key, who, until, window, task id, new}.
local function lock(u)
  local held = call('HGET', K .. 'unique', u[1])
  local expires = 0
  if u[4] > 0 then expires = now + u[4] end
  if held then
    local h = cmsgpack.unpack(held)
    if h[3] == u[5] and (h[1] == '' or not u[6]) then
      if h[2] ~= 0 then expires = h[2] end
    elseif h[1] ~= '' or h[2] > now then
      return false, h[3]
    end
  end
  call('HSET', K .. 'unique', u[1], cmsgpack.pack({ u[2], expires, u[5] }))
  return true
end

-- What ends when a message is no longer held.
local function let_go(f)
  count('l', f[1], -1)
  if f[4] ~= '' then
    local field = f[1] .. SEP .. f[4]
    if call('HINCRBY', K .. 'running', field, -1) <= 0 then call('HDEL', K .. 'running', field) end
    ring()
  end
end

local READY = { SUCCESS = true, FAILURE = true, REVOKED = true }
local function is_ready(stored)
  local state = string.match(stored, '^{"status": "(%u+)"')
  if not state then
    local ok, meta = pcall(cjson.decode, stored)
    state = ok and type(meta) == 'table' and meta.status or nil
  end
  return READY[state] or false
end

-- Dead letters are kept as <queue>, <task id> and a document, each of the first two ended by a line feed.
-- `letter` is {that, task id, bytes}.
local function bury(letter)
  local number = text(call('INCR', K .. 'dead:last'))
  call('HSET', K .. 'dead', number, letter[1])
  call('ZADD', K .. 'dead:numbers', number, number)
  if letter[2] ~= '' then call('HSET', K .. 'dead:ids', letter[2], number) end
  call('INCRBY', K .. 'dead:bytes', letter[3])
  count('x', string.match(letter[1], '^[^\n]*'), 1)
end
local function exhume(number)
  local letter = call('HGET', K .. 'dead', number)
  if not letter then return false end
  local queue, id = string.match(letter, '^([^\n]*)\n([^\n]*)\n')
  call('HDEL', K .. 'dead', number)
  call('ZREM', K .. 'dead:numbers', number)
  if id ~= '' and call('HGET', K .. 'dead:ids', id) == number then call('HDEL', K .. 'dead:ids', id) end
  call('DECRBY', K .. 'dead:bytes', #letter)
  count('x', queue, -1)
  return true
end

-- Withdraws a revocation; a scheduled message waits for its own time again.
local function unrevoke(id)
  local number = call('HGET', K .. 'revoked', id)
  if not number then return 0 end
  call('HDEL', K .. 'revoked', id)
  call('ZREM', K .. 'revokes', id)
  return 1
end

-- An entry of a schedule is kept as its version, when it wakes and how long its document is, each ended by a
-- line feed, then that document and its state.
local function entry_of(name)
  local record = call('HGET', K .. 'schedule:entries', name)
  if not record then return nil end
  local version, wake, bytes, from = string.match(record, '^(%d+)\n([^\n]*)\n(%d+)\n()')
  return { version = version, wake = wake, entry = string.sub(record, from, from + bytes - 1) }
end
local function put_entry(name, version, wake, entry, state)
  local record = version .. '\n' .. wake .. '\n' .. text(#entry) .. '\n' .. entry .. state
  call('HSET', K .. 'schedule:entries', name, record)
  if wake == '' then
    call('ZREM', K .. 'schedule:due', name)
  else
    call('ZADD', K .. 'schedule:due', wake, name)
  end
end

-- What was fired of an entry is kept as lines: when it was due and how long its outcome is, each ended by a
-- line feed, then that outcome and its document.
local function past_key(name) return K .. 'schedule:past:' .. name end
local function line_of(name, due)
  for _, line in ipairs(call('ZRANGEBYSCORE', past_key(name), due, due)) do
    if string.sub(line, 1, #due + 1) == due .. '\n' then return line end
  end
end

-- The beat that leads: {holder, epoch, until}, or nil.
local function leader()
  local lead = call('HMGET', K .. 'schedule:leader', 'holder', 'epoch', 'until')
  if lead[3] and tonumber(lead[3]) > now then return lead end
end

-- Entries that are shared with RedBeat, in its keys (wire specification 8.8). `a.redbeat` is {databases,
-- lock, token without its epoch, sorted set, static names}. Beside `definition` and `meta` a hash has our
-- `celeriac`: version, digest of the two others, how long the extras are, each ended by a line feed,
-- the extras and the state. Where the digest is not theirs, somebody else has written them: the entry has
-- a version that no other one has.
local function redbeat(...) return elsewhere(a.redbeat[1], call, ...) end
local function drawn_version(digest) -- 2^52 and more; versions of other entries are less
  return text(4503599627370496 + tonumber(string.sub(digest, 1, 13), 16) % 2251799813685248)
end
-- The entry; nil where there is none, and whether there is something else.
local function redbeat_entry(key)
  -- A key of another kind must not break off what else is done.
  local found = elsewhere(a.redbeat[1], redis.pcall, 'HMGET', key, 'definition', 'meta', 'celeriac')
  if found.err then return nil, true end
  local one = { definition = found[1], meta = found[2] or '', extras = '', state = '' }
  if not one.definition then return nil, false end
  local digest = redis.sha1hex(one.definition .. '\n' .. one.meta)
  local version, seen, bytes, from = string.match(found[3] or '', '^(%d+)\n(%x*)\n(%d+)\n()')
  if from then
    one.extras = string.sub(found[3], from, from + bytes - 1)
    one.state = string.sub(found[3], from + bytes)
    if seen == digest then one.version, one.known = version, true end
  end
  one.version = one.version or drawn_version(redis.sha1hex(digest .. (found[3] or '')))
  return one
end
local function put_redbeat_entry(key, one, version, score)
  local digest = redis.sha1hex(one.definition .. '\n' .. one.meta)
  local kept = version .. '\n' .. digest .. '\n' .. text(#one.extras) .. '\n' .. one.extras .. one.state
  redbeat('HSET', key, 'definition', one.definition, 'meta', one.meta, 'celeriac', kept)
  redbeat('ZADD', a.redbeat[4], score, key)
end
