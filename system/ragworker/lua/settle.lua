-- settle P | worker ttl keep borders, then for each outcome: id fence kind a b c
--   ->  {1|0, ...} one per outcome; 0 = refused, the fence is not the job's newest
--
-- kind  done|retry|dead|cancelled|released          a  done: figures "words|chunks|tokens|cost"; retry: delay in ms
-- b, c  retry, dead: error code, message            ttl, keep  how long and how many finished records stay
-- borders  bucket borders of the job duration, ms, ascending, joined by commas
--
-- Invariants: only the worker that holds the claim under the newest fence may end it; the claim goes away in the
-- same step in which the job gets its next place, its counters rise and its listeners hear of it.
-- A retry of a job whose cancellation was requested meanwhile waits for nothing: the next claim ends it.
-- Answer lost, worker sends again: `settled` holds the fence of the last outcome taken, or the job has ended under
-- its fence, so the repeat is recognised and changes nothing, in the same call too. Crash of the worker before the call: the lease runs out and the job is delivered again; its
-- effect in SQL is already there and is found (store.py). Zombie after a take-over: refused.
local worker, ttl, keep, borders = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local ended = {}

local function finish(id, job, f, state, figures)
  redis.call('HSET', job, 'state', state, 'figures', figures, 'payload', '',
    'history', remember(id, f[6], f[5], state, f[2], '', '', worker))
  if f[7] then
    redis.call('DEL', P .. 'payload:' .. id)
  end
  ended[#ended + 1] = id
  count('finished:' .. state)
end

local function wait_again(id, job, f, event, state, attempt, code, message, delay_ms)
  redis.call('HSET', job, 'state', state, 'settled', f[1], 'attempt', attempt,
    'history', remember(id, f[6], f[5], event, f[2], code, delay_ms, worker))
  if code ~= '' then
    redis.call('HSET', job, 'error', code .. '|' .. message)
  end
end

-- f: fence, attempt, created_ms, queued_ms, progress, history, big
local function settle(id, fence, kind, a, b, c)
  local job = job_key(id)
  local f = redis.call('HMGET', job, 'fence', 'attempt', 'created_ms', 'queued_ms', 'progress', 'history', 'big')
  if f[1] ~= fence then
    return 0
  end
  local attempt = tonumber(f[2] or '1')
  if kind == 'done' then
    finish(id, job, f, 'done', a)
    count('committed')
    observe('rag_job_duration_ms', math.max(0, NOW - (f[4] or f[3])), borders)
  elseif kind == 'retry' then
    wait_again(id, job, f, 'retry_scheduled', 'retrying', attempt + 1, b, c, a)
    if redis.call('HGET', job, 'cancel') then
      make_ready(id, 'high', true)
    else
      redis.call('ZADD', P .. 'delayed', digits(NOW + tonumber(a)), id)
    end
    count('retried')
    count('failed:' .. b)
  elseif kind == 'dead' then
    bury(id, {f[2], f[3], f[4], f[5], f[6]}, b, c, worker, borders, fence)
  elseif kind == 'cancelled' then
    finish(id, job, f, 'cancelled', '')
    count('cancelled')
  else
    -- Released: it waited already, so it goes to the front, and nothing is held against it.
    wait_again(id, job, f, 'released', 'queued', attempt, '', '', '')
    make_ready(id, redis.call('HGET', job, 'priority'), true)
  end
  return 1
end

-- Whether the outcome under this fence was taken by an earlier call.
local function known(id, fence)
  local f = redis.call('HMGET', job_key(id), 'settled', 'fence', 'state')
  return f[1] == fence or f[2] == fence and (f[3] == 'done' or f[3] == 'cancelled')
end

local ids, answers, gone, taken = {}, {}, {}, {}
for i = 5, #ARGV, 6 do
  ids[#ids + 1] = ARGV[i]
end
local held = redis.call('HMGET', P .. 'claimed:' .. worker, unpack(ids))
for n, id in ipairs(ids) do
  local i = 6 * n - 1
  if held[n] == ARGV[i + 1] and not taken[id] then
    gone[#gone + 1] = id
    taken[id] = true
    answers[n] = settle(unpack(ARGV, i, i + 5))
  else
    answers[n] = known(id, ARGV[i + 1]) and 1 or 0
  end
end
in_slices('HDEL', P .. 'claimed:' .. worker, gone)
if #ended > 0 then
  retire(ended, ttl, keep)
end
hand_out()
publish()
return answers
