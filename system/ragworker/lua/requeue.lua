-- requeue P | id history  ->  1, or 0 when the job is not dead
--
-- Invariant: a dead job has its document, and is in `dlq` and nowhere else; afterwards it is in a ready list and
-- nowhere else, with a fresh series of attempts and deliveries and its history kept. The fence stays: it only rises.
-- Answer lost: the repeat says 0, the job runs once. `finished:dead` has been counted and stays counted.
local id, history = ARGV[1], tonumber(ARGV[2])
local job = job_key(id)
if redis.call('HGET', job, 'state') ~= 'dead' or redis.call('EXISTS', P .. 'payload:' .. id) == 0 then
  return 0
end
redis.call('ZREM', P .. 'dlq', id)
redis.call('HSET', job, 'state', 'queued', 'attempt', 1, 'deliveries', 1, 'queued_ms', digits(NOW))
redis.call('HDEL', job, 'finished_ms', 'error_code', 'error_message')
remember(id, history, 'requeued', 1)
emit(id, 'state', 'queued')
make_ready(id, redis.call('HGET', job, 'priority'), false)
return 1
