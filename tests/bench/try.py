import asyncio, sys, time, uvloop, tempfile
from pathlib import Path
from tests.bench.machine import Cores
from tests.bench.homes import Homes
from tests.bench.load import Client
from tests.bench.subject import bridge

T = {}


def threads(pid, n, show=True):
    import os

    for t in os.listdir(f"/proc/{pid}/task"):
        f = open(f"/proc/{pid}/task/{t}/stat").read()
        name = f[f.index("(") + 1 : f.rindex(")")]
        x = f.rpartition(")")[2].split()
        u, k = int(x[11]), int(x[12])
        o = T.get(t, (0, 0))
        T[t] = (u, k)
        if show and u + k - sum(o) > 3:
            print("  thread", t, name, "user us/msg %.0f sys %.0f" % ((u - o[0]) * 1e4 / n, (k - o[1]) * 1e4 / n))


async def main():
    rate = float(sys.argv[1])
    seconds = float(sys.argv[2])
    rooms = sys.argv[3]
    how = sys.argv[4]
    cores = Cores.found()
    cores.keep_here()
    t = time.time()
    homes = Homes(1000)
    print("homes", time.time() - t, len(homes.devices), len(homes.vehicles))
    with tempfile.TemporaryDirectory(dir="/work/main/bench-results") as f, bridge(Path(f), cores, rooms) as b:
        print("pid", b.process.popen.pid, flush=True)
        c = await Client.connected(b.port, 64)
        it = homes.firsts()
        await c.flood(lambda: next(it, None))
        if "worker" in rooms:
            h = await b.idle()
            print(h["ledger"], h["calls"])
        q0 = (await b.health())["calls"]["queued"]
        threads(b.process.popen.pid, 1, False)
        w = b.process.watch()
        s0 = c.tally.sent
        own = time.process_time()
        task = asyncio.create_task(c.offer(rate, seconds, getattr(homes, how)))
        t0 = time.perf_counter()
        while not task.done():
            await asyncio.sleep(2)
            h = await b.health()
            print(
                "%.1f" % (time.perf_counter() - t0),
                h["ledger"]["pending"],
                c.tally.sent - h["ledger"]["accepted"],
                "cpu %.2f" % w.stop().share,
                "foreign %.2f" % w.stop().foreign,
                flush=True,
            )
        print("follows", await task)
        threads(b.process.popen.pid, c.tally.sent - s0)
        u = w.stop()
        n = c.tally.sent - s0
        print("sent", n, "wall", u.wall_s, "cpu/msg us", u.us_per(n), "own", (time.process_time() - own) * 1e6 / n)
        h = await b.idle() if "worker" in rooms else None
        u = w.stop()
        print("incl drain cpu/msg us", u.us_per(n), "rate", n / u.wall_s, "peak", b.process.peak_mb)
        h = await b.audit(c.tally)
        print(
            h["ledger"],
            h["calls"],
            h["calls"]["queued"] - q0,
            c.tally,
            c.percentile(0.5, after=1),
            c.percentile(0.99, after=1),
        )
        c.close()


uvloop.run(main())
