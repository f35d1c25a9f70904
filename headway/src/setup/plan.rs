//! What a pipeline needs, by its configuration and its job.

use engine::sql::{Script, TableOrigin};
use processor::topics::{QueryTopics, job_wanted};
use runtime::config::Config;
use runtime::dead_letter::dlq_wanted;
use runtime::log::{Log, LogError};
use runtime::topics::{Use, Wanted};
use schemas::shipped;
use schemas_tool::Contract;

/// How many partitions the topics of rows get where nothing else is said.
const PARTITIONS: i32 = 4;

/// A topic, and what it is for.
pub(super) struct Topic {
    pub wanted: Wanted,
    pub purpose: &'static str,
}

/// A schema, and whose it is.
pub(super) struct Needed {
    pub contract: Contract,
    /// It is the pipeline's own, which another may stand in for: one that is registered is left alone.
    pub replaceable: bool,
}

/// All that a pipeline needs.
pub(super) struct Plan {
    pub topics: Vec<Topic>,
    needed: Vec<Needed>,
}

impl Plan {
    /// By the configuration and the job; `partitions` for topics of rows, if the user named a number.
    pub fn new(
        log: &dyn Log,
        config: &Config,
        script: Option<&Script>,
        partitions: Option<i32>,
    ) -> Result<Self, LogError> {
        let mut plan = Self {
            topics: Vec::new(),
            needed: Vec::new(),
        };
        // A number that the user names must be there; one that is there already holds for topics that go with it.
        let rows = |wanted: Wanted| {
            if partitions.is_some() {
                wanted.fixed()
            } else {
                wanted
            }
        };
        let default = partitions.unwrap_or(PARTITIONS);
        let [trips, dead, positions] = producer::topics(&config.producer.topic, default);
        plan.need(&trips, shipped::TAXI_TRIP, true);
        plan.add(rows(trips), "rows");
        plan.letters(dead);
        plan.need(&positions, shipped::POSITION, false);
        plan.add(positions, "the producer's positions");

        for insert in script
            .map(|script| script.inserts.as_slice())
            .unwrap_or_default()
        {
            let Some((source, sink)) = script.and_then(|script| {
                Some((
                    script.sources.get(&insert.source)?,
                    script.sinks.get(&insert.sink)?,
                ))
            }) else {
                continue;
            };
            plan.add(
                rows(Wanted::new(&source.topic, default, Use::Records)),
                "the job's source",
            );
            let of_source = log
                .topic(&source.topic)?
                .map_or(default, |found| found.partitions);
            let QueryTopics {
                partials,
                state,
                late,
                output,
            } = QueryTopics::new(
                &config.processor.application_id,
                &sink.name,
                &sink.topic,
                config.processor.shards.into(),
                of_source,
            );
            // A query without groups has no state.
            if insert.window.is_some() {
                plan.add(partials, "partial rows, the job's state");
                plan.add(state, "snapshots of the job's state");
                plan.need(&late, shipped::LATE, false);
                plan.add(late, "reports of late rows");
            }
            plan.results(output);
        }
        let tables = script.into_iter().flat_map(|script| script.tables.values());
        for table in tables {
            if let TableOrigin::Topic { topic, .. } = &table.origin {
                plan.add(Wanted::new(topic, default, Use::Table), "a reference table");
            }
        }
        if script.is_some_and(|script| !script.inserts.is_empty()) {
            let job = job_wanted(&config.processor.application_id);
            plan.add(job, "what the job's state depends on");
        }
        for topic in &config.sink_s3.topics {
            plan.add(rows(Wanted::new(topic, default, Use::Records)), "sink-s3");
        }
        for topic in &config.sink_opensearch.topics {
            plan.results(Wanted::new(topic, default, Use::Any));
        }
        for topic in config
            .sink_s3
            .topics
            .iter()
            .chain(&config.sink_opensearch.topics)
        {
            plan.letters(dlq_wanted(topic));
        }
        Ok(plan)
    }

    /// The schemas, with those that the command line names in place of the pipeline's own.
    pub fn contracts(&self, named: &[Contract]) -> Vec<Needed> {
        let others = self.needed.iter().filter(|needed| {
            !named
                .iter()
                .any(|named| named.topic == needed.contract.topic)
        });
        named
            .iter()
            .map(|contract| Needed {
                contract: contract.clone(),
                replaceable: false,
            })
            .chain(others.map(|needed| Needed {
                contract: needed.contract.clone(),
                replaceable: needed.replaceable,
            }))
            .collect()
    }

    /// The first use of a topic says what it must be like.
    fn add(&mut self, wanted: Wanted, purpose: &'static str) {
        if !self.has(&wanted) {
            self.topics.push(Topic { wanted, purpose });
        }
    }

    fn has(&self, wanted: &Wanted) -> bool {
        let name = &wanted.spec.name;
        self.topics
            .iter()
            .any(|known| known.wanted.spec.name == *name)
    }

    fn letters(&mut self, wanted: Wanted) {
        if !self.has(&wanted) {
            self.need(&wanted, shipped::DEAD_LETTER, false);
            self.add(wanted, "dead letters");
        }
    }

    fn results(&mut self, wanted: Wanted) {
        if !self.has(&wanted) {
            // Results of other jobs have a schema that the processor derives from the query.
            if wanted.spec.name == schemas_tool::TRIP_STATISTICS_TOPIC {
                self.need(&wanted, shipped::TRIP_STATISTICS, true);
            }
            self.add(wanted, "results");
        }
    }

    fn need(&mut self, wanted: &Wanted, text: &str, replaceable: bool) {
        self.needed.push(Needed {
            contract: Contract::shipped(&wanted.spec.name, text),
            replaceable,
        });
    }
}
