-- take_over P | limit max_deliveries history borders code message  ->  {id, dead 0|1, dead worker, id, ...}
--
-- limit    jobs to move in this call           max_deliveries   deliveries after which a job is poison
--
-- Invariants: a job is taken only from a worker whose lease has run out on Redis' clock; it goes from that
-- worker's claims to the front of a ready list (or to the dead letters) in this step, and is counted as one more
-- delivery, never as an attempt. The lease goes only when the last claim has gone, so a bounded call loses none.
-- The old owner may live on: its claim is gone, so settle.lua refuses it; the next delivery's fence, raised in SQL,
-- makes its commit fail, or finds the commit done. Crash of the caller: nothing is half moved, another one goes on.
local limit, max_deliveries, history, borders = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local code, message = ARGV[5], ARGV[6]

promote()
local answer = {}
local moved = 0
local expired = redis.call('ZRANGEBYSCORE', P .. 'leases', '-inf', digits(NOW), 'LIMIT', 0, 16)
for _, worker in ipairs(expired) do
  local claims = redis.call('HKEYS', P .. 'claimed:' .. worker)
  for _, id in ipairs(claims) do
    if moved >= limit then
      return answer
    end
    moved = moved + 1
    local job = job_key(id)
    local fence = redis.call('HGET', P .. 'claimed:' .. worker, id)
    local was = redis.call('HMGET', job, 'state', 'fence', 'deliveries', 'attempt', 'priority')
    redis.call('HDEL', P .. 'claimed:' .. worker, id)
    -- A claim under an older fence belongs to a delivery that was replaced; the job itself is elsewhere.
    if was[1] == 'running' and was[2] == fence then
      count('taken_over')
      local dead = tonumber(was[3]) >= max_deliveries
      if dead then
        bury(id, history, code, message, worker, borders)
      else
        redis.call('HSET', job, 'state', 'queued')
        redis.call('HINCRBY', job, 'deliveries', 1)
        remember(id, history, 'taken_over', was[4], '', '', worker)
        emit(id, 'state', 'queued')
        make_ready(id, was[5], true)
      end
      answer[#answer + 1] = id
      answer[#answer + 1] = dead and 1 or 0
      answer[#answer + 1] = worker
    end
  end
  redis.call('ZREM', P .. 'leases', worker)
  redis.call('DEL', P .. 'workers:' .. worker)
end
return answer
