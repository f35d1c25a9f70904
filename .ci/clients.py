"""Other people's clients against the binaries, on real servers.

usage: clients.py FOLDER_OF_BINARIES

The binaries run over Kafka, a schema registry, S3 and OpenSearch. Trips are also written by a producer that is not ours
(confluent-kafka with its Avro serializer). Then kcat and confluent-kafka read the topics, DuckDB and pyarrow the lake, and
plain HTTP the index; DuckDB works the statistics out from the lake, and all must agree.
"""

import datetime
import glob
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import confluent_kafka
import duckdb
import duckdb_extension_httpfs
import pyarrow.dataset
import pyarrow.fs
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

ROWS = 20_000
FOREIGN = 700
ROOT = Path(__file__).resolve().parent.parent
UTC = datetime.timezone.utc


def server(name, wanted=None):
    value = os.environ.get(name)
    if not value:
        sys.exit(f"{name} is not set: deploy/local up; export $(deploy/local env)")
    if wanted is None:
        return value
    named = dict(entry.split("=", 1) for entry in value.split(","))
    return named.get(wanted) or next(iter(named.values()))


KAFKA = server("HEADWAY_TEST_KAFKA", "kafka4")
REGISTRY = server("HEADWAY_TEST_REGISTRY")
OPENSEARCH = server("HEADWAY_TEST_OPENSEARCH")
S3 = server("HEADWAY_TEST_S3", "minio")
BUCKET, REGION = server("HEADWAY_TEST_S3_BUCKET"), server("HEADWAY_TEST_S3_REGION")
KEY, SECRET = server("HEADWAY_TEST_S3_ACCESS_KEY"), server("HEADWAY_TEST_S3_SECRET_KEY")
NAME = f"clients-{int(time.time())}"
TRIPS, RESULTS = f"{NAME}-trips", f"{NAME}-statistics"


def settings(folder):
    job = (ROOT / "processor/jobs/taxi.sql").read_text()
    job = job.replace("= 'trips'", f"= '{TRIPS}'").replace("= 'trip_statistics'", f"= '{RESULTS}'")
    # What comes last is written by another producer, in no order.
    job = job.replace("INTERVAL '5 minutes'", "INTERVAL '30 days'")
    (folder / "job.sql").write_text(job)
    documents = (ROOT / "sinks/opensearch/documents/taxi.toml").read_text()
    documents = documents.replace('topic = "trip_statistics"', f'topic = "{RESULTS}"').replace('topic = "trips"', f'topic = "{TRIPS}"')
    (folder / "documents.toml").write_text(documents)
    keys = {
        "LOG_BROKERS": KAFKA,
        "REGISTRY_URL": REGISTRY,
        "PRODUCER_TOPIC": TRIPS,
        "PRODUCER_MAPPING": "headway",
        "PROCESSOR_JOB": folder / "job.sql",
        "PROCESSOR_APPLICATION_ID": NAME,
        "PROCESSOR_MASK_SALT": "a salt",
        "SINK_S3_TOPICS": TRIPS,
        "SINK_S3_GROUP": f"{NAME}-s3",
        "SINK_S3_URL": f"s3://{BUCKET}/{NAME}",
        "SINK_S3_ENDPOINT": S3,
        "SINK_S3_REGION": REGION,
        "SINK_S3_ACCESS_KEY_ID": KEY,
        "SINK_S3_SECRET_ACCESS_KEY": SECRET,
        "SINK_OPENSEARCH_TOPICS": RESULTS,
        "SINK_OPENSEARCH_GROUP": f"{NAME}-opensearch",
        "SINK_OPENSEARCH_URL": OPENSEARCH,
        "SINK_OPENSEARCH_DOCUMENTS": folder / "documents.toml",
        "TELEMETRY_LOG_LEVEL": "warn",
    }
    return os.environ | {f"HEADWAY_{key}": str(value) for key, value in keys.items()}


