-- gauges P |  ->  {waiting, active, unfinished, dead, workers, paused 0|1, highest token_used_pct, {counter, value, ...}}
--
-- Reads only. `active` counts what lives under a live lease: the jobs of a dead worker are not active, they wait to
-- be taken over; `unfinished` counts those too. One step, so that the figures fit each other.
local waiting = redis.call('LLEN', P .. 'ready:high') + redis.call('LLEN', P .. 'ready:normal')
  + redis.call('ZCARD', P .. 'delayed')
local leases = redis.call('ZRANGE', P .. 'leases', 0, -1, 'WITHSCORES')
local live, active, claimed, highest = 0, 0, 0, 0
for i = 1, #leases, 2 do
  local held = redis.call('HLEN', P .. 'claimed:' .. leases[i])
  claimed = claimed + held
  if tonumber(leases[i + 1]) > NOW then
    live, active = live + 1, active + held
    local facts = P .. 'workers:' .. leases[i]
    highest = math.max(highest, tonumber(redis.call('HGET', facts, 'token_used_pct') or '0') or 0)
  end
end
return {waiting, active, waiting + claimed, redis.call('ZCARD', P .. 'dlq'), live, redis.call('EXISTS', P .. 'paused'),
  tostring(highest), redis.call('HGETALL', P .. 'stats')}
