//! One topic: decodes its records and makes documents of them.

use runtime::log::{Batch, Offset};
use schemas::decode::{BatchDecoder, PushError};
use schemas::{Registry, RegistryError, value_subject};

use std::sync::Arc;

use super::SinkError;
use super::letters::Letter;
use crate::document::{Document, Layout};
use crate::settings::TopicSettings;
use crate::target::{Remedy, Target, TargetError};

/// What became of one batch of records.
pub(super) struct Decoded {
    /// Documents, each with the place of its record in the batch.
    pub documents: Vec<(usize, Document)>,
    /// Bad records.
    pub letters: Vec<Letter>,
}

/// Why a batch was not decoded.
pub(super) enum Undecoded {
    /// The registry or the target can't be reached: the same batch again, later.
    Later(Unavailable),
    /// Someone must act.
    Failed(SinkError),
}

/// Who can't be reached.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unavailable {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Target(#[from] TargetError),
}

pub(super) struct Topic {
    settings: TopicSettings,
    /// The topic's id.
    pub id: String,
    pub partitions: i32,
    /// Made with the first records, since their writer has registered the schema by then.
    reader: Option<(BatchDecoder, Layout)>,
}

impl Topic {
    pub fn new(settings: TopicSettings, id: String, partitions: i32) -> Self {
        Self {
            settings,
            id,
            partitions,
            reader: None,
        }
    }

    pub fn name(&self) -> &str {
        &self.settings.topic
    }

    pub fn decode(
        &mut self,
        registry: &Arc<dyn Registry>,
        target: &dyn Target,
        batch: &Batch,
    ) -> Result<Decoded, Undecoded> {
        let topic = self.settings.topic.clone();
        let (decoder, layout) = match &mut self.reader {
            Some(reader) => reader,
            none => none.insert(open(&self.settings, registry, target)?),
        };
        let failed = |source| {
            Undecoded::Failed(SinkError::Decoder {
                topic: topic.clone(),
                source,
            })
        };
        let mut decoded = Decoded {
            documents: Vec::with_capacity(batch.len()),
            letters: Vec::new(),
        };
        let mut places: Vec<usize> = Vec::with_capacity(batch.len());
        let mut flush = |decoder: &mut BatchDecoder,
                         places: &mut Vec<usize>,
                         decoded: &mut Decoded|
         -> Result<(), Undecoded> {
            if let Some(rows) = decoder.flush().map_err(failed)? {
                let offsets: Vec<Offset> = places
                    .iter()
                    .map(|place| batch.get(*place).offset)
                    .collect();
                for (place, document) in
                    places
                        .iter()
                        .zip(layout.documents(&rows, &batch.partition, &offsets))
                {
                    match document {
                        Ok(document) => decoded.documents.push((*place, document)),
                        Err(refusal) => {
                            decoded.letters.push(
                                Letter::of(batch, *place, refusal.reason, refusal.detail)
                                    .at(refusal.column),
                            );
                        }
                    }
                }
            }
            places.clear();
            Ok(())
        };
        for (place, record) in batch.iter().enumerate() {
            let Some(value) = record.value else {
                let detail = "a record without a value (a tombstone) makes no document".to_owned();
                decoded
                    .letters
                    .push(Letter::of(batch, place, "no_value", detail));
                continue;
            };
            loop {
                match decoder.push(value) {
                    Ok(()) => places.push(place),
                    Err(PushError::Bad(bad)) => {
                        decoded
                            .letters
                            .push(Letter::of(batch, place, bad.reason, bad.detail));
                    }
                    Err(PushError::Full) => {
                        flush(decoder, &mut places, &mut decoded)?;
                        continue;
                    }
                    Err(PushError::Registry(error)) => {
                        // what was pushed is pushed again with the rest
                        decoder.flush().map_err(failed)?;
                        return Err(unavailable(error));
                    }
                }
                break;
            }
        }
        flush(decoder, &mut places, &mut decoded)?;
        Ok(decoded)
    }
}

/// The decoder to the topic's newest schema, and the layout of its documents.
fn open(
    settings: &TopicSettings,
    registry: &Arc<dyn Registry>,
    target: &dyn Target,
) -> Result<(BatchDecoder, Layout), Undecoded> {
    let topic = || settings.topic.clone();
    let subject = value_subject(&settings.topic);
    let Some((id, schema)) = registry.latest(&subject).map_err(unavailable)? else {
        return Err(Undecoded::Failed(SinkError::NoSchema {
            topic: topic(),
            subject,
        }));
    };
    target
        .prepare(settings, &schema)
        .map_err(|error| match error.remedy() {
            Remedy::Wait | Remedy::Ease => Undecoded::Later(error.into()),
            Remedy::Split | Remedy::Stop => Undecoded::Failed(SinkError::Target(error)),
        })?;
    let decoder = BatchDecoder::new(Arc::clone(registry), &schema).map_err(|source| {
        Undecoded::Failed(SinkError::Decoder {
            topic: topic(),
            source,
        })
    })?;
    let layout = Layout::new(settings, &decoder.schema())
        .map_err(|error| Undecoded::Failed(SinkError::Settings(error)))?;
    tracing::info!(
        topic = settings.topic,
        schema_id = id,
        "documents are made of this schema"
    );
    Ok((decoder, layout))
}

/// Whether the registry may come back.
fn unavailable(error: RegistryError) -> Undecoded {
    match error {
        RegistryError::Unavailable { .. } => Undecoded::Later(error.into()),
        RegistryError::Unknown { .. }
        | RegistryError::Incompatible { .. }
        | RegistryError::Invalid { .. }
        | RegistryError::NotAllowed { .. }
        | RegistryError::Storage { .. } => Undecoded::Failed(SinkError::Registry(error)),
    }
}
