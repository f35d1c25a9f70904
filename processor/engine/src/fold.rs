//! The deterministic fold over a shard's partials.
