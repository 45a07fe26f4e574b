-- Give a plan back. ARGV: id, token, finished (1 or 0). Returns refused, accepted, finished or plan_due.
local id, token, finished = ARGV[2], ARGV[3], ARGV[4]
if not holds('plan', id, nil, token) then return 'refused' end
redis.call('HDEL', job_key(id), 'token')
release('plan', id)
if finished == '1' then
  set(id, 'plan', 'done', 'total', get(id, 'listed'))
elseif get(id, 'cancel') == '1' then
  set(id, 'plan', 'done')
else
  set(id, 'plan', 'idle', 'attempts', 0)
  return plan_if_due(id) and 'plan_due' or 'accepted'
end
return finish_if_complete(id) and 'finished' or 'accepted'
