-- Claim waiting searches. ARGV: limit of queries, token, the caller's model or ''. Returns a list of {id, attempts, request}.
-- One that was tried before is served alone: if it is what kills or holds up workers, it takes no other with it.
local limit, token, own = tonumber(ARGV[2]), ARGV[3], ARGV[4]
local lists = own == '' and { false } or { false, own }

-- The search that has waited longest, of those that the caller can answer, and the model whose list it is in. What is
-- over by now is dropped on the way.
local function oldest()
  local found, since, of = nil, nil, nil
  for _, model in ipairs(lists) do
    local id = redis.call('LINDEX', line('search', model), 0)
    while id and is_final(get(id, 'state') or 'expired') do
      leave_searches(id, model)
      id = redis.call('LINDEX', line('search', model), 0)
    end
    local created = id and tonumber(get(id, 'created_at'))
    if id and (not found or created < since) then found, since, of = id, created, model end
  end
  return found, of
end

local claimed, queries = {}, 0
while queries < limit do
  local id, model = oldest()
  if not id then break end
  local count = tonumber(get(id, 'total'))
  local tried = tonumber(get(id, 'attempts')) > 0
  if #claimed > 0 and (tried or queries + count > limit) then break end
  leave_searches(id, model)
  start(id)
  set(id, 'token', token)
  lease('search', id, nil, LIMITS.search_lease)
  queries = queries + count
  claimed[#claimed + 1] = { id, redis.call('HINCRBY', job_key(id), 'attempts', 1), get(id, 'request') }
  if tried then break end
end
return claimed