def write_foreign_trips(registry):
    """Trips of a producer that is not ours, into the same topic, under the schema that the registry has for it."""
    schema = registry.get_latest_version(f"{TRIPS}-value").schema.schema_str
    serialize = AvroSerializer(registry, schema, conf={"auto.register.schemas": False, "use.latest.version": True})
    context = SerializationContext(TRIPS, MessageField.VALUE)
    producer = confluent_kafka.Producer({"bootstrap.servers": KAFKA, "enable.idempotence": True})
    first = datetime.datetime(2016, 1, 1, 6, tzinfo=UTC)
    for number in range(FOREIGN):
        pickup = first + datetime.timedelta(seconds=97 * number)
        trip = {
            "id": f"foreign-{number}",
            "vendor_id": 1 + number % 2,
            "pickup_at": pickup,
            "dropoff_at": pickup + datetime.timedelta(seconds=600),
            "passenger_count": number % 5,
            "pickup_longitude": -73.98,
            "pickup_latitude": 40.75,
            "dropoff_longitude": -73.95,
            "dropoff_latitude": 40.77,
            "store_and_fwd_flag": "N",
            "gc_distance": 3.25,
            "trip_duration": 600,
            "google_distance": None,
            "google_duration": None,
            "source": "foreign",
        }
        producer.produce(TRIPS, key=trip["id"], value=serialize(trip, context))
    assert producer.flush(30) == 0, "the other producer's trips were not delivered"


def read_topic(registry, topic):
    """Every committed record of a topic, as confluent-kafka and its Avro deserializer read it."""
    deserialize = AvroDeserializer(registry)
    context = SerializationContext(topic, MessageField.VALUE)
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": KAFKA,
            "group.id": f"{NAME}-reader-{topic}",
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "enable.auto.commit": False,
        }
    )
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([confluent_kafka.TopicPartition(topic, partition, confluent_kafka.OFFSET_BEGINNING) for partition in partitions])
    records, ended = [], set()
    deadline = time.time() + 60
    while len(ended) < len(partitions):
        assert time.time() < deadline, f"{topic} is not read to its end after 60 s"
        message = consumer.poll(1.0)
        if message is None:
            continue
        if message.error():
            assert message.error().code() == confluent_kafka.KafkaError._PARTITION_EOF, message.error()
            ended.add(message.partition())
        else:
            records.append(deserialize(message.value(), context))
    consumer.close()
    return records


def kcat_count(topic):
    command = ["kcat", "-C", "-b", KAFKA, "-t", topic, "-o", "beginning", "-e", "-q", "-X", "isolation.level=read_committed", "-f", "%o\n"]
    return len(subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout.splitlines())


def lake():
    """The lake as DuckDB sees it: a connection with the view `trips`."""
    db = duckdb.connect()
    extension = glob.glob(os.path.dirname(duckdb_extension_httpfs.__file__) + "/extensions/*/httpfs.duckdb_extension")[0]
    db.execute(f"LOAD '{extension}'")
    endpoint = S3.split("://", 1)[1]
    db.execute(
        f"CREATE SECRET (TYPE s3, KEY_ID '{KEY}', SECRET '{SECRET}', ENDPOINT '{endpoint}', URL_STYLE 'path', USE_SSL false, REGION '{REGION}')"
    )
    db.execute(f"CREATE VIEW trips AS SELECT * FROM read_parquet('s3://{BUCKET}/{NAME}/{TRIPS}/**/*.parquet', hive_partitioning = true)")
    return db


