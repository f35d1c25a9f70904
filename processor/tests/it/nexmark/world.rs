//! Events on a log, and the same in a database.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use apache_avro::Schema;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use processor::ProcessorError;
use runtime::clock::Clock;
use runtime::log::{Log, NewRecord, ProducerOptions, TopicSpec};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, params};
use schemas::{SchemaId, value_subject};
use serde_json::Value as Json;

use super::generator::{Auction, Bid, Event, Generator, Person};
use crate::fixture::Fixture;
use crate::golden::Row;

/// After so many events the log's clock goes on.
const EVENTS_PER_TRANSACTION: usize = 64;

/// A job reads its source in so many polls, and as many of its partitions' ranges, at least.
const POLLS: u64 = 25;

/// The topics and their values' schemas.
const TOPICS: [(&str, &str); 3] = [
    ("persons", include_str!("../../nexmark/person.avsc")),
    ("auctions", include_str!("../../nexmark/auction.avsc")),
    ("bids", include_str!("../../nexmark/bid.avsc")),
];

/// Each topic's columns, as SQLite has them.
const TABLES: &str = "
    CREATE TABLE persons (id INTEGER, name TEXT, email_address TEXT, credit_card TEXT, city TEXT, state TEXT,
                          date_time INTEGER, extra TEXT, record_time INTEGER);
    CREATE TABLE auctions (id INTEGER, item_name TEXT, description TEXT, initial_bid INTEGER, reserve INTEGER,
                           date_time INTEGER, expires INTEGER, seller INTEGER, category INTEGER, extra TEXT,
                           record_time INTEGER);
    CREATE TABLE bids (auction INTEGER, bidder INTEGER, price INTEGER, date_time INTEGER, extra TEXT,
                       record_time INTEGER);";

/// How much there is, and on how much it is spread.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub events: u64,
    pub partitions: i32,
    pub shards: u32,
    pub workers: u32,
}

pub struct World {
    size: Size,
    fixture: Fixture,
    database: Connection,
}

impl World {
    /// Writes the first events to the log, and to the database with the times that the log has for them.
    pub fn new(generator: Generator, size: Size) -> Self {
        let fixture = Fixture::new(size.partitions);
        let mut writers = BTreeMap::new();
        for (topic, schema) in TOPICS {
            for topic in [topic.to_owned(), format!("{topic}.dlq")] {
                let policy = match topic.as_str() {
                    "persons" => "compact",
                    _ => "delete",
                };
                let spec = TopicSpec::new(topic, size.partitions)
                    .with("cleanup.policy", policy)
                    .with("message.timestamp.type", "LogAppendTime");
                fixture.log.create_topic(&spec).unwrap();
            }
            let id = fixture.registry.register(&value_subject(topic), schema);
            writers.insert(topic, (id.unwrap(), Schema::parse_str(schema).unwrap()));
        }
        let database = Connection::open_in_memory().unwrap();
        database.execute_batch(TABLES).unwrap();
        database.execute_batch("BEGIN").unwrap();
        let mut producer = fixture
            .log
            .producer(&ProducerOptions::transactional("writer"))
            .unwrap();
        producer.init_transactions().unwrap();
        let events: Vec<Event> = generator.events(size.events).collect();
        for (place, events) in events.chunks(EVENTS_PER_TRANSACTION).enumerate() {
            producer.begin().unwrap();
            for event in events {
                let (topic, key, value) = encoded(event);
                let value = framed(&writers[topic], value);
                producer
                    .send(NewRecord {
                        topic,
                        partition: None,
                        key: Some(key.to_string().as_bytes()),
                        value: Some(&value),
                        headers: &[],
                        timestamp_ms: Some(1),
                    })
                    .unwrap();
                insert(&database, event, fixture.clock.now_ms());
            }
            producer.commit().unwrap();
            // Not as fast as the events' own time, and sometimes much slower.
            let pause = 1_000 + (place as u64 * 7_919) % 9_000;
            fixture.clock.advance(Duration::from_millis(pause));
        }
        database.execute_batch("COMMIT").unwrap();
        Self {
            size,
            fixture,
            database,
        }
    }

    pub fn log(&self) -> Arc<dyn Log> {
        Arc::clone(&self.fixture.log) as _
    }

    pub fn fixture(&self) -> &Fixture {
        &self.fixture
    }

