-- progress P | id stage done total  ->  1, or 0 when the job is not running
--
-- Only the newest progress is kept: it is a level, not a log, and does not fall within a stage. Invariant: nothing follows a job's end, so a zombie's
-- last words are not heard after it.
local id = ARGV[1]
local job = job_key(id)
local f = redis.call('HMGET', job, 'state', 'history', 'progress')
if f[1] ~= 'running' then
  return 0
end
-- Requests of one job travel side by side, so a smaller figure may arrive after a larger one of the same stage.
local _, _, stage, done = string.find(f[3] or '', '^[^|]*|[^|]*|([^|]*)|(%d+)|')
if stage == ARGV[2] and tonumber(done) > tonumber(ARGV[3]) then
  return 1
end
redis.call('HSET', job, 'progress', table.concat({next_number(f[2], f[3]), NOW_TEXT, ARGV[2], ARGV[3], ARGV[4]}, '|'))
redis.call('PUBLISH', P .. 'events', id)
return 1
