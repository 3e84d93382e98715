-- SPDX-License-Identifier: Apache-2.0
-- Shared by the request streams beside it: options, samplers, and results as JSON.
--
-- Arguments after wrk's `--` are name=value words:
--   seed=N     of the random numbers (each thread adds its number); default 1
--   json=FILE  write the results there as well
local M = { options = {} }

local threads = {}

-- Global, so that wrk calls it for each thread and done() can ask the threads back.
function setup(thread)
  thread:set("thread_number", #threads)
  table.insert(threads, thread)
end

function M.parse(args, defaults)
  local options = { seed = "1" }
  for name, value in pairs(defaults) do
    options[name] = value
  end
  for _, word in ipairs(args) do
    local name, value = word:match("^([%w_]+)=(.*)$")
    if not name or (options[name] == nil and name ~= "json") then
      error("unknown argument '" .. word .. "'")
    end
    options[name] = value
  end
  json_file = options.json
  math.randomseed(tonumber(options.seed) + (thread_number or 0))
  return options
end

-- Cumulative distribution of weights, for M.draw.
function M.distribution(weights)
  local cdf, sum = {}, 0
  for i, weight in ipairs(weights) do
    sum = sum + weight
    cdf[i] = sum
  end
  for i = 1, #cdf do
    cdf[i] = cdf[i] / sum
  end
  return cdf
end

-- Weight of rank r (1 first) is 1 / r^alpha.
function M.zipf(count, alpha)
  local weights = {}
  for rank = 1, count do
    weights[rank] = rank ^ -alpha
  end
  return M.distribution(weights)
end

-- A random index (1 first).
function M.draw(cdf)
  local coin = math.random()
  local low, high = 1, #cdf
  while low < high do
    local middle = math.floor((low + high) / 2)
    if cdf[middle] > coin then
      high = middle
    else
      low = middle + 1
    end
  end
  return low
end

-- The bytes of a GET for this path, built once.
local requests = {}
function M.get(path)
  local request = requests[path]
  if not request then
    request = wrk.format("GET", path)
    requests[path] = request
  end
  return request
end

function done(summary, latency)
  local file = #threads > 0 and threads[1]:get("json_file")
  if not file then
    return
  end
  local out = assert(io.open(file, "w"))
  local errors = summary.errors
  out:write(string.format(
    '{"requests":%d,"bytes":%d,"seconds":%.6f,' ..
    '"errors":{"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d},' ..
    '"latency_us":{"p50":%d,"p90":%d,"p99":%d,"p999":%d,"max":%d}}\n',
    summary.requests, summary.bytes, summary.duration / 1e6,
    errors.connect, errors.read, errors.write, errors.status, errors.timeout,
    latency:percentile(50), latency:percentile(90), latency:percentile(99),
    latency:percentile(99.9), latency.max))
  out:close()
end

return M
