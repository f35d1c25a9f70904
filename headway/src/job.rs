//! The processor's job, as the tools around it read it.

use std::path::Path;

use anyhow::Context;
use engine::sql::Script;
use runtime::cli::Usage;

/// A job's statements.
///
/// # Errors
/// A file that can't be read, or is no job; with line and column.
pub fn read(path: &Path) -> Result<Script, Usage> {
    let sql = std::fs::read_to_string(path)
        .with_context(|| format!("the job {} can't be read", path.display()))?;
    parse(&sql, &path.display().to_string())
}

/// The statements of a job whose text is known; `name` says in errors what it is.
///
/// # Errors
/// It is no job; with line and column.
pub fn parse(sql: &str, name: &str) -> Result<Script, Usage> {
    engine::sql::parse(sql).map_err(|errors| {
        let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
        Usage::new(format!("{name}: {}", lines.join("; ")))
    })
}
