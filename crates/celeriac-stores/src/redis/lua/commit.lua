-- Writes units, each of them whole or not at all. A unit is a plan, a settlement, or both.
--   units      see below
--   dead_max, dead_bytes_max, dead_new, dead_bytes_new   the bounds, and what all units together add
--   depth      {queue, messages to add, most messages}: refused when one is over
--   chord_ttl  seconds; rdb  see the prelude
--   alone  whether messages wait for their time under our keys even while no node of ours lives; else
--          they go to the list at once, with their eta, for stock workers
-- A unit:
--   held   the key behind `celeriac:` of the hash that has to hold the row; row
--   fate   0 nothing is held; 1 gone; 2 back to its head; 3 back to its tail; 4 dead; 5 to its time;
--          6 into its lane, at the tail; 7 into its lane, though it is held; 8 dead, from among what is
--          lost, where `rec` is what stands there
--   rec    the new record, '' for the old one; due; dead {json, task id, bytes}
--   pub    {record, due (0 ready), head, unique or false, once: {key, task id, seconds} or nil}
--   fan    {channel, payload} of fanouts; with nobody there and nothing held, nothing is written
--   res    {key, json, ttl seconds (0 for ever), task id}
--   chords {key, size}
--   parts  {key, score, task id, json, body}
--   watch  {key, body} of chords that others count
--   claims {key of a chord, parts before this unit}: the plan for these is part of this unit
--   fire   nil, or {name, version ('' none), epoch ('' none), wake ('' never), state, due, fired, open, line,
--          redbeat {} or {key, meta, score} of an entry that is shared with it}:
--          the occurrence that the plan is for, texts all of them; nothing is held then
--   take    numbers of dead letters that go with it; all of them have to be there
--   forget  {result key, task id} whose failures and revocations are forgotten
--   history  {lines of an entry, lines trimmed at once, seconds, microseconds that a line is kept}
-- Returns for each unit: 0 fenced, 1 written, 2 nobody heard a fanout, {chord key ...} to be finished
-- first (nothing written), or {'', index of a message left out, holder, ...}; or an error for all of them.
-- For a fire also 3 the entry has another version, 4 there is a line for this time, 5 it has to come again,
-- because one before it is to be finished first.
for _, limit in ipairs(a.depth) do
  local queue, depth = limit[1], 0
  for _, step in ipairs({ '0', '3', '6', '9' }) do depth = depth + call('LLEN', list_key(queue, step)) end
  local own = call('HMGET', K .. 'count', 'l:' .. queue, 'd:' .. queue, 'w:' .. queue)
  for index = 1, 3 do depth = depth + tonumber(own[index] or '0') end
  if depth + limit[2] > limit[3] then
    return redis.error_reply('CELERIACFULL ' .. text(depth) .. ' ' .. queue)
  end
end
if a.dead_new > 0 then
  local letters = call('ZCARD', K .. 'dead:numbers')
  local bytes = tonumber(call('GET', K .. 'dead:bytes') or '0')
  if letters + a.dead_new > a.dead_max or bytes + a.dead_bytes_new > a.dead_bytes_max then
    return redis.error_reply('CELERIACDEADFULL ' .. text(letters) .. ' ' .. text(bytes))
  end
end

for _, number in ipairs(a.take) do
  if call('HEXISTS', K .. 'dead', number) == 0 then return redis.error_reply('CELERIACGONE ' .. number) end
end

-- The chords that a unit completes and for which it has no plan.
local function unfinished(unit)
  local more, open = {}, {}
  local function state(key)
    if not more[key] then
      local size = results('GET', key .. '.s')
      if size then size = tonumber(size) + tonumber(results('GET', key .. '.t') or '0') end
      more[key] = {
        done = results('EXISTS', key .. '.c') == 1, size = size,
        parts = results('ZCARD', key .. '.j'), new = 0, touched = false, seen = {},
      }
      table.insert(open, key)
    end
    return more[key]
  end
  for _, chord in ipairs(unit.chords) do
    local s = state(chord[1])
    s.size, s.touched = chord[2] + tonumber(results('GET', chord[1] .. '.t') or '0'), true
  end
  for _, part in ipairs(unit.parts) do
    local s = state(part[1])
    local member = part[3] .. ':' .. part[2]
    if not s.seen[member] and results('SISMEMBER', part[1] .. '.d', member) == 0 then
      s.seen[member], s.new, s.touched = true, s.new + 1, true
    end
  end
  local out = {}
  for _, key in ipairs(open) do
    local s = more[key]
    if s.touched and not s.done and s.size and s.parts + s.new > 0 and s.parts + s.new >= s.size then
      local claimed
      for _, claim in ipairs(unit.claims) do
        if claim[1] == key and claim[2] == s.parts then claimed = true end
      end
      if not claimed then table.insert(out, key) end
    end
  end
  return out
