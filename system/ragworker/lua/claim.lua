-- claim P | worker limit lease_ms history  ->  {ms until the next delay ends or -1, {job, job, ...}}
--   job = {id, fence, attempt, delivery, name, media_type, bytes, sha256, user_id, request_id, trace_id,
--          correlation_id, created_ms, queued_ms}
--
-- Invariants: an id leaves a ready list only into `claimed:<worker>`, and the worker has a lease by then, so there
-- is no moment at which a job is neither waiting nor recoverable. The fence is higher than any before: by one, or
-- by reaching the clock. The clock matters when Redis lost its last second (appendfsync everysec) or all its data:
-- a counter alone would give the same fence to two workers.
-- Crash of the worker before the call: nothing. After it, or answer lost: the claim stands, and either the
-- lease runs out (take_over.lua) or the living worker finds a claim it does not know (renew.lua) and gives it back.
local worker, limit, lease_ms, history = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

promote()
redis.call('ZADD', P .. 'leases', digits(NOW + lease_ms), worker)

local jobs = {}
while #jobs < limit do
  local id = redis.call('LPOP', P .. 'ready:high') or redis.call('LPOP', P .. 'ready:normal')
  if not id then
    break
  end
  local job = job_key(id)
  local state = redis.call('HGET', job, 'state')
  -- Any other state means that the id is a stranger in this list; dropping it is the only safe thing to do.
  if state == 'queued' or state == 'retrying' then
    local fence = digits(math.max(tonumber(redis.call('GET', P .. 'fence') or '0') + 1, NOW))
    redis.call('SET', P .. 'fence', fence)
    redis.call('HSET', P .. 'claimed:' .. worker, id, fence)
    redis.call('HSET', job, 'state', 'running', 'fence', fence, 'worker', worker)
    if redis.call('HGET', job, 'deliveries') == '0' then
      redis.call('HSET', job, 'deliveries', 1)
    end
    local f = redis.call('HMGET', job, 'attempt', 'deliveries', 'name', 'media_type', 'bytes', 'sha256', 'user_id',
      'request_id', 'trace_id', 'correlation_id', 'created_ms', 'queued_ms')
    remember(id, history, 'claimed', f[1], '', '', worker)
    emit(id, 'state', 'running')
    jobs[#jobs + 1] = {id, fence, f[1], f[2], f[3], f[4], f[5], f[6], f[7], f[8], f[9], f[10], f[11], f[12]}
  end
end

-- Wake-ups travel as a chain: whoever leaves work behind wakes the next; when nothing is left tokens are stale.
if redis.call('LLEN', P .. 'ready:high') + redis.call('LLEN', P .. 'ready:normal') == 0 then
  redis.call('DEL', P .. 'wake')
elseif redis.call('LLEN', P .. 'wake') == 0 then
  wake()
end
local first = redis.call('ZRANGE', P .. 'delayed', 0, 0, 'WITHSCORES')
return {first[2] and math.max(0, tonumber(first[2]) - NOW) or -1, jobs}
