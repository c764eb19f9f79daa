-- claim P | worker limit lease_ms  ->  {ms until the next delay ends or -1, {row, row, ...}}   rows: see job.lua
--
-- What was handed to the worker while it was idle comes first. A worker that gets nothing is idle from now on: the
-- next job that becomes ready is claimed for it by whoever makes it ready, and put into its inbox (`hand_out`).
-- Invariant: the worker has a lease before it has a claim, so there is no moment at which a job is neither waiting nor
-- recoverable. Crash of the worker before the call: nothing. After it, or answer lost: the claims stand, and either
-- the lease runs out (take_over.lua) or the living worker finds claims it does not know (renew.lua) and gives them
-- back. While the queue is paused nothing is given out, and leases go on.
local worker, limit, lease_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

promote()
redis.call('ZADD', P .. 'leases', digits(NOW + lease_ms), worker)
local rows = redis.call('LRANGE', P .. 'inbox:' .. worker, 0, -1)
if #rows > 0 then
  redis.call('DEL', P .. 'inbox:' .. worker)
end
if #rows < limit then
  for _, row in ipairs(claim_for(worker, limit - #rows)) do
    rows[#rows + 1] = row
  end
end
if #rows == 0 then
  redis.call('ZADD', P .. 'idle', limit, worker)
else
  redis.call('ZREM', P .. 'idle', worker)
end
hand_out()
publish()
local first = redis.call('ZRANGE', P .. 'delayed', 0, 0, 'WITHSCORES')
return {first[2] and math.max(0, tonumber(first[2]) - NOW) or -1, rows}
