//! The log in this process.
