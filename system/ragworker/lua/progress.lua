-- progress P | id stage done total  ->  1, or 0 when the job is not running
--
-- Only the newest progress is kept: it is a level, not a log. Invariant: nothing follows a job's end, so a zombie's
-- last words are not heard after it.
local id = ARGV[1]
local job = job_key(id)
if redis.call('HGET', job, 'state') ~= 'running' then
  return 0
end
local seq = redis.call('HINCRBY', job, 'seq', 2)
redis.call('HSET', job, 'progress', table.concat({seq, NOW_TEXT, ARGV[2], ARGV[3], ARGV[4]}, '|'))
redis.call('PUBLISH', P .. 'events', id)
return 1
