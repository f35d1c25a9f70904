//! The ledger: what every part counted, and the equations over it.

use serde::Serialize;

/// The whole ledger.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Ledger {
    /// Whether every check holds.
    pub balanced: bool,
    /// The producer's part, over all input sets.
    pub producer: ProducerLedger,
    /// The processor's part, by query.
    pub queries: Vec<QueryLedger>,
    /// The lake's part.
    pub lake: Option<LakeLedger>,
    /// The equations.
    pub checks: Vec<Check>,
    /// What is not checked, and why.
    pub unchecked: Vec<String>,
}

/// What the producer took and gave.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ProducerLedger {
    /// Rows read.
    pub read: u64,
    /// Rows that became dead letters.
    pub rejected: u64,
    /// Rows on the topic.
    pub delivered: u64,
    /// Whether every file was read to its end.
    pub finished: bool,
}

/// What one query took and gave.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct QueryLedger {
    /// The processor's own counts.
    #[serde(flatten)]
    pub counts: processor::ledger::QueryLedger,
    /// The topic that it reads.
    pub source: String,
    /// The topic of its results.
    pub sink: String,
    /// What its results are of.
    pub results_of: ResultsOf,
    /// Whether its results are written whenever they change, and not only once.
    pub emits_changes: bool,
    /// Records on the topic that it has not taken yet.
    pub waiting: u64,
    /// Row × window pairs in partials that its shards have not taken yet, read from the log.
    pub in_flight: u64,
    /// What became of its results, where they become documents.
    pub documents: Option<DocumentsLedger>,
}

/// What a query has results of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ResultsOf {
    /// The groups of each window.
    #[default]
    Windows,
    /// Groups without windows.
    Groups,
    /// Rows, one by one.
    Rows,
}

/// What sink-s3 took and gave.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LakeLedger {
    /// Rows written, as its committed offsets say.
    pub rows: u64,
    /// Dead letters.
    pub dead: u64,
    /// Files written, as its committed offsets say.
    pub files: u64,
    /// Rows in the lake's files, by their footers.
    pub rows_in_files: u64,
    /// Files in the lake.
    pub files_found: u64,
    /// Records on the topic that it has not taken yet.
    pub waiting: u64,
}

/// What sink-opensearch took of one topic, and what stands in its indices.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DocumentsLedger {
    /// Records that were stored as documents, or as newer versions of them.
    pub stored: u64,
    /// Dead letters.
    pub dead: u64,
    /// Documents in the indices.
    pub documents: u64,
    /// Those of them that no later version will replace; counted where results change.
    pub final_documents: Option<u64>,
    /// Records on the topic that it has not taken yet.
    pub waiting: u64,
}

/// How the sides of a check must lie to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Relation {
    /// Equal.
    #[serde(rename = "=")]
    Equal,
    /// The left side is not greater: counts do not tell more.
    #[serde(rename = "<=")]
    AtMost,
}

/// One equation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// In words.
    pub says: String,
    /// Its left side.
    pub left: u64,
    /// How the sides must lie to each other.
    pub relation: Relation,
    /// Its right side.
    pub right: u64,
    /// Whether they do.
    pub holds: bool,
}

impl Relation {
    /// As it is written.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::AtMost => "<=",
        }
    }
}

impl Ledger {
    /// Adds a check: that what stands left of the sign in `says` is `left`, and what stands right of it is as much.
    pub(super) fn equal(&mut self, says: impl Into<String>, left: u64, right: u64) {
        self.check(says.into(), left, Relation::Equal, right);
    }

    /// Adds a check that `left` is not more than `right`.
    pub(super) fn at_most(&mut self, says: impl Into<String>, left: u64, right: u64) {
        self.check(says.into(), left, Relation::AtMost, right);
    }

    fn check(&mut self, says: String, left: u64, relation: Relation, right: u64) {
        let holds = match relation {
            Relation::Equal => left == right,
            Relation::AtMost => left <= right,
        };
        self.checks.push(Check {
            says,
            left,
            relation,
            right,
            holds,
        });
    }
}
