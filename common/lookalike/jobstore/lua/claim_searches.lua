-- Claim waiting searches. ARGV: limit of queries, token. Returns a list of {id, attempts, request}.
-- One that was tried before is served alone: if it is what kills or holds up workers, it takes no other with it.
local limit, token = tonumber(ARGV[2]), ARGV[3]
local claimed, queries = {}, 0
while queries < limit do
  local id = redis.call('LPOP', P .. 'search')
  if not id then break end
  local state = get(id, 'state')
  if state and not is_final(state) then
    local count = tonumber(get(id, 'total'))
    local tried = tonumber(get(id, 'attempts')) > 0
    if #claimed > 0 and (tried or queries + count > limit) then
      redis.call('LPUSH', P .. 'search', id)
      break
    end
    start(id)
    set(id, 'token', token)
    lease('search', id, nil, LIMITS.search_lease)
    queries = queries + count
    claimed[#claimed + 1] = { id, redis.call('HINCRBY', job_key(id), 'attempts', 1), get(id, 'request') }
    if tried then break end
  end
end
return claimed
