"""Runs whole CSV files through `headway demo`, with each of the shipped jobs, and holds the results against DuckDB, pyarrow
and H3's own library.

usage: oracle.py HEADWAY_BINARY

Files: those of HEADWAY_TRIPS_CSV (separated by colons), and a million generated rows. Every row of the lake and every
document is checked; counts and integer sums must be exact, means within 1e-9 of their size, medians within the 1 % in rank
that the documentation names.
"""

import hashlib
import json
import os
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb
import h3
import pyarrow
import pyarrow.dataset

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
CELL = 0.01
HISTORY_DAYS = 30
SALT = b"headway-demo"

# For each layout: how many columns a row has, and where DuckDB finds each value (columns c0, c1, ...).
LAYOUTS = {
    "aws": {"columns": 14, "header": False, "time": "%m/%d/%y %H:%M", "km": "try_cast(c10 AS DOUBLE) * 1.609344", "duration": "c11"},
    "kaggle": {
        "columns": 11,
        "header": True,
        "time": "%Y-%m-%d %H:%M:%S",
        "km": "2 * 6371.0088 * asin(sqrt(pow(sin(radians(lat2 - lat1) / 2), 2)"
        " + cos(radians(lat1)) * cos(radians(lat2)) * pow(sin(radians(lon2 - lon1) / 2), 2)))",
        "duration": "c10",
    },
    "headway": {"columns": 14, "header": True, "time": "%Y-%m-%d %H:%M:%S", "km": "try_cast(c10 AS DOUBLE)", "duration": "c11"},
}


def layout_of(path):
    first = path.open("rb").readline().decode("utf-8", "replace")
    if first.startswith("id,vendor_id,"):
        return LAYOUTS["kaggle"]
    if first.startswith("id,vendorId,"):
        return LAYOUTS["headway"]
    return LAYOUTS["aws"]


def load(db, path, scratch):
    """Puts the usable rows of a file into the table `trips`, and returns how many rows it has in all."""
    layout = layout_of(path)
    clean = scratch / "clean.csv"
    total = 0
    with path.open("rb") as rows, clean.open("w", encoding="utf-8") as out:
        if layout["header"]:
            next(rows)
        for row in rows:
            row = row.strip(b"\r\n")
            if not row:
                continue
            total += 1
            try:
                text = row.decode("utf-8")
            except UnicodeDecodeError:
                continue
            if text.count(",") == layout["columns"] - 1:
                out.write(text + "\n")
    names = ", ".join(f"'c{i}': 'VARCHAR'" for i in range(layout["columns"]))
    db.execute("SET TimeZone = 'UTC'")
    db.execute(
        f"""
        CREATE OR REPLACE TABLE trips AS
        WITH raw AS (
            SELECT *, try_cast(c5 AS DOUBLE) AS lon1, try_cast(c6 AS DOUBLE) AS lat1,
                try_cast(c7 AS DOUBLE) AS lon2, try_cast(c8 AS DOUBLE) AS lat2,
                try_strptime(c2, '{layout["time"]}') AS pickup_local, try_strptime(c3, '{layout["time"]}') AS dropoff_local
            FROM read_csv('{clean}', header = false, delim = ',', quote = '', escape = '', columns = {{{names}}}, nullstr = '')
        ), typed AS (
            SELECT c0 AS id, try_cast(c1 AS INTEGER) AS vendor_id, try_cast(c4 AS INTEGER) AS passengers,
                lon1, lat1, lon2, lat2, pickup_local,
                epoch_ms(timezone('America/New_York', pickup_local)) AS pickup_ms,
                epoch_ms(timezone('America/New_York', dropoff_local)) AS dropoff_ms,
                {layout["km"]} AS km, try_cast({layout["duration"]} AS INTEGER) AS duration_s
            FROM raw
        )
        SELECT * FROM typed
        WHERE id IS NOT NULL AND vendor_id IS NOT NULL AND passengers IS NOT NULL AND duration_s IS NOT NULL
            AND km IS NOT NULL AND pickup_ms IS NOT NULL AND dropoff_ms >= pickup_ms
            AND abs(lon1) <= 180 AND abs(lat1) <= 90 AND abs(lon2) <= 180 AND abs(lat2) <= 90
            AND NOT (lon1 = 0 AND lat1 = 0) AND NOT (lon2 = 0 AND lat2 = 0)
        """
    )
    return total


