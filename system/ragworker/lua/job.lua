-- What every script shares; put in front of each. Not called by itself.
--
-- KEYS[1]  prefix P = "{rag:<queue>}:". No key of that very name exists: it routes the script to the queue's
--          slot, and every key below is P plus a suffix, so all of them are in that slot.
--
-- P job:<id>       hash    the job; `history` is lines "at_ms|event|attempt|code|delay_ms|worker"
-- P payload:<id>   string  the document; gone once the job is done or cancelled, kept while it is dead
-- P ready:high     list    waiting ids, served from the left; all of high before any of normal
-- P ready:normal   list
-- P delayed        zset    waiting ids -> ms when due
-- P claimed:<w>    hash    id -> fence of every job that worker w holds
-- P leases         zset    worker -> ms when its lease ends
-- P workers:<w>    hash    heartbeat facts of worker w
-- P fence          string  the last fence given
-- P dlq            zset    dead ids -> ms of death
-- P idem:<sha256>  string  digest of user and idempotency key -> id
-- P events:<id>    stream  what happened to a job, newest ~64; P events is the channel of the same
-- P wake           list    at most WAKE_LIMIT tokens; an idle worker blocks on it
-- P stats          hash    counters and histograms
--
-- Invariant: a job that is not terminal is in exactly one of: a ready list, `delayed`, one `claimed:<w>`.
-- A script runs alone and Redis logs its writes as one transaction, so no crash of a client or of Redis can
-- leave a job between two places: it is before the script or after it.
-- Time is Redis' own TIME, one reading per script. Plain commands of Redis 6.2 only; no module, no cjson.

local P = KEYS[1]
local WAKE_LIMIT = 64
local PROMOTE_LIMIT = 128

local clock = redis.call('TIME')
local NOW = clock[1] * 1000 + math.floor(clock[2] / 1000)

-- A number as plain digits: Lua would print 13 digits with an exponent.
local function digits(number)
  return string.format('%.0f', number)
end

local function job_key(id)
  return P .. 'job:' .. id
end

local function count(name, by)
  redis.call('HINCRBY', P .. 'stats', name, by or 1)
end

-- Add one line to the job's history and forget the oldest beyond `limit` lines.
local function remember(id, limit, event, attempt, code, delay_ms, worker)
  local line = table.concat({digits(NOW), event, attempt, code or '', delay_ms or '', worker or ''}, '|')
  local old = redis.call('HGET', job_key(id), 'history')
  local text = (old and old ~= '') and (old .. '\n' .. line) or line
  local _, breaks = string.gsub(text, '\n', '')
  while breaks >= limit do
    text = string.sub(text, string.find(text, '\n', 1, true) + 1)
    breaks = breaks - 1
  end
  redis.call('HSET', job_key(id), 'history', text)
end

-- Append to the job's stream and tell live listeners the same, under the same id.
local function emit(id, kind, state, stage, done, total)
  stage, done, total = stage or '', done or '', total or ''
  local at = redis.call('XADD', P .. 'events:' .. id, 'MAXLEN', '~', '64', '*',
    'kind', kind, 'state', state, 'stage', stage, 'done', done, 'total', total)
  redis.call('PUBLISH', P .. 'events', table.concat({id, at, kind, state, stage, done, total}, '\n'))
end

-- One token wakes one idle worker; a bounded number, because they only mean "look".
local function wake()
  if redis.call('LLEN', P .. 'wake') < WAKE_LIMIT then
    redis.call('RPUSH', P .. 'wake', '1')
  end
end

local function make_ready(id, priority, at_front)
  redis.call(at_front and 'LPUSH' or 'RPUSH', P .. 'ready:' .. priority, id)
  wake()
end

-- Jobs whose delay has run out join the ready lists, longest due first; bounded per call, callers come often.
local function promote()
  local due = redis.call('ZRANGEBYSCORE', P .. 'delayed', '-inf', digits(NOW), 'LIMIT', 0, PROMOTE_LIMIT)
  for _, id in ipairs(due) do
    redis.call('ZREM', P .. 'delayed', id)
    make_ready(id, redis.call('HGET', job_key(id), 'priority') or 'normal', false)
  end
end

local function observe(histogram, value, borders)
  local name = 'hist:' .. histogram .. ':'
  local bucket = '+Inf'
  for border in string.gmatch(borders, '[^,]+') do
    if value <= tonumber(border) then
      bucket = border
      break
    end
  end
  count(name .. bucket)
  count(name .. 'count')
  redis.call('HINCRBY', P .. 'stats', name .. 'sum', digits(value))
end

-- Everything that ends with a job that will not come back: the document goes at once, the record after `ttl` s.
-- The idempotency key expires with the record, never before it: until then the same submit finds this job.
local function retire(id, state, ttl)
  local job = job_key(id)
  redis.call('HSET', job, 'state', state, 'finished_ms', digits(NOW))
  redis.call('DEL', P .. 'payload:' .. id)
  emit(id, 'state', state)
  emit(id, 'end', state)
  redis.call('EXPIRE', job, ttl)
  redis.call('EXPIRE', P .. 'events:' .. id, ttl)
  redis.call('EXPIRE', P .. 'idem:' .. redis.call('HGET', job, 'idem'), ttl)
  count('finished:' .. state)
end

-- A job that failed for good moves whole: record, history, document and idempotency key stay until an operator
-- requeues or purges it.
local function bury(id, history, code, message, worker, borders)
  local job = job_key(id)
  local was = redis.call('HMGET', job, 'attempt', 'queued_ms')
  redis.call('HSET', job, 'state', 'dead', 'finished_ms', digits(NOW),
    'error_code', code, 'error_message', message)
  remember(id, history, 'dead', was[1], code, '', worker)
  redis.call('ZADD', P .. 'dlq', digits(NOW), id)
  emit(id, 'state', 'dead')
  emit(id, 'end', 'dead')
  count('dead')
  count('failed:' .. code)
  count('finished:dead')
  observe('rag_job_duration_ms', math.max(0, NOW - tonumber(was[2])), borders)
end
