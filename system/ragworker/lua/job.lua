-- What every script of the queue shares; put in front of each. Not called by itself.
--
-- KEYS[1]  prefix P = "{rag:<queue>}:". No key of that very name exists: it routes the script to the queue's
--          slot of a cluster, and every key below is P plus a suffix, so all of them are in that slot.
--
-- P job:<id>       hash    one job, see below
-- P payload:<id>   string  the document when it is too large to travel in the hash
-- P ready:high     list    waiting ids, served from the left; all of high before any of normal
-- P ready:normal   list
-- P delayed        zset    waiting ids -> ms when due
-- P claimed:<w>    hash    id -> fence of every job that worker w holds
-- P leases         zset    worker -> ms when its lease ends
-- P workers:<w>    hash    heartbeat facts of worker w
-- P fence          string  the last fence given
-- P dlq            zset    dead ids -> ms of death
-- P finished       zset    ids that ended (done, cancelled) and are on record -> ms of their end
-- P idle           zset    workers that found nothing and block on their inbox -> free slots
-- P inbox:<w>      list    rows of jobs that were claimed for worker w while it was idle
-- P stats          hash    counters and histograms
-- P paused         string  set while no claims are given out
-- P upload:<r>     string  a large document on its way in
-- P events         channel ids of jobs that have news, one a line; only a wake-up, the news are in the job
--
-- Fields of a job: state, priority, about (JSON, written once), payload ('' when gone), big (1: see payload:<id>),
-- created_ms, queued_ms (only after a requeue), attempt (absent: 1), lost (workers that lost it; absent: 0), fence,
-- settled (fence of the last outcome taken that was not an end), cancel (reason of a pending request), error
-- ("code|message"), figures ("words|chunks|tokens|cost"), progress ("number|ms|stage|done|total"), history (lines
-- "number|ms|event|attempt|code|delay_ms|worker", newest first). Eight fields is what a job has that is done at its
-- first delivery: a ninth makes Redis double the hash's table, and each costs time in every step and in the log.
--
-- Invariant: a job that is not terminal is in exactly one of: a ready list, `delayed`, one `claimed:<w>`.
-- A script runs alone and Redis logs its writes as one transaction, so no crash of a client or of Redis can
-- leave a job between two places: it is before the script or after it.
-- Time is Redis' own TIME, one reading per script. Plain commands of Redis 6.2 only; no module, no cjson.

local P = KEYS[1]
local PROMOTE_LIMIT = 128

-- Lines of a job's history: four retries make about ten; a crash loop must not grow it for ever.
local HISTORY_LIMIT = 50

-- unpack() has room for about 8,000 values.
local SLICE = 2000

-- A history longer than this many bytes is looked at for lines beyond the limit.
local LONG_HISTORY = 2000

local clock = redis.call('TIME')
local NOW = clock[1] * 1000 + math.floor(clock[2] / 1000)

-- A number as plain digits: Lua would print 13 digits with an exponent.
local function digits(number)
  return string.format('%.0f', number)
end

local NOW_TEXT = digits(NOW)

local function job_key(id)
  return P .. 'job:' .. id
end

