-- submit P | for each job: id priority about payload upload  ->  {'' or state, ...} one per job: '' = accepted now
--
-- id        made from queue, user and idempotency key: the same work has the same id (spec A4)
-- priority  high|normal          about   JSON that describes the job, kept as it is
-- payload   the document; or its length, when it was put into the key `upload` (with an expiry) because of its size
--
-- Invariant: one idempotency key is one job as long as its record lives. The record, the document, the place in the
-- ready list and the counter appear together or not at all; when the caller gets its answer all are there. Crash
-- before the call: no job, and nobody was told of one. Crash of the caller after it, or a lost answer: the job
-- runs, and the same submit sent again is told its state. The same job twice in one call is one job.
-- An upload may be gone (expired, or Redis lost its last second), lack a piece, or have one twice (an answer was lost).
-- Redis does not undo what a script did before it failed, so this is looked at before anything is written.
for i = 1, #ARGV, 5 do
  if ARGV[i + 4] ~= '' and redis.call('STRLEN', ARGV[i + 4]) ~= tonumber(ARGV[i + 3]) then
    return redis.error_reply('UPLOAD is not whole; submit again')
  end
end
local answers = {}
local ready = {high = {}, normal = {}}
for i = 1, #ARGV, 5 do
  local id, upload = ARGV[i], ARGV[i + 4]
  local job = job_key(id)
  local state = redis.call('HGET', job, 'state')
  if not state then
    local priority = ARGV[i + 1]
    redis.call('HSET', job, 'state', 'queued', 'priority', priority, 'about', ARGV[i + 2], 'created_ms', NOW_TEXT,
      'payload', upload == '' and ARGV[i + 3] or '')
    if upload ~= '' then
      redis.call('RENAME', upload, P .. 'payload:' .. id)
      redis.call('PERSIST', P .. 'payload:' .. id)
      redis.call('HSET', job, 'big', '1')
    end
    table.insert(ready[priority], id)
    news[#news + 1] = id
  elseif upload ~= '' then
    redis.call('UNLINK', upload)
  end
  answers[#answers + 1] = state or ''
end
-- A record that vanished otherwise than by retirement may have left its entry: it must not end the new life.
in_slices('ZREM', P .. 'finished', news)
in_slices('RPUSH', P .. 'ready:high', ready.high)
in_slices('RPUSH', P .. 'ready:normal', ready.normal)
local accepted = #ready.high + #ready.normal
if accepted > 0 then
  count('submitted', accepted)
  hand_out()
end
publish()
return answers
