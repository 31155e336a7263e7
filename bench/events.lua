-- wrk's requests: every event is new. Its messageId is unique, because repeats cost the proxy next
-- to nothing, and its user is one of many. BENCH_TRAFFIC names the Lua file of templates.

local traffic = dofile(os.getenv("BENCH_TRAFFIC"))
local templates, count = traffic.templates, #traffic.templates
local headers = {
  ["Authorization"] = traffic.authorization,
  ["Content-Type"] = "application/json",
}
local number = 0

local function event(parts, at)
  local t = templates[math.random(count)]
  number = number + 1
  parts[at] = t[1]
  parts[at + 1] = traffic.run .. string.format("%016x", number)
  parts[at + 2] = t[2]
  parts[at + 3] = string.format("load-%08d", math.random(0, traffic.users - 1))
  parts[at + 4] = t[3]
  return at + 5
end

function init(_)
  math.randomseed(os.time())
end

function request()
  local parts, at = {}, 1
  if traffic.batch == 1 then
    at = event(parts, at)
    return wrk.format("POST", "/v1/track", headers, table.concat(parts))
  end
  parts[1] = '{"batch":['
  at = 2
  for i = 1, traffic.batch do
    at = event(parts, at)
    parts[at] = i < traffic.batch and "," or traffic.tail
    at = at + 1
  end
  return wrk.format("POST", "/v1/batch", headers, table.concat(parts))
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    '\nJSON {"requests":%d,"seconds":%.6f,"p50_ms":%.3f,"p99_ms":%.3f,"max_ms":%.3f,"failed":%d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1000,
    latency:percentile(99) / 1000, latency.max / 1000,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout
  ))
end