def expected(db):
    rows = db.execute(
        f"""
        WITH used AS (
            SELECT *, (pickup_ms // {HOUR_MS}) * {HOUR_MS} AS start, hour(pickup_local) AS local_hour
            FROM trips WHERE lon1 <> 0 AND lat1 <> 0 AND lon2 <> 0 AND lat2 <> 0
        ), hours AS (
            SELECT start, vendor_id, local_hour FROM used GROUP BY start, vendor_id, local_hour
            QUALIFY row_number() OVER (PARTITION BY start, vendor_id ORDER BY count(*) DESC, local_hour) = 1
        ), windows AS (
            SELECT start, vendor_id, count(*) AS trips, sum(passengers) AS passengers, sum(duration_s) AS duration,
                avg(duration_s) AS mean_duration, avg(km) AS mean_km,
                count(*) FILTER (WHERE local_hour BETWEEN 7 AND 9 OR local_hour BETWEEN 16 AND 18) AS peak,
                avg(lon1) AS lon, avg(lat1) AS lat
            FROM used GROUP BY ALL
        ), gaps AS (
            -- A vendor that had no windows for longer than {HISTORY_DAYS} days starts anew.
            SELECT start, vendor_id, trips, coalesce(start - lag(start) OVER (PARTITION BY vendor_id ORDER BY start)
                > {HISTORY_DAYS * DAY_MS}, false)::INT AS anew FROM windows
        ), eras AS (
            SELECT *, sum(anew) OVER (PARTITION BY vendor_id ORDER BY start) AS era FROM gaps
        ), scores AS (
            SELECT start, vendor_id, CASE WHEN count(*) OVER past >= 3 AND stddev_samp(trips) OVER past > 0
                THEN (trips - avg(trips) OVER past) / stddev_samp(trips) OVER past END AS score FROM eras
            WINDOW past AS (PARTITION BY vendor_id, era ORDER BY start ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
        )
        SELECT start, vendor_id, trips, passengers, duration, mean_duration, mean_km, peak, local_hour, lon, lat, score
        FROM windows JOIN hours USING (start, vendor_id) JOIN scores USING (start, vendor_id)
        """
    ).fetchall()
    return {(row[0], row[1]): row[2:] for row in rows}


def masked(mean, argument, window_end, vendor):
    digest = hashlib.sha256(b"\0".join([SALT, argument.encode(), str(window_end).encode(), str(vendor).encode()])).digest()
    uniform = struct.unpack(">Q", digest[:8])[0] / 2**64
    return mean + CELL * (2 * uniform - 1)


def check_documents(run, want):
    found = {}
    with sqlite3.connect(run / "documents.sqlite") as documents:
        for index, body in documents.execute("SELECT index_name, body FROM documents"):
            body = json.loads(body)
            start = millis(body["window_start"])
            assert index == time.strftime("trip_statistics-%Y.%m", time.gmtime(start / 1000)), (index, start)
            assert (start, body["vendor_id"]) not in found
            found[start, body["vendor_id"]] = body
    assert found.keys() == want.keys(), f"{len(found)} documents, expected {len(want)}"
    for key, (trips, passengers, duration, mean_duration, mean_km, peak, peak_hour, lon, lat, score) in want.items():
        body = found[key]
        exact = [body[name] for name in ("trip_count", "passenger_count", "total_trip_duration", "trips_during_peak", "peak_hour")]
        wanted = [trips, passengers, duration, peak, peak_hour]
        assert exact == wanted, (key, exact, wanted)
        if score is None:
            assert body.get("anomaly_score") is None, (key, body)  # a document leaves null out
        else:
            near(body["anomaly_score"], score, 1e-9 * max(abs(score), 1), key)
        near(body["average_trip_duration"], mean_duration, abs(mean_duration) * 1e-9, key)
        near(body["average_trip_distance"], mean_km, abs(mean_km) * 1e-9, key)
        # rounded to 5 decimals: half a unit, and what the means may differ by
        near(body["pickup_longitude"], masked(lon, "pickup_longitude", key[0] + HOUR_MS, key[1]), 0.50001e-5, key)
        near(body["pickup_latitude"], masked(lat, "pickup_latitude", key[0] + HOUR_MS, key[1]), 0.50001e-5, key)


def millis(value):
    if isinstance(value, int):
        return value
    from datetime import datetime

    return round(datetime.fromisoformat(value.replace("Z", "+00:00")).timestamp() * 1000)


def near(found, want, tolerance, key):
    assert abs(found - want) <= tolerance, (key, found, want)


