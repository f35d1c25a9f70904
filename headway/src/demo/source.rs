//! Where a demo's rows come from, as the producer asks for them.

use std::error::Error;
use std::io;

use producer::input::{Inputs, Next, Source as Input};

use super::chunks::Chunks;
use super::folder::{Folder, Origin, Source};
use crate::generate::Settings;

/// The producer's input.
pub fn input(folder: &Folder, origin: &Origin) -> io::Result<Input> {
    Ok(match &origin.source {
        Source::Csv(files) => Input::Files(files.clone()),
        Source::Generated { seed, rows } => {
            let settings = Settings {
                seed: *seed,
                ..Settings::default()
            };
            let chunks = Chunks::new(folder.input(), settings, *rows)?;
            Input::Named {
                id: format!("generated-{seed}"),
                inputs: Box::new(Generated(chunks)),
            }
        }
    })
}

struct Generated(Chunks);

impl Inputs for Generated {
    fn file(&mut self, index: usize) -> Result<Next, Box<dyn Error + Send + Sync>> {
        Ok(self.0.file(index as u64)?.map_or(Next::NoMore, Next::File))
    }
}