    /// Runs a job to the end of the input.
    pub fn drain(&self, log: Arc<dyn Log>, job: &str) -> Result<(), ProcessorError> {
        let mut options = self.fixture.options_over(log, job.into());
        options.job.shards = self.size.shards;
        options.workers = self.size.workers;
        let source = engine::sql::parse(job).unwrap().sources.into_values();
        let topic = source.map(|source| source.topic).next().unwrap();
        let count = &self.ask(&format!("SELECT count(*) AS rows FROM {topic}"))[0]["rows"];
        let at_once = count.as_u64().unwrap() / POLLS;
        options.worker.max_poll_records = at_once as usize;
        options.worker.max_range_rows = at_once;
        options.lifecycle.drain();
        self.fixture.run(options)
    }

    /// The answer of the database.
    pub fn ask(&self, sql: &str) -> Vec<Row> {
        let mut statement = self.database.prepare(sql).unwrap();
        let names: Vec<String> = statement
            .column_names()
            .into_iter()
            .map(str::to_owned)
            .collect();
        let rows = statement
            .query_map([], |row| {
                names
                    .iter()
                    .enumerate()
                    .map(|(place, name)| {
                        let value = match row.get_ref(place)? {
                            ValueRef::Null => Json::Null,
                            ValueRef::Integer(number) => number.into(),
                            ValueRef::Real(number) => number.into(),
                            ValueRef::Text(text) => String::from_utf8_lossy(text).into(),
                            ValueRef::Blob(_) => panic!("{name} is a blob"),
                        };
                        Ok((name.clone(), value))
                    })
                    .collect()
            })
            .unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    }
}

fn framed((id, schema): &(SchemaId, Schema), value: Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    schemas::wire::frame(*id, &mut bytes);
    let writer = GenericDatumWriter::builder(schema).build().unwrap();
    bytes.extend(writer.write_value_to_vec(value).unwrap());
    bytes
}

/// An event's topic, its key, and its value.
fn encoded(event: &Event) -> (&'static str, i64, Value) {
    let long = |name: &str, value: i64| (name.to_owned(), Value::Long(value));
    let time = |name: &str, value: i64| (name.to_owned(), Value::TimestampMillis(value));
    let text = |name: &str, value: &str| (name.to_owned(), Value::String(value.to_owned()));
    match event {
        Event::Person(person) => (
            "persons",
            person.id,
            Value::Record(vec![
                long("id", person.id),
                text("name", &person.name),
                text("email_address", &person.email_address),
                text("credit_card", &person.credit_card),
                text("city", person.city),
                text("state", person.state),
                time("date_time", person.date_time),
                text("extra", &person.extra),
            ]),
        ),
        Event::Auction(auction) => (
            "auctions",
            auction.id,
            Value::Record(vec![
                long("id", auction.id),
                text("item_name", &auction.item_name),
                text("description", &auction.description),
                long("initial_bid", auction.initial_bid),
                long("reserve", auction.reserve),
                time("date_time", auction.date_time),
                time("expires", auction.expires),
                long("seller", auction.seller),
                long("category", auction.category),
                text("extra", &auction.extra),
            ]),
        ),
        Event::Bid(bid) => (
            "bids",
            bid.auction,
            Value::Record(vec![
                long("auction", bid.auction),
                long("bidder", bid.bidder),
                long("price", bid.price),
                time("date_time", bid.date_time),
                text("extra", &bid.extra),
            ]),
        ),
    }
}

fn insert(database: &Connection, event: &Event, at: i64) {
    let inserted = match event {
        Event::Person(Person {
            id,
            name,
            email_address,
            credit_card,
            city,
            state,
            date_time,
            extra,
        }) => database
            .prepare_cached("INSERT INTO persons VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")
            .unwrap()
            .execute(params![
                id,
                name,
                email_address,
                credit_card,
                city,
                state,
                date_time,
                extra,
                at
            ]),
        Event::Auction(Auction {
            id,
            item_name,
            description,
            initial_bid,
            reserve,
            date_time,
            expires,
            seller,
            category,
            extra,
        }) => database
            .prepare_cached("INSERT INTO auctions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
            .unwrap()
            .execute(params![
                id,
                item_name,
                description,
                initial_bid,
                reserve,
                date_time,
                expires,
                seller,
                category,
                extra,
                at
            ]),
        Event::Bid(Bid {
            auction,
            bidder,
            price,
            date_time,
            extra,
        }) => database
            .prepare_cached("INSERT INTO bids VALUES (?, ?, ?, ?, ?, ?)")
            .unwrap()
            .execute(params![auction, bidder, price, date_time, extra, at]),
    };
    assert_eq!(inserted.unwrap(), 1);
}
