-- settle P | worker ttl history borders, then for each outcome:
--            id fence kind delay_ms code message words chunks tokens cost_usd
--   ->  {1|0, ...} one per outcome; 0 = refused, the fence is not the job's newest
--
-- kind     done|retry|dead|cancelled|released        ttl      seconds to keep the record of a finished job
-- borders  bucket borders of the job duration, ms, ascending, joined by commas
--
-- Invariants: only the worker that holds the claim under the newest fence may end it; the claim goes away in the
-- same step in which the job gets its next place, its counters rise and its listeners hear of it.
-- A retry of a job whose cancellation was requested meanwhile waits for nothing: the next claim ends it.
-- Answer lost, worker sends again: `settled` holds the fence of the last outcome taken, so the repeat is recognised
-- and changes nothing. Crash of the worker before the call: the lease runs out and the job is delivered again; its
-- effect in SQL is already there and is found (store.py). Zombie after a take-over: refused.
local worker, ttl, history, borders = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local FIELDS = 10

local function settle(id, fence, kind, delay_ms, code, message, words, chunks, tokens, cost)
  local job = job_key(id)
  if redis.call('HGET', P .. 'claimed:' .. worker, id) ~= fence then
    return redis.call('HGET', job, 'settled') == fence and 1 or 0
  end
  redis.call('HDEL', P .. 'claimed:' .. worker, id)
  local was = redis.call('HMGET', job, 'fence', 'attempt', 'priority', 'queued_ms')
  if was[1] ~= fence then
    return 0
  end
  redis.call('HSET', job, 'settled', fence)
  if kind == 'done' then
    redis.call('HSET', job, 'words', words, 'chunks', chunks, 'tokens', tokens, 'cost_usd', cost,
      'error_code', '', 'error_message', '')
    remember(id, history, 'done', was[2], '', '', worker)
    retire(id, 'done', ttl)
    count('committed')
    observe('rag_job_duration_ms', math.max(0, NOW - tonumber(was[4])), borders)
  elseif kind == 'retry' then
    redis.call('HSET', job, 'state', 'retrying', 'error_code', code, 'error_message', message)
    redis.call('HINCRBY', job, 'attempt', 1)
    if redis.call('HGET', job, 'cancelling') == fence then
      make_ready(id, 'high', true)
    else
      redis.call('ZADD', P .. 'delayed', digits(NOW + tonumber(delay_ms)), id)
    end
    remember(id, history, 'retry_scheduled', was[2], code, delay_ms, worker)
    emit(id, 'state', 'retrying')
    count('retried')
    count('failed:' .. code)
  elseif kind == 'dead' then
    bury(id, history, code, message, worker, borders)
  elseif kind == 'cancelled' then
    redis.call('HSET', job, 'error_code', '', 'error_message', '')
    remember(id, history, 'cancelled', was[2], '', '', worker)
    retire(id, 'cancelled', ttl)
    count('cancelled')
  else
    -- Released: it waited already, so it goes to the front, and nothing is held against it.
    redis.call('HSET', job, 'state', 'queued')
    remember(id, history, 'released', was[2], '', '', worker)
    emit(id, 'state', 'queued')
    make_ready(id, was[3], true)
  end
  return 1
end

local answers = {}
for i = 5, #ARGV, FIELDS do
  answers[#answers + 1] = settle(unpack(ARGV, i, i + FIELDS - 1))
end
return answers
