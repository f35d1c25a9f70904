//! Where a setting comes from, and what is wrong with it.

use std::fmt;
use std::path::PathBuf;

/// Where a setting comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The embedded defaults.
    Default,
    /// A line of a configuration file, from 1.
    File {
        /// The file.
        path: PathBuf,
        /// The line; 0: the file as a whole.
        line: usize,
    },
    /// An environment variable.
    Environment(String),
    /// A flag, as the user would write it.
    Flag(String),
    /// A file that holds nothing but a secret.
    SecretFile {
        /// The file.
        path: PathBuf,
        /// What named it.
        named_by: Box<Origin>,
    },
}

impl Origin {
    /// The line of a file; 0 for anything else.
    pub(super) fn line(&self) -> usize {
        match self {
            Self::File { line, .. } => *line,
            _ => 0,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line: 0 } => write!(f, "{}", path.display()),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(flag) => f.write_str(flag),
            Self::SecretFile { path, named_by } => {
                write!(f, "{} (named by {named_by})", path.display())
            }
        }
    }
}

/// One thing that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub origin: Origin,
    /// What.
    pub what: String,
    /// What to write instead.
    pub help: Option<String>,
}

impl Problem {
    pub(super) fn new(origin: Origin, what: impl Into<String>) -> Self {
        Self {
            origin,
            what: what.into(),
            help: None,
        }
    }

    pub(super) fn help(mut self, help: Option<String>) -> Self {
        self.help = help;
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.what)?;
        if let Some(help) = &self.help {
            write!(f, " ({help})")?;
        }
        Ok(())
    }
}

/// Everything that is wrong with the configuration, in one message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the configuration can't be used\n{}", list(.0))]
pub struct ConfigErrors(pub Vec<Problem>);

fn list(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(|problem| format!("  - {problem}"))
        .collect::<Vec<_>>()
        .join("\n")
}
