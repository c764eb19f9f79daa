-- requeue P | id  ->  1, or 0 when the job is not dead
--
-- Invariant: a dead job has its document, and is in `dlq` and nowhere else; afterwards it is in a ready list and
-- nowhere else, with a fresh series of attempts and deliveries and its history kept. The fence stays: it only rises.
-- Answer lost: the repeat says 0, the job runs once. `finished:dead` has been counted and stays counted.
local id = ARGV[1]
local job = job_key(id)
local f = redis.call('HMGET', job, 'state', 'priority', 'progress', 'history')
if f[1] ~= 'dead' then
  return 0
end
redis.call('ZREM', P .. 'dlq', id)
redis.call('HSET', job, 'state', 'queued', 'queued_ms', NOW_TEXT, 'history', remember(id, f[4], f[3], 'requeued', 1))
redis.call('HDEL', job, 'attempt', 'lost', 'error', 'cancel')
make_ready(id, f[2], false)
hand_out()
publish()
return 1