end

local function count_chords(unit)
  for _, chord in ipairs(unit.chords) do
    results('SET', chord[1] .. '.s', text(chord[2]), 'EX', a.chord_ttl)
  end
  for _, part in ipairs(unit.parts) do
    local key = part[1]
    if results('EXISTS', key .. '.c') == 0 and results('SADD', key .. '.d', part[3] .. ':' .. part[2]) == 1 then
      results('ZADD', key .. '.j', part[2], part[4])
      call('SET', K .. 'chord:' .. key, part[5], 'EX', a.chord_ttl)
      call('ZADD', K .. 'chords', now, key)
      for _, suffix in ipairs({ '.j', '.d', '.s', '.t' }) do results('EXPIRE', key .. suffix, a.chord_ttl) end
    end
  end
  for _, watch in ipairs(unit.watch) do
    local key = watch[1]
    if results('EXISTS', key .. '.c') == 0 and results('EXISTS', key .. '.j') == 1 then
      call('SET', K .. 'chord:' .. key, watch[2], 'EX', a.chord_ttl)
      call('ZADD', K .. 'chords', now, key)
    end
  end
  for _, claim in ipairs(unit.claims) do
    local key = claim[1]
    results('DEL', key .. '.j', key .. '.t', key .. '.s', key .. '.d')
    call('DEL', K .. 'chord:' .. key)
    call('ZREM', K .. 'chords', key)
    results('SET', key .. '.c', 'done', 'EX', 300)
  end
end

local listed = false
local function write(unit, answer)
  for index, one in ipairs(unit.pub) do
    local f = fields(one[1], true)
    local once = one[5]
    local sent = once and call('GET', K .. 'once:' .. once[1])
    local held, by = true, nil
    if one[4] and not sent then
      held, by = lock(one[4])
      f[5] = held and (one[4][1] .. ':' .. one[4][2] .. ':' .. one[4][3]) or ''
    end
    local left_out = sent or (not held and one[4][7] and by)
    if once and not left_out then call('SET', K .. 'once:' .. once[1], once[2], 'EX', once[3]) end
    if left_out then
      if not answer[1] then answer[1] = '' end
      table.insert(answer, index - 1)
      table.insert(answer, left_out)
    elseif one[2] > 0 and (a.alone or call('ZCARD', K .. 'nodes') > 0) then
      schedule(f, one[2])
    else
      place(f, one[3])
    end
  end
  for _, result in ipairs(unit.res) do
    local stored = results('GET', result[1])
    if not stored or not is_ready(stored) then
      if result[3] > 0 then
        results('SET', result[1], result[2], 'EX', result[3])
      else
        results('SET', result[1], result[2])
      end
      call('PUBLISH', result[1], result[2])
      call('LPUSH', K .. 'recent', result[4])
      listed = true
    end
  end
  count_chords(unit)
end


-- Whether a fire may be written: nil, or what to answer instead. An entry whose time was fired already
-- goes on all the same.
local lead, waits, noted = nil, false, 0
local function advance(fire)
  local e = fire.entry
  if e and fire.redbeat[1] then
    e.meta, e.state = fire.redbeat[2], fire.state
    put_redbeat_entry(fire.redbeat[1], e, text(e.version + 1), fire.redbeat[3])
  elseif e then
    put_entry(fire.name, text(e.version + 1), fire.wake, e.entry, fire.state)
  end
end
local function judge(fire)
  if fire.epoch ~= '' then
    if lead == nil then lead = leader() or false end
    if not lead or lead[2] ~= fire.epoch then return 0 end
  end
  if waits then return 5 end
  if fire.version ~= '' then
    if fire.redbeat[1] then
      -- Without its lock a stock RedBeat may fire the same.
      if redbeat('GET', a.redbeat[2]) ~= a.redbeat[3] .. fire.epoch then return 3 end
      fire.entry = redbeat_entry(fire.redbeat[1])
    else
      fire.entry = entry_of(fire.name)
    end
    if not fire.entry or fire.entry.version ~= fire.version then return 3 end
  end
  if line_of(fire.name, fire.due) then
    advance(fire)
    return 4
  end
end

