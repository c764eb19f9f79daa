-- rolled_back P | id by  ->  1, or 0 when the job is not done
--
-- Called after the effect of a job was undone in SQL (store.py), which is the truth; this only tells it. Invariant:
-- a job goes from done to cancelled at most once. Crash before the call, or answer lost: the rollback is asked for
-- again, SQL says that it is undone already, and this call is made again.
local id, by = ARGV[1], ARGV[2]
local f = redis.call('HMGET', job_key(id), 'state', 'attempt', 'progress', 'history')
if f[1] ~= 'done' then
  return 0
end
redis.call('HSET', job_key(id), 'state', 'cancelled',
  'history', remember(id, f[4], f[3], 'rolled_back', f[2], '', '', by))
publish()
return 1
