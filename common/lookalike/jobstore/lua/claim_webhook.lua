-- Claim a delivery that is due. ARGV: token. Returns false or {id, attempts, url}.
while true do
  local id = redis.call('ZRANGE', P .. 'webhooks', '-inf', NOW, 'BYSCORE', 'LIMIT', 0, 1)[1]
  if not id then return false end
  local url = get(id, 'webhook')
  if url then
    redis.call('ZADD', P .. 'webhooks', NOW + LIMITS.lease, id)
    set(id, 'webhook_token', ARGV[2])
    local attempts = redis.call('HINCRBY', job_key(id), 'webhook_attempts', 1)
    keep(id, LIMITS.lease)
    touch(id)
    return { id, attempts, url }
  end
  redis.call('ZREM', P .. 'webhooks', id)
end
