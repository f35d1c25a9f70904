//! Which shard a partial row goes to.
