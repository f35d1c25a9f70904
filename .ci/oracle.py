"""Runs whole CSV files through `headway demo` and holds the results against DuckDB and pyarrow.

usage: oracle.py HEADWAY_BINARY

Files: those of HEADWAY_TRIPS_CSV (separated by colons), and a million generated rows. Every row of the lake and every
document is checked; counts and integer sums must be exact, means within 1e-9 of their size.
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
import pyarrow.dataset

HOUR_MS = 3_600_000
CELL = 0.01
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
        SELECT (pickup_ms // {HOUR_MS}) * {HOUR_MS} AS start, vendor_id, count(*), sum(passengers), sum(duration_s),
            avg(duration_s), avg(km),
            count(*) FILTER (WHERE hour(pickup_local) BETWEEN 7 AND 9 OR hour(pickup_local) BETWEEN 16 AND 18),
            avg(lon1), avg(lat1)
        FROM trips WHERE lon1 <> 0 AND lat1 <> 0 AND lon2 <> 0 AND lat2 <> 0 GROUP BY 1, 2
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
    for key, (trips, passengers, duration, mean_duration, mean_km, peak, lon, lat) in want.items():
        body = found[key]
        exact = [body[name] for name in ("trip_count", "passenger_count", "total_trip_duration", "trips_during_peak")]
        assert exact == [trips, passengers, duration, peak], (key, exact, (trips, passengers, duration, peak))
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


def run_file(headway, path, scratch, job, late_allowed=False):
    run = scratch / "run"
    subprocess.run(["rm", "-rf", str(run)], check=True)
    command = [headway, "demo", "--csv", str(path), "--once", "--json", "--dir", str(run)]
    if layout_of(path) is LAYOUTS["aws"]:
        command += ["--mapping", "aws"]
    if late_allowed:
        # Lateness is decided range by range: at full speed so small a file is one range.
        command += ["--rate", "2500"]
    if job:
        command += ["--job", str(job)]
    started = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stderr[-4000:]}\n{done.stdout[-4000:]}"
    ledger = json.loads(done.stdout)
    db = duckdb.connect()
    total = load(db, path, scratch)
    (good,) = db.execute("SELECT count(*) FROM trips").fetchone()
    assert ledger["balanced"], ledger
    producer = ledger["producer"]
    assert (producer["read"], producer["delivered"], producer["rejected"]) == (total, good, total - good), (producer, total, good)
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
    print(f"{path.name}: {total} rows, {rows} in the lake, {len(want)} results, {query['late']} late, {time.monotonic() - started:.1f} s", flush=True)


def main():
    headway = Path(sys.argv[1]).resolve()
    real = [Path(path) for path in os.environ.get("HEADWAY_TRIPS_CSV", "").split(":") if path]
    if not real:
        print("HEADWAY_TRIPS_CSV is not set: no real trips are run", flush=True)
    shipped = Path("processor/jobs/taxi.sql").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)

        def job(lag):
            path = scratch / f"{lag.replace(' ', '-')}.sql"
            before = "out_of_orderness = INTERVAL '5 minutes'"
            assert before in shipped
            path.write_text(shipped.replace(before, f"out_of_orderness = INTERVAL '{lag}'"), encoding="utf-8")
            return path

        for path in real:
            if layout_of(path) is LAYOUTS["kaggle"]:
                run_file(headway, path, scratch, job("190 days"))
                run_file(headway, path, scratch, job("1 hour"), late_allowed=True)
            else:
                run_file(headway, path, scratch, None)
        generated = scratch / "generated.csv"
        subprocess.run([headway, "generate", "--rows", "1000000", "--trips-per-day", "300000", "--seed", "11", "--out", str(generated)], check=True)
        run_file(headway, generated, scratch, None)


if __name__ == "__main__":
    main()
