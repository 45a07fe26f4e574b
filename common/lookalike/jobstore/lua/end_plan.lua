-- Give a plan back. ARGV: id, token, finished (1 or 0). Returns refused, accepted, finished or plan_due.
local id, token, finished = ARGV[2], ARGV[3], ARGV[4]
if not holds('plan', id, nil, token) then return 'refused' end
redis.call('HDEL', job_key(id), 'token')
release('plan', id)
if finished == '1' then
  set(id, 'total', get(id, 'listed'))
  count(id, '{}')
  touch(id)
end
if get(id, 'cancel') == '1' then
  set(id, 'plan', 'done')
elseif finished ~= '1' then
  set(id, 'plan', 'idle', 'attempts', 0)
elseif get(id, 'sync') and get(id, 'phase') == 'list' then
  set(id, 'plan', 'between', 'phase', 'prune', 'attempts', 0)
  redis.call('HDEL', job_key(id), 'cursor')
else
  set(id, 'plan', 'done')
end
if finish_if_complete(id) then return 'finished' end
return plan_if_due(id) and 'plan_due' or 'accepted'