def check_lake(db, run):
    files = f"{run}/lake/trips/**/*.parquet"
    rows, ids, wrong = db.execute(
        f"""
        SELECT count(*), count(DISTINCT id), count(*) FILTER (WHERE NOT (
            lpad(year::VARCHAR, 4, '0') || lpad(month::VARCHAR, 2, '0') || lpad(day::VARCHAR, 2, '0') || lpad(hour::VARCHAR, 2, '0')
                = strftime(pickup_at AT TIME ZONE 'UTC', '%Y%m%d%H')))
        FROM read_parquet('{files}', hive_partitioning = true)
        """
    ).fetchone()
    (good,) = db.execute("SELECT count(*) FROM trips").fetchone()
    assert (rows, ids, wrong) == (good, good, 0), f"{rows} rows, {ids} ids, {wrong} in a wrong partition; expected {good}"
    (missing,) = db.execute(
        f"""
        SELECT count(*) FROM trips t LEFT JOIN read_parquet('{files}') p ON p.id = t.id
        WHERE NOT coalesce(
            epoch_ms(p.pickup_at) = t.pickup_ms AND epoch_ms(p.dropoff_at) = t.dropoff_ms
            AND p.passenger_count = t.passengers AND p.pickup_longitude = t.lon1 AND p.dropoff_latitude = t.lat2
            AND p.trip_duration = t.duration_s AND abs(p.gc_distance - t.km) <= 1e-9 * abs(t.km), false)
        """
    ).fetchone()
    assert missing == 0, f"{missing} rows of the file are not in the lake as they should be"
    arrow = pyarrow.dataset.dataset(run / "lake" / "trips", format="parquet", partitioning="hive").count_rows()
    assert arrow == good, (arrow, good)
    return rows


def documents(run, topic):
    query = "SELECT body FROM documents WHERE index_name = ?1 OR index_name LIKE ?1 || '-%'"
    with sqlite3.connect(run / "documents.sqlite") as found:
        return [json.loads(body) for (body,) in found.execute(query, (topic,))]


def by_key(bodies, key, want):
    found = {key(body): body for body in bodies}
    assert len(found) == len(bodies), f"{len(bodies)} documents with {len(found)} keys"
    assert found.keys() == want.keys(), sorted(map(str, found.keys() ^ want.keys()))[:5]
    return found


def check_top_dropoffs(db, run):
    rows = db.execute(f"SELECT pickup_ms // {HOUR_MS} * {HOUR_MS}, lat2, lon2, km FROM trips WHERE lat2 <> 0 AND lon2 <> 0").fetchall()
    cells = [h3.latlng_to_cell(lat, lon, 8) for _, lat, lon, _ in rows]
    dropoffs = pyarrow.table({"start": [row[0] for row in rows], "cell": cells, "km": [row[3] for row in rows]})
    db.register("dropoffs", dropoffs)
    want = db.execute(
        """
        SELECT start, cell, count(*), avg(km) FROM dropoffs GROUP BY start, cell
        QUALIFY row_number() OVER (PARTITION BY start ORDER BY count(*) DESC, cell) <= 10
        """
    ).fetchall()
    want = {(start, cell): of for start, cell, *of in want}
    found = by_key(documents(run, "top_dropoffs"), lambda body: (millis(body["window_start"]), body["cell"]), want)
    for key, (trips, km) in want.items():
        assert found[key]["trip_count"] == trips, (key, found[key], trips)
        near(found[key]["average_trip_distance"], km, abs(km) * 1e-9, key)
    return len(want)


def check_daily_durations(db, run):
    want = db.execute(
        f"""
        SELECT pickup_ms // {DAY_MS} * {DAY_MS}, pickup_local::DATE::VARCHAR, count(*), sum(duration_s), avg(duration_s),
            median(duration_s), quantile_disc(duration_s, 0.49), quantile_disc(duration_s, 0.51)
        FROM trips GROUP BY 1, 2
        """
    ).fetchall()
    want = {(start, day): of for start, day, *of in want}
    found = by_key(documents(run, "daily_durations"), lambda body: (millis(body["window_start"]), body["local_day"]), want)
    for key, (trips, total, mean, median, low, high) in want.items():
        body = found[key]
        assert [body["trip_count"], body["total_trip_duration"]] == [trips, total], (key, body, trips, total)
        near(body["average_trip_duration"], mean, abs(mean) * 1e-9, key)
        # exact below 128 values
        low, high = (median, median) if trips < 128 else (low, high)
        assert low <= body["median_trip_duration"] <= high, (key, body, median, low, high)
    return len(want)


