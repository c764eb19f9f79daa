-- cancel P | id ttl history  ->  state afterwards, or '' when there is no such job
--
-- The request itself (hash job:cancel:<id>, another slot) is written before this call, so a crash in between leaves
-- a request that the job's next or present worker honours.
-- Invariant: after `cancelled` nothing is committed. A job that was never claimed has no owner and ends here. One
-- that waits but was claimed before may have a former owner that is merely slow, about to commit: it goes to the
-- front of the line, and the worker that takes it raises the fence in SQL first, which shuts the former owner out,
-- and only then ends it. A running job is ended by its worker; `cancelling` holds the fence of the delivery that the
-- request met, so that a retry which that delivery may be about to report does not put the end off (settle.lua).
local id, ttl, history = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local was = redis.call('HMGET', job_key(id), 'state', 'fence', 'attempt', 'priority')
local state = was[1]
if not state then
  return ''
end
if state == 'queued' or state == 'retrying' then
  redis.call('LREM', P .. 'ready:' .. was[4], 1, id)
  redis.call('LREM', P .. 'ready:high', 1, id)
  redis.call('ZREM', P .. 'delayed', id)
  if was[2] == '0' then
    remember(id, history, 'cancelled', was[3])
    retire(id, 'cancelled', ttl)
    count('cancelled')
    return 'cancelled'
  end
  make_ready(id, 'high', true)
elseif state == 'running' then
  redis.call('HSET', job_key(id), 'cancelling', was[2])
end
return state
