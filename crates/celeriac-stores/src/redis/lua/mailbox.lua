-- Inboxes of remote control, as kombu's reply queues (wire specification 7.2, 7.3, 2.3).
--   op 'open':   id, ttl, life     adds the inbox to the table of replies; removes ours that nobody closed
--   op 'reply':  id, letter, ttl, max
--   op 'close':  id
-- kombu's tables: a member is <routing key> SEP <pattern> SEP <queue>; the deadline of a table is when
-- another client may sweep it, in milliseconds.
local EXCHANGE = 'reply.celery.pidbox'
local TABLE = P .. '_kombu.binding.' .. EXCHANGE
local function queue_of(id) return id .. '.' .. EXCHANGE end
local function member_of(id) return id .. SEP .. SEP .. queue_of(id) end

local function close(id)
  call('SREM', TABLE, member_of(id))
  call('SREM', P .. '_kombu.binding_permanent.' .. EXCHANGE, member_of(id))
  for _, step in ipairs({ '0', '3', '6', '9' }) do call('DEL', list_key(queue_of(id), step)) end
  call('ZREM', K .. 'inboxes', id)
end

if a.op == 'open' then
  for _, id in ipairs(call('ZRANGEBYSCORE', K .. 'inboxes', '-inf', text(now - a.life), 'LIMIT', 0, 64)) do
    close(id)
  end
  call('SADD', TABLE, member_of(a.id))
  call('ZADD', P .. '_kombu.binding_deadlines', 'GT', text(math.floor(now / 1000) + a.ttl), EXCHANGE)
  call('ZADD', K .. 'inboxes', text(now), a.id)
  return 1
elseif a.op == 'reply' then
  local list = list_key(queue_of(a.id), '0')
  if call('SISMEMBER', TABLE, member_of(a.id)) == 0 or call('LLEN', list) >= a.max then return 0 end
  call('LPUSH', list, a.letter)
  -- Its owner deletes it; if the owner has died, time does.
  call('PEXPIRE', list, a.ttl)
  return 1
else
  close(a.id)
  return 1
end