def check_travel_times(db, run):
    want = db.execute("SELECT dayofweek(pickup_local), hour(pickup_local), count(*), avg(duration_s) FROM trips GROUP BY 1, 2").fetchall()
    want = {(weekday, hour): of for weekday, hour, *of in want}
    found = by_key(documents(run, "travel_times"), lambda body: (body["weekday"], body["hour"]), want)
    for key, (trips, mean) in want.items():
        assert found[key]["trip_count"] == trips, (key, found[key], trips)
        near(found[key]["average_trip_duration"], mean, abs(mean) * 1e-9, key)
    return len(want)


def demo(headway, path, scratch, job, rate=None):
    """Runs a file through a job; returns the folder of the run, its ledger, and a database with the usable rows."""
    run = scratch / "run"
    subprocess.run(["rm", "-rf", str(run)], check=True)
    command = [headway, "demo", "--csv", str(path), "--once", "--json", "--dir", str(run)]
    if layout_of(path) is LAYOUTS["aws"]:
        command += ["--mapping", "aws"]
    if rate:
        command += ["--rate", str(rate)]
    command += ["--job", str(job)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stderr[-4000:]}\n{done.stdout[-4000:]}"
    ledger = json.loads(done.stdout)
    db = duckdb.connect()
    total = load(db, path, scratch)
    (good,) = db.execute("SELECT count(*) FROM trips").fetchone()
    assert ledger["balanced"], ledger
    producer = ledger["producer"]
    assert (producer["read"], producer["delivered"], producer["rejected"]) == (total, good, total - good), (producer, total, good)
    return run, ledger, db


def run_statistics(headway, path, scratch, job, late_allowed=False):
    started = time.monotonic()
    # Lateness is decided range by range: at full speed so small a file is one range.
    run, ledger, db = demo(headway, path, scratch, job, rate=2500 if late_allowed else None)
    query = ledger["queries"][0]
    want = expected(db)
    counted = sum(row[0] for row in want.values())
    assert query["merged"] + query["late"] == counted, (query, counted)
    if late_allowed:
        assert query["late"] > 0, query
    else:
        assert query["late"] == 0, query
        check_documents(run, want)
    rows = check_lake(db, run)
    read, late = ledger["producer"]["read"], query["late"]
    print(f"{path.name}: {read} rows, {rows} in the lake, {len(want)} results, {late} late, {time.monotonic() - started:.1f} s", flush=True)


def run_analytics(headway, path, scratch, job):
    started = time.monotonic()
    run, ledger, db = demo(headway, path, scratch, job)
    for query in ledger["queries"]:
        assert query["late"] == 0, query
    results = [check(db, run) for check in (check_top_dropoffs, check_daily_durations, check_travel_times)]
    check_lake(db, run)
    print(
        f"{path.name}: {results[0]} top drop-offs, {results[1]} daily durations, {results[2]} travel times, {time.monotonic() - started:.1f} s",
        flush=True,
    )


def main():
    headway = Path(sys.argv[1]).resolve()
    real = [Path(path) for path in os.environ.get("HEADWAY_TRIPS_CSV", "").split(":") if path]
    if not real:
        print("HEADWAY_TRIPS_CSV is not set: no real trips are run", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)

        def job(name, lag):
            shipped = Path(f"processor/jobs/{name}.sql").read_text(encoding="utf-8")
            path = scratch / f"{name}-{lag.replace(' ', '-')}.sql"
            before = "out_of_orderness = INTERVAL '5 minutes'"
            assert before in shipped
            path.write_text(shipped.replace(before, f"out_of_orderness = INTERVAL '{lag}'"), encoding="utf-8")
            return path

        for path in real:
            # One of the files is shuffled over half a year.
            shuffled = layout_of(path) is LAYOUTS["kaggle"]
            lag = "190 days" if shuffled else "5 minutes"
            run_statistics(headway, path, scratch, job("taxi", lag))
            run_analytics(headway, path, scratch, job("taxi_analytics", lag))
            if shuffled:
                run_statistics(headway, path, scratch, job("taxi", "1 hour"), late_allowed=True)
        generated = scratch / "generated.csv"
        subprocess.run([headway, "generate", "--rows", "1000000", "--trips-per-day", "300000", "--seed", "11", "--out", str(generated)], check=True)
        run_statistics(headway, generated, scratch, job("taxi", "5 minutes"))
        run_analytics(headway, generated, scratch, job("taxi_analytics", "5 minutes"))


if __name__ == "__main__":
    main()
