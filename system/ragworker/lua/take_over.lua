-- take_over P | limit max_deliveries ttl keep borders code message  ->  {id, dead 0|1, dead worker, id, ...}
--
-- limit    jobs to move in this call           max_deliveries   deliveries after which a job is poison
-- ttl, keep  how long and how many finished records stay: this call comes often, so old ones go here too
--
-- Invariants: a job is taken only from a worker whose lease has run out on Redis' clock; it goes from that
-- worker's claims to the front of a ready list (or to the dead letters) in this step, and is counted as one more
-- delivery, never as an attempt. The lease goes only when the last claim has gone, so a bounded call loses none.
-- The old owner may live on: its claim is gone, so settle.lua refuses it; the next delivery's fence, raised in SQL,
-- makes its commit fail, or finds the commit done. Crash of the caller: nothing is half moved, another one goes on.
local limit, max_deliveries, borders, code, message = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[5], ARGV[6], ARGV[7]
local answer, moved = {}, 0

local function take(worker, id, fence)
  -- f: state, fence, lost, priority, attempt, created_ms, queued_ms, progress, history
  local f = redis.call('HMGET', job_key(id), 'state', 'fence', 'lost', 'priority', 'attempt', 'created_ms',
    'queued_ms', 'progress', 'history')
  -- A claim under an older fence belongs to a delivery that was replaced; the job itself is elsewhere.
  if f[1] ~= 'running' or f[2] ~= fence then
    return
  end
  local lost = tonumber(f[3] or '0') + 1
  count('taken_over')
  if lost >= max_deliveries then
    bury(id, {f[5], f[6], f[7], f[8], f[9]}, code, message, worker, borders, '')
  else
    redis.call('HSET', job_key(id), 'state', 'queued', 'lost', lost,
      'history', remember(id, f[9], f[8], 'taken_over', f[5], '', '', worker))
    make_ready(id, f[4], true)
  end
  answer[#answer + 1] = id
  answer[#answer + 1] = lost >= max_deliveries and 1 or 0
  answer[#answer + 1] = worker
end

promote()
forget_old(tonumber(ARGV[3]), tonumber(ARGV[4]))
local expired = redis.call('ZRANGEBYSCORE', P .. 'leases', '-inf', NOW_TEXT, 'LIMIT', 0, 16)
for _, worker in ipairs(expired) do
  local claims = redis.call('HGETALL', P .. 'claimed:' .. worker)
  local last = math.min(#claims, 2 * (limit - moved))
  for i = 1, last, 2 do
    moved = moved + 1
    redis.call('HDEL', P .. 'claimed:' .. worker, claims[i])
    take(worker, claims[i], claims[i + 1])
  end
  if last < #claims then
    break
  end
  redis.call('ZREM', P .. 'leases', worker)
  redis.call('ZREM', P .. 'idle', worker)
  redis.call('DEL', P .. 'workers:' .. worker, P .. 'inbox:' .. worker)
end
hand_out()
publish()
return answer
