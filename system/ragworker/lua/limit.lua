-- limit P | member window_ms requests tokens token_limit longest_ms  ->  ms to wait, or -(ms) when not reserved
--
-- P limit:requests  zset  reservation -> ms at which it may leave
-- P limit:tokens    zset  "<reservation>:<tokens>" -> the same; only while a token limit is set
--
-- window_ms   the promised window plus slack (limits.py)       requests   how many may leave in it
-- tokens      what this request weighs                         token_limit  0 = off
-- longest_ms  do not reserve further ahead than this; answer -(ms until it is worth asking again)
--
-- A sliding log that also holds the future: each request gets the earliest moment that keeps the promise, and comes
-- back for nothing. So waiting callers neither poll nor stampede when the window moves, and leave in the order in
-- which they asked.
-- Invariant: entries only ever follow the newest one, and the k-th newest is at least a window older than an entry
-- k places later, with k = requests; so no window of that length holds more. Likewise the token sum.
-- Crash of the caller: its slot is wasted, the promise holds. Answer lost, asked again: the same member moves.
local member, window, requests = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local tokens, token_limit, longest = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local log, weights = P .. 'limit:requests', P .. 'limit:tokens'

redis.call('ZREMRANGEBYSCORE', log, '-inf', digits(NOW - window))
redis.call('ZREMRANGEBYSCORE', weights, '-inf', digits(NOW - window))

local at = NOW
local newest = redis.call('ZREVRANGE', log, 0, 0, 'WITHSCORES')
if newest[2] then
  at = math.max(at, tonumber(newest[2]))
end
local edge = redis.call('ZREVRANGE', log, requests - 1, requests - 1, 'WITHSCORES')
if edge[2] then
  at = math.max(at, tonumber(edge[2]) + window + 1)
end
if token_limit > 0 then
  local entries = redis.call('ZREVRANGE', weights, 0, -1, 'WITHSCORES')
  local sum = tokens
  for i = 1, #entries, 2 do
    sum = sum + tonumber(string.match(entries[i], ':(%d+)$'))
    if sum > token_limit then
      at = math.max(at, tonumber(entries[i + 1]) + window + 1)
      break
    end
  end
end

local wait = at - NOW
if wait > longest then
  return -math.max(1, wait - longest)
end
redis.call('ZADD', log, digits(at), member)
redis.call('PEXPIRE', log, digits(2 * window + longest))
if token_limit > 0 then
  redis.call('ZADD', weights, digits(at), member .. ':' .. tokens)
  redis.call('PEXPIRE', weights, digits(2 * window + longest))
end
return wait
