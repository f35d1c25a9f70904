//! From the configuration to a run's options.

use std::sync::Arc;

use runtime::config::{Config, S3Addressing, SinkS3Config};
use runtime::log::Log;
use runtime::metrics::Metrics as EdgeMetrics;
use runtime::topics::Durability;
use schemas::Registry;

use crate::error::SinkError;
use crate::lake::{Addressing, Credentials, Lake, Location};
use crate::layout::Layout;
use crate::metrics::Metrics;
use crate::options::{FlushOptions, Options, TopicOptions};

impl Location {
    /// The lake that `[sink_s3]` names.
    pub fn from_config(sink: &SinkS3Config) -> Self {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let no_keys = sink.access_key_id.is_empty() && sink.secret_access_key.is_empty();
        let credentials = (!no_keys).then(|| Credentials {
            access_key_id: sink.access_key_id.clone(),
            secret_access_key: sink.secret_access_key.clone(),
            session_token: sink.session_token.clone(),
        });
        Self {
            url: sink.url.clone(),
            endpoint: given(&sink.endpoint),
            region: given(&sink.region),
            addressing: match sink.addressing {
                S3Addressing::Auto => Addressing::Auto,
                S3Addressing::Path => Addressing::Path,
                S3Addressing::Host => Addressing::VirtualHost,
            },
            ca_file: (!sink.ca_file.as_os_str().is_empty()).then(|| sink.ca_file.clone()),
            credentials,
            request_timeout: sink.request_timeout_ms.duration(),
        }
    }
}

impl Options {
    /// A run as `[sink_s3]` and `[log]` say.
    ///
    /// # Errors
    /// [`SinkError::Layout`] when a topic's layout makes no sense.
    pub fn from_config(
        config: &Config,
        log: Arc<dyn Log>,
        registry: Arc<dyn Registry>,
        metrics: Arc<Metrics>,
        edge_metrics: EdgeMetrics,
    ) -> Result<Self, SinkError> {
        let sink = &config.sink_s3;
        let topics = sink.topics.iter().map(|topic| {
            let time = sink
                .partition_time_by_topic
                .get(topic)
                .unwrap_or(&sink.partition_time);
            let layout =
                layout(time, &sink.partition_zone, &sink.partition_columns).map_err(|source| {
                    SinkError::Layout {
                        topic: topic.clone(),
                        source,
                    }
                })?;
            Ok(TopicOptions::new(topic, layout))
        });
        let topics = topics.collect::<Result<Vec<_>, SinkError>>()?;
        let location = Location::from_config(sink);
        let options = Self::new(
            log,
            registry,
            topics,
            Lake::At(location),
            &sink.group,
            metrics,
            edge_metrics,
        );
        let flush = FlushOptions {
            bytes: sink.flush_bytes,
            rows: sink.flush_rows,
            interval: sink.flush_interval_ms.duration(),
            memory_bytes: usize::try_from(sink.memory_bytes).unwrap_or(usize::MAX),
            ..options.flush
        };
        let spill_dir = if sink.spill_dir.as_os_str().is_empty() {
            options.spill_dir
        } else {
            sink.spill_dir.clone()
        };
        Ok(Self {
            consumer: config.log.consumer_options(&sink.group, "sink-s3"),
            producer: config.log.producer_options(None, "sink-s3-dead-letters"),
            flush,
            spill_dir,
            durability: Durability::of(&config.log),
            start_deadline: sink.connect_timeout_ms.duration(),
            ..options
        })
    }
}

fn layout(
    time: &str,
    zone: &str,
    columns: &[String],
) -> Result<Layout, crate::layout::LayoutError> {
    let mut layout = Layout::new();
    if !time.is_empty() {
        layout = layout.by_hour(time, zone)?;
    }
    columns
        .iter()
        .try_fold(layout, |layout, column| layout.by_column(column))
}
