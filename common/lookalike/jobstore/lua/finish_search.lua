-- Make a search final. ARGV: id, token, field (result or error), its JSON, failed queries. Returns 1, or 0 where the claim lapsed.
local id, token, field, value, failed = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
if not holds('search', id, nil, token) then return 0 end
if get(id, 'cancel') == '1' then
  finish(id, 'cancelled')
  return 1
end
set(id, field, value, 'failed', failed)
if field == 'result' then set(id, 'answered', get(id, 'total')) end
finish(id, field == 'result' and 'succeeded' or 'failed')
return 1
