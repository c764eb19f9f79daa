-- limit P leave | window_ms requests longest_ms member late_ms token_limit  ->  {ms to wait (0 or less: leave), lost}
-- limit P slow  | window_ms requests longest_ms sent_ms retry_after_ms      ->  {requests still admitted or 0, ms}
--
-- P limit:requests  zset  "<reservation>:<tokens>" -> ms at which it may leave
-- P limit:state     hash  run: the Redis process that wrote it; closed: ms before which nothing leaves;
--                         share: what is admitted of `requests`, as of `closed`; since: ms of the last decrease
--
-- window_ms   the promised window plus slack (limits.py)   requests     how many may leave in it
-- longest_ms  a longer wait is told, not reserved          token_limit  tokens that may leave in it; 0 = off
-- member      the reservation and what it weighs           late_ms      how late a slot may still be used
-- sent_ms     so long ago the refused request left         retry_after_ms  what the API asked for; -1: nothing
--
-- leave: a sliding log that also holds the future. Each request gets the earliest moment that keeps the promise and
-- comes back at that moment, so callers neither poll nor stampede, and leave in the order in which they asked. A slot
-- is good only when it is still there then; one that Redis lost, the API closed, or that is late is exchanged.
-- Invariants: entries only ever follow the newest one. The k-th newest is at least a window older than the entry that
-- follows, with k = requests or fewer, so no window holds more; likewise the token sum, and what BURST_MS are worth in
-- any LOSS_MS. Caller crashed: its slot is wasted. Answer lost, asked again: the same slot.
-- Redis crashed or failed over (`run` is another process): up to LOSS_MS of the log may be missing. All that can have
-- left in that time is put into the log; when the newest entry is yet to leave, nothing lost has left. These entries
-- are no burst, so Redis' return delays nobody; a second crash within LOSS_MS is not provided for. Without an AOF
-- everything may be missing: closed until a window after the start. `lost`: how many were assumed, if it was in use.
-- Without any state nothing is assumed: the limit was never used, or first used in the very second that was lost.
-- Redis' clock stepped back: the whole log is in the future; closed for a window. A step forward is not noticed.
--
-- slow: the API refused. Halve the share, unless the request left before the last decrease: then that was the answer
-- to it. Close for as long as the API asked, or for a pause that doubles with each decrease; one goes ahead after it.
local LOSS_MS, BURST_MS = 2500, 15000
local DECREASE, LEAST, REGAINED_PER_WINDOW = 1 / 2, 1 / 32, 1 / 8
local FIRST_PAUSE_MS, AHEAD_MS = 1000, 250

local window, requests, longest = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local log, state = P .. 'limit:requests', P .. 'limit:state'

local known = redis.call('HMGET', state, 'run', 'closed', 'share', 'since')
local closed, since = tonumber(known[2] or 0), tonumber(known[4] or 0)
local share = math.min(1, tonumber(known[3] or 1) + REGAINED_PER_WINDOW * math.max(0, NOW - closed) / window)

local function keep(...)
  redis.call('HSET', state, ...)
  redis.call('PEXPIRE', state, digits(longest + window * (1 + 1 / REGAINED_PER_WINDOW)))
end

if ARGV[1] == 'slow' then
  local sent, pause = NOW - tonumber(ARGV[5]), tonumber(ARGV[6])
  local decreases = sent > since
  if decreases then
    share, since = math.max(LEAST, share * DECREASE), NOW
  end
  if pause < 0 then
    pause = FIRST_PAUSE_MS * DECREASE / share
  end
  keep('closed', digits(math.max(closed, NOW + pause)), 'share', tostring(share), 'since', digits(since))
  return {decreases and math.ceil(requests * share) or 0, math.ceil(pause)}
end

local member, late, token_limit = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local burst = math.ceil(requests * BURST_MS / window)

-- The moment of the entry that is `rank` places from the newest, which is 1; and its name.
local function moment(rank)
  local entry = redis.call('ZREVRANGE', log, rank - 1, rank - 1, 'WITHSCORES')
  return tonumber(entry[2]), entry[1]
end

local lost = 0
local info = redis.pcall('INFO', 'server')
local run = type(info) == 'string' and string.match(info, 'run_id:(%x+)')
if run and run ~= known[1] then
  local age = 1000 * tonumber(string.match(info, 'uptime_in_seconds:(%d+)'))
  if age <= window and string.find(redis.call('INFO', 'persistence'), 'aof_enabled:0', 1, true) then
    lost, closed = requests, math.max(closed, NOW - age + window)
  elseif known[1] and (moment(1) or 0) <= NOW then
    local entries = {}
    for i = 1, 2 * math.min(burst, requests), 2 do
      entries[i], entries[i + 1] = NOW_TEXT, run .. i .. ':0'
    end
    in_slices('ZADD', log, entries)
    lost = #entries / 2
  end
  keep('run', run, 'closed', digits(closed))
end

local at = tonumber(redis.call('ZSCORE', log, member) or nil)
if at and at >= math.max(closed, NOW - late) then
  return {at - NOW, lost}
end
redis.call('ZREM', log, member)
redis.call('ZREMRANGEBYSCORE', log, '-inf', digits(NOW - window))
local newest = moment(1) or 0
if math.max(newest, closed - window) > NOW + longest then
  redis.call('DEL', log)
  newest, closed = 0, NOW + window
  keep('closed', digits(closed))
end

at = math.max(NOW, newest)
local function follow(rank, gap)
  at = math.max(at, (moment(math.max(1, rank)) or -gap) + gap + 1)
end
follow(math.floor(requests * share), window)
local _, name = moment(math.ceil(burst * share))
if name and string.sub(name, -2) ~= ':0' then
  follow(math.ceil(burst * share), LOSS_MS)
end
if at < closed + AHEAD_MS then
  at = newest >= closed and closed + AHEAD_MS or math.max(at, closed)
end
if token_limit > 0 then
  local sum, rank = tonumber(string.match(member, ':(%d+)$')), 0
  repeat
    local page = redis.call('ZREVRANGE', log, rank, rank + 99, 'WITHSCORES')
    for i = 1, #page, 2 do
      sum = sum + tonumber(string.match(page[i], ':(%d+)$'))
      if sum > token_limit * share then
        at = math.max(at, tonumber(page[i + 1]) + window + 1)
        break
      end
    end
    rank = rank + 100
  until #page == 0 or sum > token_limit * share
end

if at - NOW <= longest then
  redis.call('ZADD', log, digits(at), member)
  redis.call('PEXPIRE', log, digits(at - NOW + 2 * window))
end
return {at - NOW, lost}
