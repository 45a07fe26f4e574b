-- Return work undone. ARGV: what, id, number or '', token, delay in ms, burn (1 or 0), what the job waits for or '',
-- the model that its workers must have from now on or ''.
local what, id, number, token, delay, burn, waiting_for, model =
  ARGV[2], ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6]), ARGV[7], ARGV[8], ARGV[9]
if not holds(what, id, number, token) then return 0 end
local key = what == 'chunk' and chunk_key(id, number) or job_key(id)
if burn == '0' then redis.call('HINCRBY', key, 'attempts', -1) end
redis.call('HDEL', key, 'token')
release(what, id, number)
if waiting_for ~= '' and get(id, 'waiting_for') ~= waiting_for then
  set(id, 'waiting_for', waiting_for)
  touch(id)
end
if model ~= '' and get(id, 'model') ~= model then
  local before = get(id, 'model')
  local stood = redis.call('ZSCORE', line('ring', before), id)
  leave_ring(id, before)
  -- Its pass was one of the ring it leaves.
  redis.call('HDEL', job_key(id), 'pass')
  set(id, 'model', model)
  if stood then take_turn(id) end
  touch(id)
end
if delay > 0 and get(id, 'cancel') ~= '1' then
  if what == 'plan' then set(id, 'plan', 'delayed') end
  redis.call('ZADD', P .. 'delayed', NOW + delay, member(what, id, number))
else
  put_back(what, id, number)
end
return 1
