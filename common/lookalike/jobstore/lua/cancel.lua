-- Ask a job to stop. ARGV: id. Returns 1, or 0 where there is no such job.
local id = ARGV[2]
local state = get(id, 'state')
if not state then return 0 end
if is_final(state) or get(id, 'cancel') == '1' then return 1 end
set(id, 'cancel', '1')
redis.call('HDEL', job_key(id), 'paused')
touch(id)
if get(id, 'kind') == 'search' then
  if not get(id, 'token') then
    leave_searches(id, get(id, 'model'))
    finish(id, 'cancelled')
  end
  return 1
end
leave_ring(id, get(id, 'model'))
for _, number in ipairs(redis.call('SMEMBERS', job_key(id) .. ':chunks')) do
  if redis.call('HEXISTS', chunk_key(id, number), 'token') == 0 then drop_chunk(id, number) end
end
if get(id, 'plan') ~= 'leased' then
  set(id, 'plan', 'done')
  release('plan', id)
end
finish_if_complete(id)
return 1
