-- submit P | idem id priority history payload field value [field value ...]  ->  {id, state, duplicate 0|1}
--
-- idem      sha256 of user and idempotency key       id        the job's id, made from the same
-- priority  high|normal                              history   lines of history to keep
-- fields    the job's description, stored as it is
--
-- Invariant: one idempotency key is one job as long as its record lives (spec A4). The record, the document, the
-- key, the place in the ready list and the counter appear together or not at all; when the caller gets its
-- answer all are there. Crash before the call: no job, and nobody was told of one. Crash of the caller after it,
-- or a lost answer: the job runs, and the same submit sent again returns it as a duplicate.
local idem, id, priority, history, payload = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]

local known = redis.call('GET', P .. 'idem:' .. idem) or id
local state = redis.call('HGET', job_key(known), 'state')
if state then
  return {known, state, 1}
end

redis.call('HSET', job_key(id), 'id', id, 'idem', idem, 'state', 'queued', 'priority', priority,
  'attempt', 1, 'deliveries', 0, 'fence', 0, 'created_ms', digits(NOW), 'queued_ms', digits(NOW))
for i = 6, #ARGV, 2 do
  redis.call('HSET', job_key(id), ARGV[i], ARGV[i + 1])
end
redis.call('SET', P .. 'payload:' .. id, payload)
redis.call('SET', P .. 'idem:' .. idem, id)
redis.call('DEL', P .. 'events:' .. id)
remember(id, history, 'submitted', 1)
emit(id, 'state', 'queued')
make_ready(id, priority, false)
count('submitted')
return {id, 'queued', 0}