-- Call a command with many values, a slice at a time.
local function in_slices(command, key, values)
  for first = 1, #values, SLICE do
    redis.call(command, key, unpack(values, first, math.min(first + SLICE - 1, #values)))
  end
end

-- Counters and news of a whole call are gathered and written once, by `publish` at its end.
local tally, news = {}, {}

local function count(name, by)
  tally[name] = (tally[name] or 0) + (by or 1)
end

-- One histogram a call: its borders are read when the first value comes.
local limits, buckets

local function observe(histogram, value, borders)
  local name = 'hist:' .. histogram .. ':'
  if not limits then
    limits, buckets = {}, {}
    for border in string.gmatch(borders, '[^,]+') do
      limits[#limits + 1] = tonumber(border)
      buckets[#limits] = name .. border
    end
  end
  local bucket = name .. '+Inf'
  for i = 1, #limits do
    if value <= limits[i] then
      bucket = buckets[i]
      break
    end
  end
  count(bucket)
  count(name .. 'count')
  count(name .. 'sum', value)
end

local function publish()
  for name, by in pairs(tally) do
    redis.call('HINCRBY', P .. 'stats', name, digits(by))
  end
  if #news > 0 then
    redis.call('PUBLISH', P .. 'events', table.concat(news, '\n'))
  end
end

-- The number of the next event: above the newest line's and the newest progress'.
-- A final event takes two numbers: its state and the end of the stream are told apart (rows.py).
local function next_number(history, progress)
  local number = history and tonumber(string.match(history, '^%d+')) or 0
  if progress then
    number = math.max(number, tonumber(string.match(progress, '^%d+')))
  end
  return number + 2
end

-- The history with one more line, without the oldest beyond the limit.
local function remember(id, old, progress, event, attempt, code, delay_ms, worker)
  news[#news + 1] = id
  local text = next_number(old, progress) .. '|' .. NOW_TEXT .. '|' .. event .. '|' .. (attempt or '1') .. '|'
    .. (code or '') .. '|' .. (delay_ms or '') .. '|' .. (worker or '')
  if not old then
    return text
  end
  text = text .. '\n' .. old
  if #text > LONG_HISTORY then
    local place = 0
    for _ = 1, HISTORY_LIMIT do
      place = string.find(text, '\n', place + 1, true)
      if not place then
        return text
      end
    end
    text = string.sub(text, 1, place - 1)
  end
  return text
end

local function make_ready(id, priority, at_front)
  redis.call(at_front and 'LPUSH' or 'RPUSH', P .. 'ready:' .. priority, id)
end

-- Jobs whose delay has run out join the ready lists, longest due first; bounded per call, callers come often.
local function promote()
  local due = redis.call('ZRANGEBYSCORE', P .. 'delayed', '-inf', NOW_TEXT, 'LIMIT', 0, PROMOTE_LIMIT)
  for _, id in ipairs(due) do
    redis.call('ZREM', P .. 'delayed', id)
    make_ready(id, redis.call('HGET', job_key(id), 'priority') or 'normal', false)
  end
end

-- Claim up to `limit` jobs for a worker that has a lease; a row for each:
--   id, fence, attempt, deliveries, created_ms, queued_ms, about, big, cancel, payload, joined by line feeds, of which
--   only the payload may contain some.
-- Invariants: an id leaves a ready list only into `claimed:<worker>`, in the same step. A fence is higher than any
-- before: by one, or by reaching the clock. The clock matters when Redis lost its last second (appendfsync everysec)
-- or all its data: a counter alone would give the same fence to two workers.
local function claim_for(worker, limit)
  local rows, claims = {}, {}
  if redis.call('EXISTS', P .. 'paused') == 1 then
    return rows
  end
  local ids = redis.call('LPOP', P .. 'ready:high', limit) or {}
  if #ids < limit then
    for _, id in ipairs(redis.call('LPOP', P .. 'ready:normal', limit - #ids) or {}) do
      ids[#ids + 1] = id
    end
  end
  if #ids == 0 then
    return rows
  end
  local fence = math.max(tonumber(redis.call('GET', P .. 'fence') or '0') + 1, NOW)
  for _, id in ipairs(ids) do
    local job = job_key(id)
    local f = redis.call('HMGET', job, 'state', 'attempt', 'lost', 'created_ms', 'queued_ms', 'about',
      'big', 'cancel', 'payload', 'progress', 'history')
    -- Any other state means that the id is a stranger in this list; dropping it is the only safe thing to do.
    if f[1] == 'queued' or f[1] == 'retrying' then
      local given = digits(fence)
      fence = fence + 1
      redis.call('HSET', job, 'state', 'running', 'fence', given,
        'history', remember(id, f[11], f[10], 'claimed', f[2], '', '', worker))
      claims[#claims + 1] = id
      claims[#claims + 1] = given
      rows[#rows + 1] = id .. '\n' .. given .. '\n' .. (f[2] or '1') .. '\n' .. (f[3] and f[3] + 1 or '1') .. '\n'
        .. f[4] .. '\n' .. (f[5] or f[4]) .. '\n' .. f[6] .. '\n' .. (f[7] or '') .. '\n' .. (f[8] or '') .. '\n'
        .. (f[9] or '')
    end
  end
  redis.call('SET', P .. 'fence', digits(fence - 1))
  in_slices('HSET', P .. 'claimed:' .. worker, claims)
  return rows
end

-- Give what is ready to idle workers, the one with most free slots first; every script that makes jobs ready ends so.
-- The row in the inbox is a copy of a claim. When nobody reads it, the claim is recovered as any other: by the lease
-- of a dead worker, or as a claim that a living one does not know (renew.lua).
local function hand_out()
  while redis.call('ZCARD', P .. 'idle') > 0
    and redis.call('LLEN', P .. 'ready:high') + redis.call('LLEN', P .. 'ready:normal') > 0
    and redis.call('EXISTS', P .. 'paused') == 0 do
    local idle = redis.call('ZPOPMAX', P .. 'idle')
    if tonumber(redis.call('ZSCORE', P .. 'leases', idle[1]) or '0') > NOW then
      in_slices('RPUSH', P .. 'inbox:' .. idle[1], claim_for(idle[1], tonumber(idle[2])))
    end
  end
end

local function forget(ids)
  local keys = {}
  for i, id in ipairs(ids) do
    keys[i] = job_key(id)
  end
  if #keys > 0 then
    redis.call('UNLINK', unpack(keys))
  end
end

-- Forget the records that are older than `ttl` seconds, and all but the newest `keep`; bounded per call.
local function forget_old(ttl, keep)
  local finished = P .. 'finished'
  local old = redis.call('ZCOUNT', finished, '-inf', digits(NOW - 1000 * ttl))
  old = math.min(SLICE, math.max(old, redis.call('ZCARD', finished) - keep))
  if old > 0 then
    forget(redis.call('ZRANGE', finished, 0, old - 1))
    redis.call('ZREMRANGEBYRANK', finished, 0, old - 1)
  end
end

-- Keep the records of jobs that ended, as long and as many as is wanted. One sorted set instead of an expiry for each
-- record: fewer commands a job, and the number is bounded too.
local function retire(ended, ttl, keep)
  if ttl == 0 or keep == 0 then
    forget(ended)
    return
  end
  local scored = {}
  for i, id in ipairs(ended) do
    scored[2 * i - 1], scored[2 * i] = NOW_TEXT, id
  end
  in_slices('ZADD', P .. 'finished', scored)
  forget_old(ttl, keep)
end

-- A job that failed for good moves whole: record, history and document stay until an operator requeues or purges it.
-- f: attempt, created_ms, queued_ms, progress, history
-- settled: the fence of the outcome that says so, or '' when nobody did.
local function bury(id, f, code, message, worker, borders, settled)
  redis.call('HSET', job_key(id), 'state', 'dead', 'error', code .. '|' .. message, 'settled', settled,
    'history', remember(id, f[5], f[4], 'dead', f[1], code, '', worker))
  redis.call('ZADD', P .. 'dlq', NOW_TEXT, id)
  count('dead')
  count('failed:' .. code)
  count('finished:dead')
  observe('rag_job_duration_ms', math.max(0, NOW - tonumber(f[3] or f[2])), borders)
end
