-- Hand a step in. ARGV: id, token, counts as JSON, total or '', checkpoint as JSON, result JSON or '', failure lines...
-- Returns refused, accepted, finished or plan_due.
local id, token, counts, total, checkpoint, result = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
if not holds('plan', id, nil, token) then return 'refused' end
redis.call('HDEL', job_key(id), 'token')
release('plan', id)
add_failures(id, 8)
if total ~= '' then
  set(id, 'total', total)
  touch(id)
end
count(id, counts)
if result ~= '' then
  set(id, 'result', result)
  finish(id, 'succeeded')
  return 'finished'
end
if get(id, 'cancel') == '1' then
  finish(id, 'cancelled')
  return 'finished'
end
set(id, 'plan', 'waiting', 'attempts', 0, 'cursor', checkpoint)
return take_turn(id) and 'plan_due' or 'accepted'
