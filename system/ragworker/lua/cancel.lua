-- cancel P | id reason ttl keep  ->  state afterwards, or '' when there is no such job
--
-- The request itself (hash job:cancel:<id>, another slot) is written before this call, so a crash in between leaves
-- a request that the job's worker honours.
-- Invariant: after `cancelled` nothing is committed. A job that was never claimed has no owner and ends here. One
-- that waits but was claimed before may have a former owner that is merely slow, about to commit: it goes to the
-- front of the line, and the worker that takes it raises the fence in SQL first, which shuts the former owner out,
-- and only then ends it. A running job is ended by its worker. `cancel` stays with the job until it ends, so that a
-- retry which the running delivery may be about to report does not put the end off (settle.lua).
local id, reason, ttl, keep = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local f = redis.call('HMGET', job_key(id), 'state', 'fence', 'attempt', 'priority', 'progress', 'history', 'big')
local state = f[1]
if state == 'queued' or state == 'retrying' then
  redis.call('LREM', P .. 'ready:' .. f[4], 1, id)
  redis.call('LREM', P .. 'ready:high', 1, id)
  redis.call('ZREM', P .. 'delayed', id)
  if f[2] then
    redis.call('HSET', job_key(id), 'cancel', reason)
    make_ready(id, 'high', true)
    hand_out()
  else
    redis.call('HSET', job_key(id), 'state', 'cancelled', 'payload', '',
      'history', remember(id, f[6], f[5], 'cancelled', f[3]))
    if f[7] then
      redis.call('DEL', P .. 'payload:' .. id)
    end
    retire({id}, ttl, keep)
    count('cancelled')
    count('finished:cancelled')
    state = 'cancelled'
  end
elseif state == 'running' then
  redis.call('HSET', job_key(id), 'cancel', reason)
end
publish()
return state or ''
