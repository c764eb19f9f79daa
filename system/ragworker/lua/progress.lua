-- progress P | id stage done total  ->  1, or 0 when the job is not running
--
-- Invariant: nothing follows a job's `end` event, so a zombie's last words are not heard after it.
local id = ARGV[1]
if redis.call('HGET', job_key(id), 'state') ~= 'running' then
  return 0
end
emit(id, 'progress', 'running', ARGV[2], ARGV[3], ARGV[4])
return 1
