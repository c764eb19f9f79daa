-- renew P | worker lease_ms flush n fact value ... (n pairs) counter amount ...  ->  {id, fence, id, fence, ...}
--
-- n       number of fact pairs; what follows them are counters to add to `stats`
-- flush   number of this batch of counters, rising with each batch of one worker
--
-- Invariants: the lease ends lease_ms after this moment of Redis, whatever the worker's clock says. A batch of
-- counters is added once, even when its answer was lost and it came again: its number is kept beside the facts.
-- The answer is what the worker holds. What it thinks it holds and is not listed was taken over: drop it. What is
-- listed and unknown to it is a claim whose answer was lost: give it back.
-- Crash of the worker after this call: the lease runs out; facts vanish soon after, so gauges do not show the dead.
local worker, lease_ms, flush, pairs_count = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local facts = P .. 'workers:' .. worker

redis.call('ZADD', P .. 'leases', digits(NOW + lease_ms), worker)
local counters = 5 + 2 * pairs_count
for i = 5, counters - 1, 2 do
  redis.call('HSET', facts, ARGV[i], ARGV[i + 1])
end
if flush > tonumber(redis.call('HGET', facts, 'flush') or '0') then
  redis.call('HSET', facts, 'flush', digits(flush))
  for i = counters, #ARGV, 2 do
    redis.call('HINCRBYFLOAT', P .. 'stats', ARGV[i], ARGV[i + 1])
  end
end
redis.call('HSET', facts, 'seen_ms', digits(NOW))
redis.call('PEXPIRE', facts, digits(lease_ms * 10))
return redis.call('HGETALL', P .. 'claimed:' .. worker)
