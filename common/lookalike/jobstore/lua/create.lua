-- Write a queued job. ARGV: id, kind, request, fields as JSON, idempotency key or '', digest.
-- Returns {code, id}: created, existing, conflict, full. Where it was created just now, also the time in milliseconds and
-- how many come before it, so that nobody need read what was written this moment.
local id, kind, request, fields, idempotency, digest = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]

-- The first try may have reached us although its answer did not reach the client.
if redis.call('EXISTS', job_key(id)) == 1 then return { 'created', id } end

local idempotency_key = P .. 'idempotency:' .. idempotency
if idempotency ~= '' then
  local known = redis.call('HMGET', idempotency_key, 'id', 'digest')
  if known[1] then return { known[2] == digest and 'existing' or 'conflict', known[1] } end
end
if redis.call('SCARD', P .. 'live:' .. pool(kind)) >= LIMITS.max_waiting_jobs then return { 'full', id } end
local bytes = P .. 'live_bytes:' .. pool(kind)
if tonumber(redis.call('GET', bytes) or 0) + #request > LIMITS.max_waiting_bytes then return { 'full', id } end
redis.call('INCRBY', bytes, #request)

set(id, 'kind', kind, 'state', 'queued', 'created_at', NOW, 'request', request, 'cancel', '0', 'version', 1, 'attempts', 0)
for name, value in pairs(cjson.decode(fields)) do set(id, name, value) end
redis.call('SADD', P .. 'live:' .. pool(kind), id)
redis.call('ZADD', P .. 'jobs', 0, id)
redis.call('PERSIST', P .. 'jobs')
if idempotency ~= '' then
  redis.call('HSET', idempotency_key, 'id', id, 'digest', digest)
  set(id, 'idempotency', idempotency)
end
if kind == 'search' then
  join_searches(id, 'RPUSH')
  return { 'created', id, NOW, redis.call('LLEN', line('search', get(id, 'model'))) - 1 }
end
set(id, 'plan', 'waiting', 'phase', 'list', 'listed', 0, 'next_chunk', 0)
take_turn(id)
return { 'created', id, NOW, redis.call('ZRANK', line('ring', get(id, 'model')), id) }
