-- user_limit K | window_ms requests member  ->  {left, ms until the oldest of them leaves the window}
--
-- K  zset  one member per request that was let in -> ms when; K is "{rag:<queue>}:limit:user:<digest>"
--
-- A sliding window log (as https://redis.io/tutorials/howtos/ratelimiting/ has it): exact, so no window of
-- window_ms ever holds more than `requests`, at the price of one member per request of the last window.
-- `left` is what may still come now; -1: this request is one too many, and is not counted.
-- Invariant: ZCARD <= requests; the key is gone a window after the last request that was let in.
-- Called by itself, without job.lua. Answer lost, asked again: counts twice, which errs on the strict side.
local window, requests = tonumber(ARGV[1]), tonumber(ARGV[2])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - window))
local oldest = tonumber(redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2] or now)
local left = requests - redis.call('ZCARD', KEYS[1]) - 1
if left >= 0 then
  redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[3])
  redis.call('PEXPIRE', KEYS[1], window)
end
return {math.max(left, -1), oldest + window - now}
