-- Record a delivery. ARGV: id, token, its error or '' where it was made, ms until it is tried again or '' for never.
local id, token, problem, retry = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
if get(id, 'webhook_token') ~= token then return end
redis.call('HDEL', job_key(id), 'webhook_token', 'webhook_error')
if problem ~= '' then set(id, 'webhook_error', problem) end
if problem ~= '' and retry ~= '' then
  redis.call('ZADD', P .. 'webhooks', NOW + retry, id)
  keep(id, tonumber(retry))
else
  set(id, 'webhook_state', problem == '' and 'delivered' or 'failed')
  redis.call('ZREM', P .. 'webhooks', id)
  keep(id, 0)
end
touch(id)
