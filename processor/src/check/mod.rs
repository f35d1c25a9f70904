//! Says whether a job can run, and what it would do, without running it: only schemas are needed.
//!
//! ```text
//!   text ──parse──▶ statements ──schemas──▶ columns ──plan──▶ queries ──▶ Checked ──explain──▶ Explained
//!                       └──────────────────────┴────────────────┴──▶ errors ──render──▶ file:line:column
//! ```

mod explain;
mod lookups;
mod render;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use engine::plan::{Query, Settings};
use engine::sql::{JobError, Script};
use schemas::RegistryError;

use crate::{columns, tables};

pub(crate) use explain::explained;
pub use explain::{
    Column, Explained, Finish, Merge, QueryExplained, Scan, State, Time, Topic, explain,
};
pub use lookups::Lookup;
pub use render::render;

/// Stands in for the secret salt where none is configured: whether a job is right does not depend on it.
const STAND_IN_SALT: &[u8] = b"check";

/// A job that can run.
pub struct Checked {
    /// Its statements.
    pub script: Script,
    /// Its queries, in the order of its text.
    pub queries: Vec<Query>,
    /// What the configuration at hand lacks for running it.
    pub warnings: Vec<JobError>,
}

/// Why a job was not checked, or can't run.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// What is wrong with it, in the text's order.
    #[error("the job can't run as it is written")]
    Refused(Vec<JobError>),
    /// The registry failed.
    #[error("the schema of topic {topic} can't be had")]
    Registry {
        /// Which topic.
        topic: String,
        /// Why.
        #[source]
        source: RegistryError,
    },
}

/// Finds the schema of a topic's values; `None` if there is none.
pub type FindSchema<'a> = dyn FnMut(&str) -> Result<Option<String>, RegistryError> + 'a;

/// Checks a job: its text, its columns against the schemas of its sources and reference tables, the rows of those that are
/// files, its results against the schemas of its sinks. `folder` is where the paths of files begin.
///
/// # Errors
/// Everything that is wrong with it.
pub fn check(
    sql: &str,
    folder: &Path,
    mask_salt: &[u8],
    find_schema: &mut FindSchema<'_>,
) -> Result<Checked, CheckError> {
    let script = engine::sql::parse(sql).map_err(CheckError::Refused)?;
    let mut find = |topic: &str| {
        find_schema(topic).map_err(|source| CheckError::Registry {
            topic: topic.into(),
            source,
        })
    };
    let stand_in = Settings {
        mask_salt: STAND_IN_SALT.to_vec(),
    };
    // The planner says where it stands that a topic has no schema.
    let (sources, mut errors) = columns::of_job(&script, folder, &stand_in, &mut find)?;
    let columns: BTreeMap<String, SchemaRef> = sources
        .into_iter()
        .map(|(name, source)| (name, source.columns))
        .collect();
    let plan = |salt: &[u8]| {
        let settings = Settings {
            mask_salt: salt.to_vec(),
        };
        engine::plan::plan(&script, &columns, &settings)
    };
    let mut warnings = Vec::new();
    let planned = if mask_salt.is_empty() {
        let planned = plan(STAND_IN_SALT);
        if let (Ok(_), Err(lacking)) = (&planned, plan(mask_salt)) {
            warnings = lacking;
        }
        planned
    } else {
        plan(mask_salt)
    };
    let queries = match planned {
        Ok(queries) if errors.is_empty() => queries,
        Ok(_) => return Err(CheckError::Refused(errors)),
        Err(more) => {
            let unreadable = |error: &JobError| {
                // It has no columns because its schema can't be used: that is said already.
                errors.iter().any(|known| known.what.contains(&error.what))
            };
            let more: Vec<_> = more.into_iter().filter(|e| !unreadable(e)).collect();
            errors.extend(more);
            errors.sort_by_key(|error| error.at);
            return Err(CheckError::Refused(errors));
        }
    };
    if let Err(more) = tables::load_files(&script, &queries, folder) {
        errors.extend(more);
    }
    for query in &queries {
        if let Some(text) = find(&query.sink.topic)?
            && let Err(error) =
                schemas::encode::BatchEncoder::new(&text, 0, Arc::clone(&query.output))
        {
            errors.push(JobError {
                at: query.sink.at,
                what: format!(
                    "the results of {} do not fit the schema of its topic {}: {error}",
                    query.name, query.sink.topic
                ),
                help: Some(
                    "change the SELECT list, or register a schema that has its columns".into(),
                ),
            });
        }
    }
    if errors.is_empty() {
        Ok(Checked {
            script,
            queries,
            warnings,
        })
    } else {
        Err(CheckError::Refused(errors))
    }
}