-- Writes the line of a fire, and removes the oldest ones of an entry that has too many.
local function note(fire)
  local key, open = past_key(fire.name), K .. 'schedule:open'
  call('ZADD', key, fire.due, fire.due .. '\n0\n' .. fire.line)
  if fire.open then
    call('ZADD', open, fire.fired, fire.due .. '\n' .. fire.name)
    call('EXPIRE', open, a.history[3])
  end
  local over = call('ZCARD', key) - a.history[1]
  if over > 0 then
    for _, old in ipairs(call('ZRANGE', key, 0, math.min(over, a.history[2]) - 1)) do
      call('ZREM', key, old)
      call('ZREM', open, string.match(old, '^[^\n]*') .. '\n' .. fire.name)
    end
  end
  call('EXPIRE', key, a.history[3])
  noted = noted + 1
end

for _, number in ipairs(a.take) do exhume(number) end
for _, one in ipairs(a.forget) do
  local stored = results('GET', one[1])
  if stored and not string.find(stored, '^{"status": "SUCCESS"') then results('DEL', one[1]) end
  unrevoke(one[2])
end

local answers = {}
local index = 1
while index <= #a.units do
  -- The rows of one node are looked up together.
  local last, key = index, a.units[index].held
  if key ~= '' then
    while last < #a.units and a.units[last + 1].held == key and last - index < 500 do last = last + 1 end
  end
  local records, rows = {}, {}
  if key ~= '' then
    for at = index, last do table.insert(rows, a.units[at].row) end
    records = call('HMGET', K .. key, unpack(rows))
  end
  local gone = {}
  for at = index, last do
    local unit, record = a.units[at], records[at - index + 1]
    if gone[unit.row] then record = false end
    local lost = unit.fate == 8 and (K .. 'lost:' .. fields(unit.rec)[1])
    if lost then record = call('LPOS', lost, unit.rec) and unit.rec end
    local fire = unit.fire
    local verdict = fire and judge(fire)
    if verdict then
      answers[at] = verdict
    elseif unit.fate ~= 0 and not record then
      answers[at] = 0
    else
      local chords = unfinished(unit)
      local heard = true
      if #chords == 0 then
        for _, one in ipairs(unit.fan) do
          -- A user who may not publish there must not break off what other units have written.
          local said = redis.pcall('PUBLISH', one[1], one[2])
          heard = type(said) == 'number' and said > 0 and heard
        end
      end
      if #chords > 0 then
        answers[at] = chords
        waits = waits or fire ~= nil
      elseif not heard and unit.fate == 0 and not fire then
        answers[at] = 2
      else
        local answer = {}
        if unit.fate == 7 then
          local f, old = fields(unit.rec, true), fields(record)
          if old[4] ~= f[4] then
            call('HSET', K .. key, unit.row, unit.rec)
            call('HINCRBY', K .. 'running', f[1] .. SEP .. f[4], 1)
          end
        elseif lost then
          local f = fields(record)
          call('LREM', lost, 1, record)
          count('w', f[1], -1)
          unlock(f[5])
          bury(unit.dead)
        elseif unit.fate > 0 then
          gone[unit.row] = true
          local f = fields(record, unit.rec == '')
          let_go(f)
          if unit.fate == 1 or unit.fate == 4 then unlock(f[5]) end
          if unit.fate == 4 then bury(unit.dead) end
          if unit.fate ~= 1 and unit.fate ~= 4 then
            local locked = f[5]
            if unit.rec ~= '' then
              f = fields(unit.rec, true)
              f[5] = locked
            end
            if unit.fate == 5 then schedule(f, unit.due) else place(f, unit.fate == 2) end
            if unit.fate == 2 then ring() end
          end
        end
        write(unit, answer)
        if fire then
          advance(fire)
          note(fire)
        end
        answers[at] = answer[1] and answer or (heard and 1 or 2)
      end
    end
  end
  local done = {}
  for row, _ in pairs(gone) do table.insert(done, row) end
  if #done > 0 then
    call('HDEL', K .. key, unpack(done))
    call('HDEL', K .. (string.gsub(key, '^%a+', 'started')), unpack(done))
  end
  index = last + 1
end
if noted > 0 then
  -- As much goes as comes, so that what is too old never piles up.
  local old = call('ZRANGEBYSCORE', K .. 'schedule:open', '-inf', text(now - a.history[4]), 'LIMIT', 0, 2 * noted)
  for _, member in ipairs(old) do call('ZREM', K .. 'schedule:open', member) end
  ring()
end
if listed then call('LTRIM', K .. 'recent', 0, 9999) end
return answers
