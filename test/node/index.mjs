// The vendor's Node SDK against the simulator: an oracle for the signatures
// the simulator accepts and for the shape of what it says.
//
//   npm ci && npm test        builds and starts the simulator, exits non-zero if anything is wrong
//   npm run record            records the SDK's requests as fixtures of internal/simulator

import assert from "node:assert/strict"
import { execFileSync, spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import http from "node:http"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { setTimeout as pause } from "node:timers/promises"
import { fileURLToPath } from "node:url"

const require = createRequire(import.meta.url)
const { teo } = require("tencentcloud-sdk-nodejs-teo")
const root = fileURLToPath(new URL("../..", import.meta.url))
const fixtures = join(root, "internal/simulator/testdata/node-sdk.json")

// The SDK takes the service to sign for from the first label of the host, so
// it calls the real host's name, and the agent leads that to the simulator.
const host = "teo.intl.tencentcloudapi.com"

function client(port, secretId, secretKey, token) {
  return new teo.v20220901.Client({
    credential: { secretId, secretKey, token },
    profile: {
      language: "en-US",
      httpProfile: {
        endpoint: `${host}:${port}`,
        protocol: "http://",
        agent: new http.Agent({ lookup: (_name, options, done) =>
          options.all ? done(null, [{ address: "127.0.0.1", family: 4 }]) : done(null, "127.0.0.1", 4) }),
      },
    },
  })
}

// refusal returns the code with which a call fails.
async function refusal(promise) {
  const error = await promise.then(() => assert.fail("the call was not refused"), (e) => e)
  return error.code
}

const iso = (time) => time.toISOString().replace(/\.\d+Z$/, "Z")

async function test() {
  const folder = mkdtempSync(join(tmpdir(), "simulator-"))
  const binary = join(folder, "simulator")
  execFileSync("go", ["build", "-o", binary, "./cmd/simulator"], { cwd: root, stdio: "inherit" })
  const simulator = spawn(binary, ["--listen", "127.0.0.1:0", "--job-duration", "300ms"], { stdio: ["ignore", "pipe", "inherit"] })
  try {
    const [greeting] = await once(createInterface({ input: simulator.stdout }), "line")
    const port = Number(/http:\/\/127\.0\.0\.1:(\d+)/.exec(greeting)[1])
    await rehearse(port)
  } finally {
    simulator.kill("SIGTERM")
    const [code] = simulator.exitCode === null ? await once(simulator, "exit") : [simulator.exitCode]
    rmSync(folder, { recursive: true })
    assert.equal(code, 0, "the simulator's exit code after SIGTERM")
  }
}

async function rehearse(port) {
  const demo = client(port, "AKIDdemo", "demo-secret-key")
  const zone = { ZoneId: "zone-2x9examplea" }
  const urls = ["good", "broken/x", "missing/x", "refused/x", "caf%C3%A9?a=1&b=<2>"].map((p) => `https://www.example.com/${p}`)
  const started = new Date(Date.now() - 2000)

  const quota = async () => (await demo.DescribeContentQuota(zone)).PrefetchQuota
  assert.deepEqual(await quota(), [{ Type: "prefetch_url", Batch: 2000, Daily: 10000, DailyAvailable: 10000 }])

  const created = await demo.CreatePrefetchTask({ ...zone, Targets: urls, Mode: "edge", Headers: [{ Name: "Accept-Encoding", Value: "br" }] })
  assert.match(created.JobId, /^[a-z0-9]{14}$/)
  assert.match(created.RequestId, /^[0-9a-f-]{36}$/)
  assert.deepEqual(created.FailedList.map((f) => f.Targets), [[urls[3]]])
  assert.equal((await quota())[0].DailyAvailable, 10000, "edge mode has a quota of its own")

  const byJob = { ...zone, Filters: [{ Name: "job-id", Values: [created.JobId] }] }
  const byTime = { ...zone, StartTime: iso(started), EndTime: iso(new Date(Date.now() + 2000)), Limit: 1000 }
  const deadline = Date.now() + 10000
  let listed
  do {
    await pause(100)
    listed = await demo.DescribePrefetchTasks(byJob)
    assert.ok(Date.now() < deadline, "the job has not finished after 10 s")
  } while (listed.Tasks.some((t) => t.Status === "processing"))
  assert.equal(listed.TotalCount, 4)
  assert.deepEqual(Object.fromEntries(listed.Tasks.map((t) => [t.Target, `${t.Status} ${t.FailType}`])), {
    [urls[0]]: "success ",
    [urls[1]]: "failed originPullFailed",
    [urls[2]]: "invalid ",
    [urls[4]]: "success ",
  })
  assert.ok(listed.Tasks.every((t) => t.Type === "prefetch_url" && /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/.test(t.CreateTime)))
  assert.deepEqual((await demo.DescribePrefetchTasks(byTime)).Tasks, listed.Tasks)

  const plain = { ...zone, Targets: ["https://www.example.com/plain"] }
  await demo.CreatePrefetchTask(plain)
  assert.equal((await quota())[0].DailyAvailable, 9999)

  const purge = { ...zone, Type: "purge_url", Targets: [urls[0], urls[4]] }
  const purged = await demo.CreatePurgeTask(purge)
  await demo.CreatePurgeTask({ ...zone, Type: "purge_cache_tag", Targets: ["tag"], CacheTag: { Domains: ["www.example.com"] } })
  do {
    await pause(100)
    listed = await demo.DescribePurgeTasks({ ...zone, Filters: [{ Name: "job-id", Values: [purged.JobId] }] })
    assert.ok(Date.now() < deadline + 10000, "the purge has not finished after 10 s")
  } while (listed.Tasks.some((t) => t.Status === "processing"))
  assert.deepEqual(listed.Tasks.map((t) => [t.Target, t.Type, t.Method, t.Status]), purge.Targets.map((url) => [url, "purge_url", "delete", "success"]))
  const tags = { ...byTime, EndTime: iso(new Date(Date.now() + 2000)), Filters: [{ Name: "type", Values: ["purge_cache_tag"] }] }
  assert.equal((await demo.DescribePurgeTasks(tags)).TotalCount, 1)
  assert.deepEqual((await demo.DescribeContentQuota(zone)).PurgeQuota[0], { Type: "purge_url", Batch: 2000, Daily: 10000, DailyAvailable: 9998 })
  assert.equal(await refusal(demo.CreatePurgeTask({ ...purge, Mode: "default" })), "UnknownParameter")
  assert.equal(await refusal(demo.CreatePurgeTask({ ...zone, Type: "purge_host", Targets: ["https://www.example.com"] })), "InvalidParameter.Target")

  assert.equal(await refusal(client(port, "AKIDdemo", "wrong").CreatePrefetchTask(plain)), "AuthFailure.SignatureFailure")
  assert.equal(await refusal(client(port, "AKIDnobody", "wrong").CreatePrefetchTask(plain)), "AuthFailure.SecretIdNotFound")
  assert.equal(await refusal(client(port, "AKIDtenant", "tenant-secret-key").CreatePrefetchTask(plain)), "InvalidParameter.ZoneNotFound")
  assert.equal(await refusal(demo.CreatePrefetchTask({ ...plain, Invented: 1 })), "UnknownParameter")
  assert.equal(await refusal(demo.CreatePrefetchTask({ ZoneId: "zone-3smallquota0", Targets: [1, 2, 3, 4].map((n) => `http://small.example.net/${n}`) })), "LimitExceeded.DailyQuota")

  const ledger = await (await fetch(`http://127.0.0.1:${port}/_simulator/ledger`)).json()
  assert.deepEqual(ledger.map((e) => [e.type, e.mode ?? e.method, e.accepted.length]), [
    ["prefetch_url", "edge", 4], ["prefetch_url", "default", 1], ["purge_url", "delete", 2], ["purge_cache_tag", "delete", 1],
  ])
}

// record keeps what the SDK sends, byte for byte, and answers something.
async function record() {
  const requests = []
  const server = http.createServer(async (req, res) => {
    const chunks = []
    for await (const chunk of req) chunks.push(chunk)
    const headers = {}
    for (let i = 0; i < req.rawHeaders.length; i += 2) headers[req.rawHeaders[i]] = req.rawHeaders[i + 1]
    requests.push({ headers, body: Buffer.concat(chunks).toString() })
    res.setHeader("Content-Type", "application/json").end('{"Response":{"RequestId":"recorded"}}')
  })
  await once(server.listen(0, "127.0.0.1"), "listening")
  const port = server.address().port
  const sdk = client(port, "AKIDdemo", "demo-secret-key")
  const temporary = client(port, "AKIDtemporary", "temporary-secret-key", "a-session-token")
  const zone = { ZoneId: "zone-ajj243dwrew" }
  await sdk.CreatePrefetchTask({ ...zone, Targets: ["http://www.qq.com/a.txt", "http://www.qq.com/b.txt?x=1&y=<2>"], EncodeUrl: true })
  await sdk.CreatePrefetchTask({ ...zone, Targets: ["http://www.qq.com/图.png"], Headers: [{ Name: "Accept", Value: "image/*" }] })
  await sdk.DescribePrefetchTasks({ ...zone, Filters: [{ Name: "job-id", Values: ["1379afjk91u32h"] }], Limit: 1000 })
  await sdk.DescribeContentQuota(zone)
  await temporary.DescribeContentQuota(zone)
  server.close()
  server.closeAllConnections()
  writeFileSync(fixtures, JSON.stringify(requests, null, 2) + "\n")
  console.log(`recorded ${requests.length} requests in ${fixtures}`)
}

await (process.argv.includes("--record") ? record() : test())
console.log("ok")
