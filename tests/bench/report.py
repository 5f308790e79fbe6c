"""Medians, the table, and how they stand to the targets."""
import statistics

from load import ROWS


def median_of(samples, key):
    values = [s[key] for s in samples if key in s]
    return statistics.median(values) if values else None


def summarize(samples):
    """All runs of one row on one server and disk, as one dictionary of medians."""
    result = {"runs": len(samples)}
    for key in sorted({k for s in samples for k, v in s.items() if isinstance(v, (int, float))}):
        result[key] = median_of(samples, key)
    for key in ("latency_us", "flush_latency_us"):
        parts = [s[key] for s in samples if s.get(key, {}).get("count")]
        if parts:
            result[key] = {k: statistics.median(p[k] for p in parts) for p in parts[:1] for k in p}
    rates = [s["iops"] for s in samples if "iops" in s]
    if rates and result["iops"]:
        result["spread"] = (max(rates) - min(rates)) / result["iops"]
    return result


class Results:
    """Every sample by disk, row and server, in the order of arrival."""

    def __init__(self):
        self.samples = {}

    def add(self, disk, row, server, sample):
        self.samples.setdefault(disk, {}).setdefault(row, {}).setdefault(server, []).append(sample)

    def summary(self):
        return {disk: {row: {server: summarize(samples) for server, samples in servers.items()}
                       for row, servers in rows.items()}
                for disk, rows in self.samples.items()}


def number(value, digits=1):
    return "-" if value is None else f"{value:,.{digits}f}"


def rate(s):
    if s["block_bytes"] >= 1 << 20:
        return f"{s['mib_per_s']:,.0f} MiB/s"
    return f"{s['iops']:,.0f}"


def line(server, s, reference):
    tail = s.get("latency_us", {})
    flush = s.get("flush_latency_us", {})
    ratio = "" if reference is None or not s["iops"] else f"{reference['iops'] / s['iops']:.2f}"
    extra = ""
    if s.get("flushes"):
        extra = f"flush p50 {number(flush.get('p50'), 0)} us"
    if "member_flushes_per_flush" in s:
        extra += f", {s['member_flushes_per_flush']:.2f} disk flushes a flush"
    return (f"  {server:32} {rate(s):>12} {number(s.get('server_cpu_us_per_io')):>8}"
            f" {number(s['client_cpu_us_per_io']):>7} {number(tail.get('p50'), 0):>7}"
            f" {number(tail.get('p99'), 0):>8} {100 * s.get('spread', 0):>5.0f}% {ratio:>7}  {extra}")


HEADER = (f"  {'':32} {'IOPS':>12} {'server':>8} {'client':>7} {'p50':>7} {'p99':>8} {'spread':>6}"
          f" {'tarn is':>7}\n"
          f"  {'':32} {'':>12} {'us CPU':>8} {'us CPU':>7} {'us':>7} {'us':>8} {'':>6} {'times':>7}")


def table(summary, limits):
    """The whole text; @limits are the servers without a disk, shown beside every disk's."""
    out = []
    for disk, rows in summary.items():
        out.append(f"\n{disk}\n{HEADER}")
        for name in [n for n in ROWS if n in rows]:
            servers = dict(rows[name])
            reference = servers.get("tarn")
            if disk != limits:
                servers.update(summary.get(limits, {}).get(name, {}))
            out.append(ROWS[name].title)
            out += [line(server, s, reference if server != "tarn" else None)
                    for server, s in servers.items()]
        out += other_lines(rows)
    return "\n".join(out)


def other_lines(rows):
    out = []
    for server, s in rows.get("open", {}).items():
        out.append(f"open after kill -9 during first writes: {server} {s['seconds']:.2f} s")
    for server, s in rows.get("memory", {}).items():
        out.append(f"peak memory: {server} {s['peak_rss_bytes'] / 1048576:.0f} MiB")
    return out


