-- claim P | worker limit lease_ms history  ->  {ms until the next delay ends or -1, {job, job, ...}}
--   job = {id, fence, attempt, deliveries, created_ms, queued_ms, about, payload, big, cancel}; '' for none
--
-- Invariants: an id leaves a ready list only into `claimed:<worker>`, and the worker has a lease by then, so there
-- is no moment at which a job is neither waiting nor recoverable. A fence is higher than any before: by one, or
-- by reaching the clock. The clock matters when Redis lost its last second (appendfsync everysec) or all its data:
-- a counter alone would give the same fence to two workers.
-- Crash of the worker before the call: nothing. After it, or answer lost: the claim stands, and either the
-- lease runs out (take_over.lua) or the living worker finds a claim it does not know (renew.lua) and gives it back.
-- While the queue is paused nothing is given out, and leases go on.
local worker, limit, lease_ms, lines = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

promote()
redis.call('ZADD', P .. 'leases', digits(NOW + lease_ms), worker)

local ids = {}
if redis.call('EXISTS', P .. 'paused') == 0 then
  ids = redis.call('LPOP', P .. 'ready:high', limit) or {}
  if #ids < limit then
    for _, id in ipairs(redis.call('LPOP', P .. 'ready:normal', limit - #ids) or {}) do
      ids[#ids + 1] = id
    end
  end
end

local jobs, claims = {}, {}
if #ids > 0 then
  local fence = math.max(tonumber(redis.call('GET', P .. 'fence') or '0') + 1, NOW)
  for _, id in ipairs(ids) do
    local f = redis.call('HMGET', job_key(id), 'state', 'attempt', 'lost', 'created_ms', 'queued_ms', 'about',
      'payload', 'big', 'cancel', 'seq', 'history')
    -- Any other state means that the id is a stranger in this list; dropping it is the only safe thing to do.
    if f[1] == 'queued' or f[1] == 'retrying' then
      local given = digits(fence)
      fence = fence + 1
      local history, seq = remember(id, f[11], f[10], lines, 'claimed', f[2], '', '', worker)
      redis.call('HSET', job_key(id), 'state', 'running', 'fence', given, 'worker', worker, 'seq', seq,
        'history', history)
      claims[#claims + 1] = id
      claims[#claims + 1] = given
      jobs[#jobs + 1] = {id, given, f[2] or '1', tonumber(f[3] or '0') + 1, f[4], f[5] or f[4], f[6], f[7] or '',
        f[8] or '', f[9] or ''}
    end
  end
  redis.call('SET', P .. 'fence', digits(fence - 1))
  in_slices('HSET', P .. 'claimed:' .. worker, claims)
end

-- Wake-ups travel as a chain: whoever leaves work behind wakes the next; when nothing is left tokens are stale.
if redis.call('LLEN', P .. 'ready:high') + redis.call('LLEN', P .. 'ready:normal') == 0 then
  redis.call('DEL', P .. 'wake')
elseif #ids > 0 and redis.call('LLEN', P .. 'wake') == 0 then
  wake(1)
end
publish()
local first = redis.call('ZRANGE', P .. 'delayed', 0, 0, 'WITHSCORES')
return {first[2] and math.max(0, tonumber(first[2]) - NOW) or -1, jobs}
