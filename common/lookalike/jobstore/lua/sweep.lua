-- Put back what lapsed or is due, forget expired jobs. ARGV: the caller's model or ''. Returns {lapsed, waiting ingest
-- work, waiting searches}, of the work that a worker with this model can do.
local lapsed = 0
for _, zset in ipairs({ 'leases', 'delayed' }) do
  for _, entry in ipairs(redis.call('ZRANGE', P .. zset, '-inf', NOW, 'BYSCORE', 'LIMIT', 0, 1000)) do
    redis.call('ZREM', P .. zset, entry)
    local what, id, number = string.match(entry, '^(%a+)|([^|]*)|(.*)$')
    put_back(what, id, number)
    if zset == 'leases' then lapsed = lapsed + 1 end
  end
end
-- The oldest expire first; a page of nothing but expired ones has more behind it.
local rounds, gone = 0, 0
repeat
  gone = 0
  for _, id in ipairs(redis.call('ZRANGE', P .. 'jobs', 0, 999)) do
    if redis.call('EXISTS', job_key(id)) == 0 then gone = gone + redis.call('ZREM', P .. 'jobs', id) end
  end
  rounds = rounds + 1
until gone < 1000 or rounds == 10
local waiting, searches = 0, 0
for _, model in ipairs(ARGV[2] == '' and { false } or { false, ARGV[2] }) do
  for _, id in ipairs(redis.call('ZRANGE', line('ring', model), 0, -1)) do
    waiting = waiting + redis.call('ZCARD', job_key(id) .. ':waiting')
    if get(id, 'plan') == 'waiting' then waiting = waiting + 1 end
  end
  searches = searches + redis.call('LLEN', line('search', model))
end
return { lapsed, waiting, searches }
