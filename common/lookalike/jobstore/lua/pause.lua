-- Let a job stand still, or go on. ARGV: id, pause (1) or resume (0). A search, and what is not live, stays as it is.
local id, pause = ARGV[2], ARGV[3] == '1'
local state = get(id, 'state')
if not state or is_final(state) or get(id, 'kind') == 'search' or get(id, 'cancel') == '1' then return end
if pause == (get(id, 'paused') == '1') then return end
if pause then
  set(id, 'paused', '1')
  leave_ring(id, get(id, 'model'))
else
  redis.call('HDEL', job_key(id), 'paused')
  if get(id, 'plan') == 'waiting' or redis.call('EXISTS', job_key(id) .. ':waiting') == 1 then take_turn(id) end
end
touch(id)
