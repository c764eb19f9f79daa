-- gauges P |  ->  {waiting, active, dead, workers, highest token_used_pct, {counter, value, ...}}
--
-- Reads only. Counts what lives under a live lease: the jobs of a dead worker are not active, they wait to be taken
-- over. One step, so that the figures fit each other.
local live = redis.call('ZRANGEBYSCORE', P .. 'leases', '(' .. digits(NOW), '+inf')
local active, highest = 0, 0
for _, worker in ipairs(live) do
  active = active + redis.call('HLEN', P .. 'claimed:' .. worker)
  highest = math.max(highest, tonumber(redis.call('HGET', P .. 'workers:' .. worker, 'token_used_pct') or '0') or 0)
end
local waiting = redis.call('LLEN', P .. 'ready:high') + redis.call('LLEN', P .. 'ready:normal')
  + redis.call('ZCARD', P .. 'delayed')
return {waiting, active, redis.call('ZCARD', P .. 'dlq'), #live, tostring(highest), redis.call('HGETALL', P .. 'stats')}
