//! sink-s3