def documents():
    index = f"{OPENSEARCH}/{RESULTS}-*"
    urllib.request.urlopen(urllib.request.Request(f"{index}/_refresh", method="POST")).read()
    with urllib.request.urlopen(f"{index}/_search?size=10000") as answer:
        hits = json.load(answer)["hits"]["hits"]
    # A point can be searched by place.
    query = {"query": {"geo_bounding_box": {"pickup_location": {"top_left": {"lat": 41.5, "lon": -75}, "bottom_right": {"lat": 40, "lon": -73}}}}}
    request = urllib.request.Request(f"{index}/_count", json.dumps(query).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        nearby = json.load(answer)["count"]
    assert nearby == len(hits) > 0, f"{nearby} of {len(hits)} documents lie in New York"
    return [hit["_source"] for hit in hits]


def millis(value):
    if isinstance(value, str):
        value = datetime.datetime.fromisoformat(value.replace("Z", "+00:00"))
    return round(value.timestamp() * 1000)


def compare(expected, found, what):
    assert len(found) == len(expected), f"{what}: {len(found)} results, expected {len(expected)}"
    for of in found:
        key = (millis(of["window_start"]), of["vendor_id"])
        *wanted, distance, score = expected[key]
        exact = [of[name] for name in ("trip_count", "passenger_count", "total_trip_duration", "peak_hour")]
        assert exact == wanted, f"{what} {key}: {exact}, expected {wanted}"
        assert abs(of["average_trip_distance"] - distance) <= 1e-9 * distance, f"{what} {key}: {of}"
        found = of.get("anomaly_score")  # a document leaves null out
        agree = (found is None) == (score is None) and (score is None or abs(found - score) <= 1e-9 * max(abs(score), 1))
        assert agree, f"{what} {key}: anomaly_score {found}, expected {score}"


def main():
    binaries = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        environment = settings(folder)

        def run(name, *arguments):
            subprocess.run([binaries / name, *arguments], check=True, env=environment, cwd=folder, timeout=300)

        csv = folder / "trips.csv"
        run("headway", "generate", "--rows", str(ROWS), "--seed", "9", "--out", str(csv))
        run("producer", str(csv), "--create-topics", "4")
        registry = SchemaRegistryClient({"url": REGISTRY})
        ours = len(read_topic(registry, TRIPS))
        write_foreign_trips(registry)
        run("processor", "--once")
        run("sink-s3", "--once")
        run("sink-opensearch", "setup")
        run("sink-opensearch", "--once")

        trips = read_topic(registry, TRIPS)
        dead = kcat_count(f"{TRIPS}.dlq")
        assert ours + dead == ROWS, f"{ours} trips and {dead} dead letters of {ROWS} rows"
        assert kcat_count(TRIPS) == len(trips) == ours + FOREIGN, f"kcat {kcat_count(TRIPS)}, confluent-kafka {len(trips)}"
        ids = {trip["id"] for trip in trips}
        assert len(ids) == len(trips), "an id stands twice on the topic"

        db = lake()
        rows, distinct = db.execute("SELECT count(*), count(DISTINCT id) FROM trips").fetchone()
        assert rows == distinct == len(trips), f"DuckDB finds {rows} rows with {distinct} ids in the lake"
        store = pyarrow.fs.S3FileSystem(access_key=KEY, secret_key=SECRET, endpoint_override=S3, region=REGION)
        table = pyarrow.dataset.dataset(f"{BUCKET}/{NAME}/{TRIPS}", filesystem=store, partitioning="hive").to_table()
        assert set(table["id"].to_pylist()) == ids, "pyarrow finds other ids in the lake"

        expected = {
            (window, vendor): tuple(of)
            for window, vendor, *of in db.execute(
                """WITH windows AS (
                       SELECT epoch_ms(pickup_at) // 3600000 * 3600000 AS start, vendor_id::INT AS vendor, count(*) AS trips,
                              sum(passenger_count)::BIGINT AS passengers, sum(trip_duration)::BIGINT AS duration,
                              mode(hour(pickup_at AT TIME ZONE 'America/New_York')) AS hour, avg(gc_distance) AS distance
                       FROM trips
                       WHERE pickup_longitude <> 0 AND pickup_latitude <> 0 AND dropoff_longitude <> 0 AND dropoff_latitude <> 0
                       GROUP BY ALL)
                   SELECT *, CASE WHEN count(*) OVER past >= 3 AND stddev_samp(trips) OVER past > 0
                       THEN (trips - avg(trips) OVER past) / stddev_samp(trips) OVER past END
                   FROM windows
                   WINDOW past AS (PARTITION BY vendor ORDER BY start ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)"""
            ).fetchall()
        }
        compare(expected, read_topic(registry, RESULTS), "the topic of results")
        compare(expected, documents(), "the index")
        print(f"{len(trips):,} trips ({FOREIGN} by another producer), {dead} dead letters, {len(expected)} results: all clients agree")


main()
