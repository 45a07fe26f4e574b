-- Claim waiting searches. ARGV: limit of queries, token. Returns a list of {id, attempts, request}.
local limit, token = tonumber(ARGV[2]), ARGV[3]
local claimed, queries = {}, 0
while queries < limit do
  local id = redis.call('LPOP', P .. 'search')
  if not id then break end
  local state = get(id, 'state')
  if state and not is_final(state) then
    local count = tonumber(get(id, 'total'))
    if #claimed > 0 and queries + count > limit then
      redis.call('LPUSH', P .. 'search', id)
      break
    end
    start(id)
    set(id, 'token', token)
    lease('search', id, nil, LIMITS.search_lease)
    queries = queries + count
    claimed[#claimed + 1] = { id, redis.call('HINCRBY', job_key(id), 'attempts', 1), get(id, 'request') }
  end
end
return claimed
