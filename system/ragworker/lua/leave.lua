-- leave P | worker  ->  number of claims still held
--
-- A worker that stops says so, and its series vanish at once instead of after the lease. When it still holds claims
-- its lease ends now instead, so the next take-over moves them without waiting. Crash before: the lease runs out.
local worker = ARGV[1]
local held = redis.call('HLEN', P .. 'claimed:' .. worker)
if held == 0 then
  redis.call('ZREM', P .. 'leases', worker)
else
  redis.call('ZADD', P .. 'leases', NOW_TEXT, worker)
end
redis.call('ZREM', P .. 'idle', worker)
redis.call('DEL', P .. 'workers:' .. worker, P .. 'inbox:' .. worker)
return held
