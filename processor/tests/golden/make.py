"""What each job of this folder must give, worked out by DuckDB: NAME.sql is the job, NAME.duckdb.sql the same question to
a batch engine, NAME.json the answer. `make.py` writes the answers, `make.py --check` compares them. Needs duckdb."""

import csv
import json
import pathlib
import random
import sys

import duckdb

HERE = pathlib.Path(__file__).parent
START = 1457802000000  # 2016-03-12T17:00:00Z: the clocks of New York go forward within the second day


def trips():
    """Trips of 20 hours in bursts, up to 30 seconds out of order."""
    dice = random.Random(7)
    time, rows = START, []
    for number in range(600):
        time += dice.choice([1, 2, 3, 5, 8]) * 1000 if dice.random() < 0.9 else dice.randrange(30_000, 2_000_000)
        rows.append((f"id{number}", dice.randrange(3), time - dice.randrange(30_000), dice.randrange(5),
                     round(dice.uniform(0.1, 20), 4), dice.choice("abcdefg")))
    return rows


def main():
    check = "--check" in sys.argv
    with open(HERE / "trips.csv", "w" if not check else "r", newline="") as file:
        if not check:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["id", "vendor_id", "pickup_ms", "passenger_count", "distance", "place"])
            writer.writerows(trips())
    database = duckdb.connect()
    database.sql(f"CREATE TABLE trips AS FROM read_csv('{HERE / 'trips.csv'}')")
    database.sql(f"CREATE TABLE places AS FROM read_csv('{HERE / 'places.csv'}')")
    stale = []
    for question in sorted(HERE.glob("*.duckdb.sql")):
        answer = database.sql(question.read_text())
        rows = [dict(zip(answer.columns, row)) for row in answer.fetchall()]
        rows.sort(key=lambda row: [str(value) for value in row.values()])
        text = "[\n" + ",\n".join(json.dumps(row, default=int) for row in rows) + "\n]\n"
        target = HERE / question.name.replace(".duckdb.sql", ".json")
        if not check:
            target.write_text(text)
        elif target.read_text() != text:
            stale.append(target.name)
    if stale:
        sys.exit(f"stale, run make.py: {', '.join(stale)}")


main()
