-- End a job as failed. ARGV: id, error JSON.
local id, problem = ARGV[2], ARGV[3]
local state = get(id, 'state')
if not state or is_final(state) then return 0 end
set(id, 'error', problem)
redis.call('LREM', P .. 'search', 1, id)
finish(id, 'failed')
return 1