CACHE_BYTES = 512 << 20          # tarn's default
QCOW2, QCOW2_SUB = "qemu-nbd qcow2", "qemu-nbd qcow2, 128k/4k"
QSD = "qemu-storage-daemon raw"


def ratio(rows, row, server, over_row, over_server):
    a = rows.get(row, {}).get(server, {}).get("iops")
    b = rows.get(over_row, {}).get(over_server, {}).get("iops")
    return a / b if a and b else None


def targets(rows, is_direct):
    """(what, value, wanted, at_least) for one disk; a value is None where it was not measured.

    On a real disk the disk sets the rate, and nbdkit's figures are those of the page cache."""
    def tarn(row, key):
        return rows.get(row, {}).get("tarn", {}).get(key)
    out = []
    for row in ("read", "write"):
        if not is_direct:
            out.append((f"random {row}: IOPS", tarn(row, "iops"), 150000, True))
            out.append((f"random {row}: server us per I/O", tarn(row, "server_cpu_us_per_io"), 7,
                        False))
            out.append((f"random {row}: four connections over one",
                        ratio(rows, row + "4", "tarn", row, "tarn"), 1.3, True))
            out.append((f"random {row} over nbdkit file", ratio(rows, row, "tarn", row, "nbdkit file"),
                        1, True))
            out.append((f"sequential {row} over nbdkit file",
                        ratio(rows, "seq" + row, "tarn", "seq" + row, "nbdkit file"), 0.8, True))
        out.append((f"random {row} over qcow2", ratio(rows, row, "tarn", row, QCOW2), 4, True))
    for row, least in (("vhostread", 1.5), ("vhostwrite", 1.5), ("vhostread1", 1), ("vhostwrite1", 1)):
        out.append((f"{row} over qemu-storage-daemon on raw", ratio(rows, row, "tarn", row, QSD), least,
                    True))
    for row in ("vhostread", "vhostwrite"):
        if not is_direct:
            out.append((f"{row}: server us per I/O", tarn(row, "server_cpu_us_per_io"), 4.5, False))
    for row, what in (("first", "first writes"), ("snapwrite", "writes after a snapshot")):
        out.append((f"{what} over writes to allocated", ratio(rows, row, "tarn", "write", "tarn"), 0.8,
                    True))
        out.append((f"{what} over qcow2's first writes", ratio(rows, row, "tarn", "first", QCOW2), 5,
                    True))
        out.append((f"{what} over qcow2 after an internal snapshot",
                    ratio(rows, row, "tarn", "snapwrite", QCOW2), 20, True))
    for row in ("flush", "firstflush", "snapflush", "mixed"):
        out.append((f"member flushes a client flush, {row}", tarn(row, "member_flushes_per_flush"), 1.05,
                    False))
    out.append(("first writes scattered over 64 GiB over qcow2's",
                ratio(rows, "wide", "tarn", "wide", QCOW2), 1, True))
    for row in ("snap10", "snap1000"):
        out.append((f"reads {row[4:]} snapshots back over 1", ratio(rows, row, "tarn", "snap1", "tarn"),
                    0.95, True))
    memory = tarn("memory", "peak_rss_bytes")
    if memory is not None:
        cached = min(tarn("memory", "metadata_bytes"), CACHE_BYTES)
        out.append(("peak memory beyond the map nodes that there are to cache, MiB",
                    (memory - cached) / 1048576, 64, False))
    out.append(("open after kill -9, s", tarn("open", "seconds"), 5, False))
    return out


def target_lines(summary):
    out = []
    for disk, rows in summary.items():
        lines = []
        for what, value, wanted, at_least in targets(rows, disk.endswith("O_DIRECT")):
            if value is None:
                continue
            met = value >= wanted if at_least else value <= wanted
            lines.append(f"  {'met   ' if met else 'MISSED'} {what}: {value:,.2f}"
                         f" ({'at least' if at_least else 'at most'} {wanted:,})")
        if lines:
            out += [f"\nTargets on {disk}", *lines]
    return "\n".join(out)
