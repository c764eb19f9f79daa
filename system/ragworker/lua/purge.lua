-- purge P | id  ->  1, or 0 when the job is not dead
--
-- Invariant: only a dead job can be forgotten, and all of it goes in one step: the same document submitted again is
-- a new job. Crash or lost answer: it is whole or it is gone; the repeat says 0.
local id = ARGV[1]
local was = redis.call('HMGET', job_key(id), 'state', 'idem')
if was[1] ~= 'dead' then
  return 0
end
redis.call('ZREM', P .. 'dlq', id)
redis.call('DEL', job_key(id), P .. 'payload:' .. id, P .. 'events:' .. id, P .. 'idem:' .. was[2])
return 1
