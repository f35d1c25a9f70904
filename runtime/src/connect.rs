//! From configuration to the log and the registry that it names, and the options of their clients.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use schemas::{
    AddressError, Admin, Credentials, EmbeddedRegistry, HttpRegistry, HttpRegistryOptions,
    Registry, RegistryError,
};

use crate::config::{LogConfig, LogKind, RegistryConfig, RegistryKind};
use crate::log::embedded::{EmbeddedLog, EmbeddedOptions, Heartbeats};
use crate::log::kafka::{KafkaLog, KafkaOptions};
use crate::log::{ConsumerOptions, Log, LogError, ProducerOptions};

/// Opens the log that the configuration names.
///
/// # Errors
/// As [`EmbeddedLog::open`] and [`KafkaLog::connect`] have them.
pub fn connect_log(config: &LogConfig) -> Result<Arc<dyn Log>, LogError> {
    match config.kind {
        LogKind::Embedded => {
            tracing::info!(dir = %config.dir.display(), "opening the embedded log");
            // As with a broker's client: a member that is busy, but alive, keeps its place.
            let options = EmbeddedOptions {
                heartbeats: Heartbeats::ByLife,
                ..EmbeddedOptions::default()
            };
            Ok(EmbeddedLog::open(&config.dir, options)?)
        }
        LogKind::Kafka => {
            tracing::info!(brokers = config.brokers, "connecting to the log");
            Ok(KafkaLog::connect(KafkaOptions {
                client_id: config.client_id.clone(),
                extra: config.client.0.clone(),
                connect_timeout: config.connect_timeout_ms.duration(),
                request_timeout: config.request_timeout_ms.duration(),
                producer_queue_bytes: config.producer_queue_bytes,
                consumer_queue_bytes: config.consumer_queue_bytes,
                ..KafkaOptions::new(config.brokers.as_str())
            })?)
        }
    }
}

impl LogConfig {
    /// A member of `group` with the configured timeouts; `name` is what it adds to the client id.
    pub fn consumer_options(&self, group: &str, name: &str) -> ConsumerOptions {
        ConsumerOptions {
            client_id: format!("{}-{name}", self.client_id),
            session_timeout: self.session_timeout_ms.duration(),
            max_poll_interval: self.max_poll_interval_ms.duration(),
            ..ConsumerOptions::new(group)
        }
    }

    /// A producer with the configured timeouts, transactional under an id; `name` is what it adds to the client id.
    pub fn producer_options(&self, transactional_id: Option<&str>, name: &str) -> ProducerOptions {
        ProducerOptions {
            transactional_id: transactional_id.map(str::to_owned),
            transaction_timeout: self.transaction_timeout_ms.duration(),
            delivery_timeout: self.delivery_timeout_ms.duration(),
            linger: self.linger_ms.duration(),
            ..ProducerOptions::idempotent(format!("{}-{name}", self.client_id))
        }
    }
}

/// Why there is no registry.
#[derive(Debug, thiserror::Error)]
pub enum ConnectRegistryError {
    /// `registry.url` can't be used.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// `registry.ca_file` can't be read.
    #[error("registry.ca_file {} can't be read", file.display())]
    Authorities {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The registry can't be opened.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// The pause between two looks at a registry that does not answer.
const PAUSE: Duration = Duration::from_millis(500);

/// Waits up to `patience` for a registry's first answer, if waiting may help.
///
/// # Errors
/// Why it can't be used, and what to do.
pub fn wait_for_registry(registry: &dyn Registry, patience: Duration) -> Result<(), RegistryError> {
    let until = Instant::now() + patience;
    let mut told = false;
    loop {
        match registry.reach() {
            Ok(()) => {
                if told {
                    tracing::info!("the schema registry answers");
                }
                return Ok(());
            }
            Err(unreached) if unreached.may_pass && Instant::now() + PAUSE < until => {
                if !told {
                    tracing::warn!(reason = %unreached.error, "waiting for the schema registry");
                    told = true;
                }
                std::thread::sleep(PAUSE);
            }
            Err(unreached) => return Err(unreached.error),
        }
    }
}

/// Opens the registry that the configuration names. Of one over HTTP nothing is asked yet.
///
/// # Errors
/// An address or a file that can't be used.
pub fn connect_registry(
    config: &RegistryConfig,
) -> Result<Arc<dyn Registry>, ConnectRegistryError> {
    Ok(connect_registry_admin(config)?)
}

/// The same, for what people ask of a registry.
///
/// # Errors
/// An address or a file that can't be used.
pub fn connect_registry_admin(
    config: &RegistryConfig,
) -> Result<Arc<dyn Admin>, ConnectRegistryError> {
    match config.kind {
        RegistryKind::Embedded => Ok(Arc::new(EmbeddedRegistry::open(&config.file)?)),
        RegistryKind::Http => {
            let urls = config
                .url
                .split(',')
                .map(str::trim)
                .filter(|url| !url.is_empty());
            let credentials = if config.username.is_empty() {
                Credentials::None
            } else {
                Credentials::Basic {
                    user: config.username.clone(),
                    password: config.password.expose().to_owned(),
                }
            };
            let mut options = HttpRegistryOptions::new(urls)
                .with_credentials(credentials)
                .with_timeout(config.timeout_ms.duration());
            if !config.ca_file.as_os_str().is_empty() {
                let read = std::fs::read(&config.ca_file);
                let pem = read.map_err(|source| ConnectRegistryError::Authorities {
                    file: config.ca_file.clone(),
                    source,
                })?;
                options = options.with_ca_pem(pem);
            }
            Ok(Arc::new(HttpRegistry::new(options)?))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::config::Config;
    use crate::log::TopicSpec;

    #[test]
    fn an_embedded_log_and_registry_are_opened_where_the_configuration_says() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::defaults().unwrap();
        config.log.kind = LogKind::Embedded;
        config.log.dir = dir.path().join("log");
        config.registry.kind = RegistryKind::Embedded;
        config.registry.file = dir.path().join("registry.json");
        let log = connect_log(&config.log).unwrap();
        assert!(log.create_topic(&TopicSpec::new("t", 2)).unwrap());
        assert!(
            matches!(connect_log(&config.log), Err(LogError::Storage { .. })),
            "the folder is in use"
        );
        let schema = r#"{"type": "record", "name": "R", "fields": []}"#;
        let id = connect_registry(&config.registry)
            .unwrap()
            .register("t-value", schema)
            .unwrap();
        assert_eq!(
            connect_registry(&config.registry)
                .unwrap()
                .latest("t-value")
                .unwrap()
                .unwrap()
                .0,
            id
        );
    }

    #[test]
    fn a_registrys_address_that_cannot_be_used_is_named() {
        let mut config = Config::defaults().unwrap();
        config.registry.url = "registry:8081".into();
        let error = connect_registry(&config.registry).err().unwrap();
        assert!(error.to_string().contains("registry:8081"), "{error}");
    }
}
