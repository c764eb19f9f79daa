-- purge P | id  ->  1, or 0 when the job is not dead
--
-- Invariant: only a dead job can be forgotten, and all of it goes in one step: the same document submitted again is
-- a new job. Crash or lost answer: it is whole or it is gone; the repeat says 0.
local id = ARGV[1]
if redis.call('HGET', job_key(id), 'state') ~= 'dead' then
  return 0
end
redis.call('ZREM', P .. 'dlq', id)
redis.call('UNLINK', job_key(id), P .. 'payload:' .. id)
return 1
