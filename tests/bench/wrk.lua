-- Sends the requests of a file one after the other, each of the same length; never the same twice.
-- wrk calls `request` once before the load to see whether it works, so request 0 is not sent.
local threads = {}
function setup(thread) table.insert(threads, thread) end
function init(args)
  local file = io.open(args[1], "rb")
  data = file:read("*a")
  file:close()
  size = tonumber(args[2])
  issued = 0
end
function request()
  local at = issued * size
  issued = issued + 1
  return data:sub(at + 1, at + size)
end
function done(summary, latency, requests)
  local e = summary.errors
  print(string.format("result %d %d %d %d %d", threads[1]:get("issued"), summary.requests, summary.duration,
    e.status, e.connect + e.read + e.write + e.timeout))
end
