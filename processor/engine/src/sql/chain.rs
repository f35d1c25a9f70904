//! Queries over the results of others.

use std::collections::BTreeSet;

use super::{Insert, JobError, Script};

impl Script {
    /// The INSERTs whose results a source reads: those whose sink has its topic.
    pub fn feeding<'a>(&'a self, source: &str) -> impl Iterator<Item = (usize, &'a Insert)> {
        let topic = self.sources.get(source).map(|source| source.topic.as_str());
        self.inserts.iter().enumerate().filter(move |(_, insert)| {
            let sink = self.sinks.get(&insert.sink);
            sink.is_some_and(|sink| Some(sink.topic.as_str()) == topic)
        })
    }

    /// The INSERTs by their place, each behind those that it reads the results of.
    pub fn in_order(&self) -> Vec<usize> {
        let mut order = Vec::new();
        let mut visited = BTreeSet::new();
        for place in 0..self.inserts.len() {
            self.visit(place, &mut visited, &mut order);
        }
        order
    }

    fn visit(&self, place: usize, visited: &mut BTreeSet<usize>, order: &mut Vec<usize>) {
        if !visited.insert(place) {
            return;
        }
        for (before, _) in self.feeding(&self.inserts[place].source) {
            self.visit(before, visited, order);
        }
        order.push(place);
    }

    /// The INSERTs that read their own results, directly or through others.
    pub(super) fn circles(&self) -> Vec<JobError> {
        let mut errors = Vec::new();
        for (place, insert) in self.inserts.iter().enumerate() {
            let mut seen = BTreeSet::new();
            let mut open = vec![place];
            while let Some(next) = open.pop() {
                for (before, _) in self.feeding(&self.inserts[next].source) {
                    if seen.insert(before) {
                        open.push(before);
                    }
                }
            }
            if seen.contains(&place) {
                errors.push(JobError::new(
                    insert.source_at,
                    format!("{} is fed by its own results", insert.sink),
                    "write to a topic that it does not read",
                ));
            }
        }
        errors
    }
}
