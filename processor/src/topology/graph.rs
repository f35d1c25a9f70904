//! The graph while it grows, and its parts in their order.

use std::collections::{BTreeMap, BTreeSet};

use super::layout;
use super::parts::{Edge, Node, Part, TablePart, TopicPart};
use crate::check::Lookup;

pub(super) fn topic_id(topic: &str) -> String {
    format!("topic:{topic}")
}

#[derive(Default)]
pub(super) struct Graph {
    pub(super) topics: BTreeMap<String, TopicPart>,
    pub(super) parts: Vec<Node>,
    pub(super) edges: BTreeSet<Edge>,
}

impl Graph {
    pub(super) fn topic(&mut self, topic: &str) -> &mut TopicPart {
        self.topics.entry(topic.into()).or_insert(TopicPart {
            read: false,
            written: false,
            time: None,
            rows_in: 0,
            lag: 0,
            watermark: None,
            partitions: Vec::new(),
        })
    }

    /// A reference table, once for all queries.
    pub(super) fn table(&mut self, lookup: &Lookup) -> String {
        let id = format!("table:{}", lookup.table);
        if self.parts.iter().any(|part| part.id == id) {
            return id;
        }
        let table = TablePart {
            origin: lookup.origin.clone(),
            live: lookup.live,
            key: lookup.key.clone(),
        };
        self.add("table", &lookup.table, Part::Table(table))
    }

    pub(super) fn add(&mut self, kind: &str, name: &str, part: Part) -> String {
        let id = format!("{kind}:{name}");
        self.parts.push(Node {
            id: id.clone(),
            name: name.into(),
            part,
        });
        id
    }

    pub(super) fn join(&mut self, from: String, to: String) {
        self.edges.insert(Edge { from, to });
    }

    /// The nodes, each behind those that it reads from.
    pub(super) fn finished(self) -> (Vec<Node>, Vec<Edge>) {
        let mut nodes: Vec<Node> = self
            .topics
            .into_iter()
            .map(|(name, part)| Node {
                id: topic_id(&name),
                name,
                part: Part::Topic(part),
            })
            .chain(self.parts)
            .collect();
        let edges: Vec<Edge> = self.edges.into_iter().collect();
        let layers: BTreeMap<String, usize> = layout::layers(&nodes, &edges)
            .into_iter()
            .map(|(id, layer)| (id.to_owned(), layer))
            .collect();
        nodes.sort_by_key(|node| layers.get(&node.id).copied());
        (nodes, edges)
    }
}
