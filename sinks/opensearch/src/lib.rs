//! sink-opensearch
