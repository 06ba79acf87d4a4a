-- Takes ready messages and leases them.
--   node   who takes them
--   n      the most messages
--   qs     the queues, in the order of this turn
--   lq     the queues whose lost messages are taken: these and those that are paused
--   sus    whether a suspect may be among them
--   gate   the version of the limits' state on which the decisions below rest; -1: none were made
--   lanes  {queue index, lane, indices of its allowances}
--   allow  how many may go under each limit
--   grants {allowance index, key, kind, ...} what to write for those that went
-- Returns -1 for a node that is not alive, -2 when the limits' state has changed, or
-- {version of the rules, whether lanes exist, first row, whether anything is revoked, the time,
-- record ...}.
if not call('ZSCORE', K .. 'nodes', a.node) then return -1 end
if a.gate >= 0 and tonumber(call('GET', K .. 'gate') or '0') ~= a.gate then return -2 end
promote(1000)

local out = { call('GET', K .. 'rules') or '0', 0, 0, call('EXISTS', K .. 'revoked'), text(now) }
local left, suspected, went = a.n, not a.sus, {}
local lanes_of = {}
for index = 1, #a.qs do lanes_of[index] = {} end
local allowances = {}
for _, lane in ipairs(a.lanes) do
  table.insert(lanes_of[lane[1]], lane)
  allowances[a.qs[lane[1]] .. SEP .. lane[2]] = lane[3]
end
local function may_go(indices)
  for _, index in ipairs(indices) do
    if a.allow[index] <= 0 then return false end
  end
  return true
end
local function goes(indices)
  for _, index in ipairs(indices) do
    a.allow[index] = a.allow[index] - 1
    went[index] = (went[index] or 0) + 1
  end
end
local function take(f)
  if f[5] ~= '' and string.sub(f[5], -1) == 's' then
    unlock(f[5])
    f[5] = ''
  end
  if f[4] ~= '' then call('HINCRBY', K .. 'running', f[1] .. SEP .. f[4], 1) end
  table.insert(out, record_of(f))
  left = left - 1
end

-- What is lost is only set aside: neither limits nor pauses hold it.
local lost = {}
for index, queue in ipairs(a.lq) do lost[index] = K .. 'lost:' .. queue end
if #lost > 0 and call('EXISTS', unpack(lost)) > 0 then
  for index, queue in ipairs(a.lq) do
    local records = left > 0 and call('RPOP', lost[index], left) or {}
    for _, record in ipairs(records) do take(fields(record, true)) end
    if #records > 0 then count('w', queue, -#records) end
  end
end

for _, step in ipairs({ '0', '3', '6', '9' }) do
  for index, queue in ipairs(a.qs) do
    if left > 0 and not suspected then
      local from, to = text(step * STEP), '(' .. text((step + 1) * STEP)
      local members = call('ZRANGEBYSCORE', K .. 'suspects:' .. queue, from, to, 'LIMIT', 0, 16)
      for _, member in ipairs(members) do
        local f = fields(string.sub(member, string.find(member, '\n', 1, true) + 1), true)
        local indices = allowances[queue .. SEP .. f[4]]
        if not suspected and (f[4] == '' or (indices and may_go(indices))) then
          call('ZREM', K .. 'suspects:' .. queue, member)
          if indices then goes(indices) end
          count('w', queue, -1)
          take(f)
          suspected = true
        end
      end
    end
    if left > 0 then
      local payloads = call('RPOP', list_key(queue, step), left)
      for _, payload in ipairs(payloads or {}) do
        take({ queue, step, 'r', '', '', '', payload })
      end
    end
    for _, lane in ipairs(lanes_of[index]) do
      local taken = 0
      while left > 0 and may_go(lane[3]) do
        local record = call('RPOP', lane_key(queue, lane[2], step))
        if not record then break end
        goes(lane[3])
        take(fields(record, true))
        taken = taken + 1
      end
      if taken > 0 then count('w', queue, -taken) end
    end
  end
end

for index, queue in ipairs(a.qs) do
  for _, lane in ipairs(lanes_of[index]) do
    local waits = 0
    for _, step in ipairs({ '0', '3', '6', '9' }) do
      waits = waits + call('EXISTS', lane_key(queue, lane[2], step))
    end
    if waits == 0 then call('ZREM', K .. 'lanes:' .. queue, lane[2]) end
  end
  if out[2] == 0 then out[2] = call('EXISTS', K .. 'lanes:' .. queue) end
end

local taken = #out - 5
if taken > 0 then
  local last = call('INCRBY', K .. 'seq', taken)
  out[3] = last - taken + 1
  local arguments, per_queue = {}, {}
  for index = 1, taken do
    local record = out[index + 5]
    local queue = string.sub(record, 1, string.find(record, '\n', 1, true) - 1)
    per_queue[queue] = (per_queue[queue] or 0) + 1
    table.insert(arguments, text(out[3] + index - 1))
    table.insert(arguments, record)
    if #arguments >= 1000 or index == taken then
      call('HSET', K .. 'held:' .. a.node, unpack(arguments))
      arguments = {}
    end
  end
  for _, queue in ipairs(a.lq) do
    if per_queue[queue] then count('l', queue, per_queue[queue]) end
  end
end

if next(went) then
  call('INCR', K .. 'gate')
  for _, grant in ipairs(a.grants) do
    local k = went[grant[1]]
    if k and grant[3] == 'spread' then
      -- grant[4] is how long it is of use, then follow the states after one, two, three ... more.
      call('SET', grant[2], text(grant[4 + k]), 'PX', text(grant[4]))
    elseif k then
      call('ZREMRANGEBYSCORE', grant[2], '-inf', text(now - grant[4]))
      for number = 1, k do
        call('ZADD', grant[2], text(now), padded(call('INCR', K .. 'seq')))
      end
      call('PEXPIRE', grant[2], text(grant[4] / 1000 + 86400000))
    end
  end
end
return out
