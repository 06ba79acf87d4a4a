-- Dead letters.
--   op 'discard': numbers           returns how many there were
--   op 'edit':    number, letter    returns 1, or 0 when it is gone
if a.op == 'discard' then
  local gone = 0
  for _, number in ipairs(a.numbers) do
    if exhume(number) then gone = gone + 1 end
  end
  return gone
end
local old = call('HGET', K .. 'dead', a.number)
if not old then return 0 end
local queue, id = string.match(old, '^([^\n]*)\n([^\n]*)\n')
local new_queue, new_id = string.match(a.letter, '^([^\n]*)\n([^\n]*)\n')
call('HSET', K .. 'dead', a.number, a.letter)
call('INCRBY', K .. 'dead:bytes', #a.letter - #old)
count('x', queue, -1)
count('x', new_queue, 1)
if id ~= '' and call('HGET', K .. 'dead:ids', id) == a.number then call('HDEL', K .. 'dead:ids', id) end
if new_id ~= '' then call('HSET', K .. 'dead:ids', new_id, a.number) end
return 1
